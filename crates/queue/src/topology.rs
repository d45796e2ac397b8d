//! The exchanges, queues and bindings of SPEC 6.1, and the exchange and routing key of each publication. Pure data.
//!
//! Does not speak to a broker: `rabbit::declare` does, and `genfleet topology` prints this as JSON (in the
//! form of a definitions file that a virtual host imports).

use std::time::Duration;

use crate::message::{Destination, QueueError};
use genfleet_job::Kind;
use genfleet_job::message::Lane;

mod object;

pub(crate) use self::object::Arguments;
pub use self::object::{Argument, Binding, Exchange, Former, Queue, Routing, Target, Topology};

/// Number of delay queues. Each holds a message for a power of two seconds, 2⁰ to 2¹⁵.
const BITS: u32 = 16;
/// Names of the delay queues, as in their queue names and in labels.
pub const DELAY_STEPS: [&str; BITS as usize] =
    ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15"];
/// The longest delay of the delay queues together, in seconds. A longer one is interrupted after this time and
/// continued by its `genfleet-not-before`.
pub const LONGEST_DELAY: u32 = (1 << BITS) - 1;
/// A delivery limit that reading dead letters never reaches, so that they are not dropped.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000;
/// Number of redeliveries after which the broker itself dead-letters a job.
const JOB_DELIVERY_LIMIT: i64 = 20;
/// The argument, and the policy key, with the exchange for messages that match no queue.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";
/// Maximum number of events in the inspection queue, and their bytes.
const EVENTS_HELD: i64 = 1_000_000;
const EVENT_BYTES_HELD: i64 = 1 << 30;

/// Maximum length of a prefix. Names are short strings, and up to 30 bytes longer than their prefix.
const LONGEST_PREFIX: usize = 64;

/// Refuses a prefix with which no exchange or queue can be declared: names that begin with `amq.` are reserved for the
/// broker.
pub fn check_prefix(prefix: &str) -> Result<(), QueueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let named = (1..=LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(allowed);
    if named && prefix != "amq" && !prefix.starts_with("amq.") {
        return Ok(());
    }
    let rule = format!("1 to {LONGEST_PREFIX} of A-Za-z0-9._- that are not amq and do not begin with amq.");
    Err(QueueError::Configuration(format!("{prefix:?} is no queue prefix: it takes {rule}")))
}

/// The exchange to which producers publish.
pub fn jobs_exchange(prefix: &str) -> String {
    format!("{prefix}.jobs")
}

/// The exchange of the dead letters.
pub(crate) fn dead_exchange(prefix: &str) -> String {
    format!("{prefix}.dead")
}

/// The queue of a lane.
pub fn lane_queue(prefix: &str, lane: Lane, kind: Kind) -> String {
    format!("{prefix}.{lane}.{kind}")
}

/// The dead letters of a kind.
pub fn dead_queue(prefix: &str, kind: Kind) -> String {
    format!("{prefix}.dead.{kind}")
}

/// The exchange and the queue of messages that match no queue.
pub fn unrouted(prefix: &str) -> String {
    format!("{prefix}.unrouted")
}

/// The queue with copies of messages that match no queue, for which workers publish events.
pub fn unknown_kinds_queue(prefix: &str) -> String {
    format!("{prefix}.jobs.unknown")
}

/// The exchange of the events, and their inspection queue.
pub fn events(prefix: &str) -> String {
    format!("{prefix}.events")
}

/// Returns the delay queues.
pub fn delay_queues(prefix: &str) -> impl Iterator<Item = String> {
    (0..BITS).map(move |bit| delay_exchange(prefix, bit))
}

/// The exchange through which processes send each other control messages.
pub(crate) fn control(prefix: &str) -> String {
    format!("{prefix}.control")
}

/// Returns true if messages from `exchange` were published by genfleet, so that their `genfleet-*` headers are trusted.
/// Producers may write only to `<prefix>.jobs`.
pub(crate) fn is_ours(prefix: &str, exchange: &str) -> bool {
    let Some(name) = exchange.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    name == "work" || name.strip_prefix("delay.").is_some_and(|level| (0..BITS).any(|bit| level == format!("{bit:02}")))
}

/// Returns true if `queue` can only contain what genfleet published: no producer's exchange is bound to it.
pub(crate) fn holds_ours(prefix: &str, queue: &str) -> bool {
    let is = |kind, lane| queue == lane_queue(prefix, lane, kind);
    let of_kind =
        |kind: Kind| is(kind, Lane::Resume) || is(kind, Lane::Suspect) || kind.is_internal() && is(kind, Lane::Jobs);
    Kind::ALL.into_iter().any(of_kind)
}

/// Returns true if `queue` is a work queue of `kind`.
pub(crate) fn is_lane_of(prefix: &str, queue: &str, kind: Kind) -> bool {
    [Lane::Jobs, Lane::Resume, Lane::Suspect].into_iter().any(|lane| queue == lane_queue(prefix, lane, kind))
}

/// Returns the kind of a routing key: `<kind>`, `<kind>.resume` or `<kind>.suspect`, also after the bits of a delay.
pub(crate) fn kind_of_key(key: &str) -> Option<Kind> {
    let key = key.trim_start_matches(['0', '1', '.']);
    let key = [".resume", ".suspect"].iter().find_map(|lane| key.strip_suffix(lane)).unwrap_or(key);
    key.parse().ok()
}

/// Returns the first delay queue of a delayed publication, and its delay in whole seconds.
pub(crate) fn delay(to: &Destination) -> Option<(&'static str, u32)> {
    let Destination::Lane { after, .. } = to else { return None };
    let delay = seconds(*after);
    Some((DELAY_STEPS.get(delay.checked_ilog2()? as usize)?, delay))
}

/// Returns the name of the delay queue `queue`; `None` if it is another queue.
pub fn delay_step(prefix: &str, queue: &str) -> Option<&'static str> {
    let step = queue.strip_prefix(prefix)?.strip_prefix(".delay.")?;
    DELAY_STEPS.into_iter().find(|each| *each == step)
}

/// Returns exchange and routing key of a publication.
pub fn route(prefix: &str, to: &Destination) -> (String, String) {
    match to {
        Destination::Jobs(kind) => (jobs_exchange(prefix), kind.to_string()),
        Destination::Lane { kind, lane, after } => match seconds(*after) {
            0 => (format!("{prefix}.work"), lane_key(*kind, *lane)),
            delay => {
                (delay_exchange(prefix, delay.ilog2()), format!("{}{}", delay_bits(delay), lane_key(*kind, *lane)))
            }
        },
        Destination::Event { kind, outcome } => (events(prefix), format!("{kind}.{outcome}")),
        Destination::Reply { queue } => (String::new(), queue.clone()),
        Destination::Dead { kind } => (dead_exchange(prefix), kind.clone()),
    }
}

fn lane_key(kind: Kind, lane: Lane) -> String {
    match lane {
        Lane::Jobs => kind.to_string(),
        Lane::Resume | Lane::Suspect => format!("{kind}.{lane}"),
    }
}

/// Rounds a delay up to whole seconds, at most the longest delay.
fn seconds(after: Duration) -> u32 {
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(LONGEST_DELAY).min(LONGEST_DELAY)
}

fn delay_exchange(prefix: &str, bit: u32) -> String {
    format!("{prefix}.delay.{bit:02}")
}

/// `0.0.….1.0.1.`, highest bit first.
fn delay_bits(delay: u32) -> String {
    (0..BITS).rev().map(|bit| if delay >> bit & 1 == 1 { "1." } else { "0." }).collect()
}

/// Returns the exchange to which delay queue `bit` passes its messages.
fn below(prefix: &str, bit: u32) -> String {
    bit.checked_sub(1).map_or_else(|| format!("{prefix}.work"), |next| delay_exchange(prefix, next))
}

/// Returns all objects of SPEC 6.1 with `prefix`.
pub fn topology(prefix: &str) -> Topology {
    topology_of(prefix, &Kind::ALL)
}

/// Returns the objects that a process uses that works `kinds` or publishes jobs of them: the queues of these kinds, and
/// all objects that belong to no kind for producers.
pub(crate) fn topology_of(prefix: &str, kinds: &[Kind]) -> Topology {
    let mut topology = Topology { exchanges: Vec::new(), queues: Vec::new(), bindings: Vec::new() };
    topology.add_exchanges(prefix);
    topology.add_dead_letter_queues(prefix);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_internal() || kinds.contains(kind)) {
        topology.add_kind(prefix, kind);
    }
    for bit in 0..BITS {
        topology.add_delay_queue(prefix, bit);
    }
    topology
}

impl Topology {
    fn add_exchanges(&mut self, prefix: &str) {
        let unrouted = unrouted(prefix);
        self.exchange(unrouted.clone(), Routing::Fanout, None);
        let jobs = self.exchange(jobs_exchange(prefix), Routing::Topic, Some(&unrouted));
        // A broker can restrict a producer to some keys of a topic exchange, but not of a direct one.
        jobs.former = Some(Former { routing: Routing::Direct, arguments: jobs.arguments.clone() });
        self.exchange(format!("{prefix}.work"), Routing::Topic, Some(&unrouted));
        self.exchange(dead_exchange(prefix), Routing::Topic, Some(&unrouted));
        self.exchange(events(prefix), Routing::Topic, None);
        self.exchange(control(prefix), Routing::Topic, None);
    }

    fn add_dead_letter_queues(&mut self, prefix: &str) {
        let unrouted = unrouted(prefix);
        self.queue(unrouted.clone(), dead_letter_arguments());
        self.bind(unrouted.clone(), (unrouted.clone(), Target::Queue), String::new());
        self.queue(unknown_kinds_queue(prefix), window());
        self.bind(unrouted, (unknown_kinds_queue(prefix), Target::Queue), String::new());
        self.queue(events(prefix), window());
        self.bind(events(prefix), (events(prefix), Target::Queue), "#".to_owned());
    }

    fn add_kind(&mut self, prefix: &str, kind: Kind) {
        for lane in [Lane::Jobs, Lane::Resume, Lane::Suspect] {
            let queue = lane_queue(prefix, lane, kind);
            self.queue(queue.clone(), work(prefix));
            // Only workers publish webhook jobs.
            if lane == Lane::Jobs && !kind.is_internal() {
                self.bind(jobs_exchange(prefix), (queue.clone(), Target::Queue), kind.to_string());
            }
            self.bind(format!("{prefix}.work"), (queue, Target::Queue), format!("#.{}", lane_key(kind, lane)));
        }
        let dead = dead_queue(prefix, kind);
        self.queue(dead.clone(), dead_letter_arguments());
        self.bind(dead_exchange(prefix), (dead, Target::Queue), format!("#.{kind}.#"));
    }

    /// Adds a delay queue. If bit `bit` of a delay is 1, the message waits in this queue, else it passes on at once.
    fn add_delay_queue(&mut self, prefix: &str, bit: u32) {
        let name = delay_exchange(prefix, bit);
        // A message that matches nothing would stay in the queue before, and a few dozen of them would block that
        // queue.
        let step = self.exchange(name.clone(), Routing::Topic, Some(&unrouted(prefix)));
        step.former = Some(Former { routing: Routing::Topic, arguments: Arguments::new() });
        self.queue(name.clone(), delay_queue(prefix, bit));
        let higher_bits = "*.".repeat((BITS - 1 - bit) as usize);
        self.bind(name.clone(), (name.clone(), Target::Queue), format!("{higher_bits}1.#"));
        self.bind(name, (below(prefix, bit), Target::Exchange), format!("{higher_bits}0.#"));
    }

    fn exchange(&mut self, name: String, routing: Routing, alternate: Option<&str>) -> &mut Exchange {
        let arguments = alternate.map(|alternate| (ALTERNATE_EXCHANGE, Argument::Text(alternate.to_owned())));
        let (arguments, former) = (arguments.into_iter().collect(), None);
        let exchange =
            Exchange { name, routing, durable: true, auto_delete: false, internal: false, arguments, former };
        let place = self.exchanges.len();
        self.exchanges.push(exchange);
        &mut self.exchanges[place]
    }

    fn queue(&mut self, name: String, arguments: Arguments) {
        self.queues.push(Queue { name, durable: true, auto_delete: false, arguments });
    }

    fn bind(&mut self, source: String, (destination, destination_type): (String, Target), routing_key: String) {
        let arguments = Arguments::new();
        self.bindings.push(Binding { source, destination, destination_type, routing_key, arguments });
    }
}

fn quorum() -> Arguments {
    Arguments::from([("x-queue-type", Argument::Text("quorum".to_owned()))])
}

fn dead_letter_arguments() -> Arguments {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit", Argument::Number(DEAD_DELIVERY_LIMIT));
    arguments
}

/// Arguments of a queue of copies, from which the oldest are dropped.
fn window() -> Arguments {
    let mut arguments = dead_letter_arguments();
    arguments.insert("x-max-length", Argument::Number(EVENTS_HELD));
    arguments.insert("x-max-length-bytes", Argument::Number(EVENT_BYTES_HELD));
    arguments.insert("x-overflow", Argument::Text("drop-head".to_owned()));
    arguments
}

/// Arguments for at-least-once dead-lettering: the broker keeps a message until the next queue has confirmed it.
fn dead_lettering_to(exchange: String) -> Arguments {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange", Argument::Text(exchange));
    arguments.insert("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned()));
    arguments.insert("x-overflow", Argument::Text("reject-publish".to_owned()));
    arguments
}

fn work(prefix: &str) -> Arguments {
    let mut arguments = dead_lettering_to(dead_exchange(prefix));
    arguments.insert("x-delivery-limit", Argument::Number(JOB_DELIVERY_LIMIT));
    arguments
}

fn delay_queue(prefix: &str, bit: u32) -> Arguments {
    let mut arguments = dead_lettering_to(below(prefix, bit));
    arguments.insert("x-message-ttl", Argument::Number(1000 << bit));
    arguments
}

#[cfg(test)]
mod tests;
