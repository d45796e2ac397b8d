//! Declares the objects of [`crate::topology`] at the broker, or checks that they exist.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::try_join_all};
use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    error::{describe, refusal},
    link::SessionError,
    settings::TopologyMode,
    shared::Shared,
};
use crate::topology::{Argument, Arguments, Binding, Exchange, Queue, Routing, Target, Topology};

/// The remedy for an object that exists with other arguments.
const DIFFERS: &str =
    "remedy: delete it once it is empty and let --topology declare make it anew, or run with --topology skip";
/// The remedy for a missing object.
const MISSING: &str = "remedy: run once with --topology declare, or declare what `genfleet topology` prints";
/// The remedy for a user without the right to declare.
const FORBIDDEN: &str =
    "remedy: give this user that right, or declare what `genfleet topology` prints and run with --topology verify";

/// The log line for exchanges that an earlier version declared.
const FORMER: &str =
    "declared by an earlier version: they are used as they are; genfleet doctor says what is better now";

/// The form of an existing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectForm {
    Current,
    /// Declared by an earlier version. It also works, and cannot be changed in place.
    Former,
}

/// Prepares the topology as `--topology` asks for, on a channel of its own. A connection that comes while another one
/// of this process does so waits for its success instead.
pub(super) async fn prepare(shared: &Shared, connection: &Connection) -> Result<(), SessionError> {
    if shared.mode == TopologyMode::Skip {
        return Ok(());
    }
    let mut preparation = if let Ok(free) = shared.declaring.try_lock() {
        free
    } else {
        let after_another = shared.declaring.lock().await;
        if after_another.succeeded {
            return Ok(());
        }
        after_another
    };
    preparation.succeeded = false;
    let former = match shared.mode {
        TopologyMode::Declare => declare(connection, &shared.topology).await?,
        TopologyMode::Verify => verify(connection, &shared.topology).await?,
        TopologyMode::Skip => Vec::new(),
    };
    preparation.succeeded = true;
    if !former.is_empty() && !std::mem::replace(&mut preparation.logged, true) {
        tracing::warn!(exchanges = former.join(", "), "{FORMER}");
    }
    Ok(())
}

/// Checks that the topology still exists. With `--topology declare` all bindings are declared again. This also shows
/// that their queues exist, without a request to the leader of a queue.
pub(super) async fn check_exists(shared: &Shared, connection: &Connection) -> Result<(), SessionError> {
    let (channel, topology) = (open(connection).await?, &shared.topology);
    let rebinds = shared.mode == TopologyMode::Declare;
    let found = objects(topology).filter(|object| !rebinds || matches!(object, TopologyObject::Exchange(_)));
    let found = found.map(|object| object.declare(&channel, true).boxed());
    let bound = topology.bindings.iter().filter(|_| rebinds).map(|binding| bind(&channel, binding).boxed());
    // A refusal names the object, and fails all requests that were sent together.
    match try_join_all(found.chain(bound)).await {
        Ok(_) => channel.close(200, "done".into()).await.map_err(describe),
        // The refusal names only the first object.
        Err(error) if !rebinds && soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => {
            look_for_all(connection, topology, false).await?.objection().map_or(Ok(()), Err)
        }
        Err(error) => Err(describe(error)),
    }
}

/// Returns true if the broker refused because a part of the topology is missing or different.
pub(super) fn is_objection(error: &lapin::Error) -> bool {
    match soft_error(error) {
        Some(AMQPSoftError::NOTFOUND) => true,
        Some(AMQPSoftError::PRECONDITIONFAILED) => describe(error).contains("inequivalent arg"),
        _ => false,
    }
}

/// Declares all at once: the broker processes a channel's methods in order, so nothing has to be waited for in between.
/// Fails where anything is refused.
async fn declare_at_once(channel: &Channel, topology: &Topology) -> lapin::Result<()> {
    let objects = objects(topology).map(|object| object.declare(channel, false).boxed());
    let bindings = topology.bindings.iter().map(|binding| bind(channel, binding).boxed());
    try_join_all(objects.chain(bindings)).await.map(drop)
}

/// Declares all at once or, where anything is refused, one by one. Returns the names of the objects that an earlier
/// version has declared differently.
async fn declare(connection: &Connection, topology: &Topology) -> Result<Vec<String>, SessionError> {
    let mut channel = open(connection).await?;
    let former = if declare_at_once(&channel, topology).await.is_ok() {
        Vec::new()
    } else {
        // The refusal closed it.
        channel = open(connection).await?;
        declare_one_by_one(connection, &mut channel, topology).await?
    };
    channel.close(200, "done".into()).await.map_err(describe)?;
    Ok(former)
}

/// Declares the objects one by one, so that a refusal can be reported.
async fn declare_one_by_one(
    connection: &Connection,
    channel: &mut Channel,
    topology: &Topology,
) -> Result<Vec<String>, SessionError> {
    let mut former = Vec::new();
    for object in objects(topology) {
        match declare_or_accept(connection, channel, object).await {
            Ok(ObjectForm::Current) => {}
            Ok(ObjectForm::Former) => former.push(object.kind_and_name().1.to_owned()),
            Err(error) => return Err(describe_refusal(object.kind_and_name(), &error)),
        }
    }
    for binding in &topology.bindings {
        let to = || ("binding to", binding.destination.as_str());
        bind(channel, binding).await.map_err(|error| describe_refusal(to(), &error))?;
    }
    Ok(former)
}

/// Declares `object`. Where that is refused, tries the declaration of an earlier version, which creates nothing if the
/// object is there. A refusal closes the channel, which is then replaced.
async fn declare_or_accept(
    connection: &Connection,
    channel: &mut Channel,
    object: TopologyObject<'_>,
) -> lapin::Result<ObjectForm> {
    let Err(refusal) = object.declare(channel, false).await else { return Ok(ObjectForm::Current) };
    let Some(before) = object.former().filter(|_| soft_error(&refusal) == Some(AMQPSoftError::PRECONDITIONFAILED))
    else {
        return Err(refusal);
    };
    *channel = connection.create_channel().await?;
    match TopologyObject::Exchange(&before).declare(channel, false).await {
        Ok(()) => Ok(ObjectForm::Former),
        // It matches neither declaration. The first refusal says how it differs.
        Err(_) => Err(refusal),
    }
}

/// Verifies that all objects exist, and that their arguments are right if this user may ask that. Returns the names of
/// the objects that an earlier version has declared differently.
async fn verify(connection: &Connection, topology: &Topology) -> Result<Vec<String>, SessionError> {
    let found = compare(connection, topology).await?;
    if let Some(reason) = found.objection() {
        return Err(reason);
    }
    if found.incomparable.is_some() {
        // Such a user has few rights on purpose.
        tracing::info!(
            "exchanges and queues are there; their arguments are not compared, because this user may not configure \
             them. That is no fault: the shipped rights are like that"
        );
    }
    Ok(found.former)
}

/// The result of comparing a topology with the broker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyComparison {
    /// Number of exchanges and queues that were checked.
    pub looked_for: usize,
    /// Missing objects, e.g. `queue genfleet.jobs.cdn.purge`.
    pub missing: Vec<String>,
    /// Objects with other arguments, with the broker's message.
    pub different: Vec<String>,
    /// Names of the objects that an earlier version declared.
    pub former: Vec<String>,
    /// The reason why the arguments could not be compared, if the user lacks the right.
    pub incomparable: Option<String>,
}

impl TopologyComparison {
    /// Describes everything that is missing or different, with the remedies. `None` if nothing is.
    fn objection(&self) -> Option<String> {
        let missing = match self.missing.len() {
            0 => None,
            all if all == self.looked_for => Some(format!("none of the {all} exchanges and queues exists")),
            _ => Some(format!("no {}", self.missing.join(", no "))),
        };
        let missing = missing.map(|missing| format!("NOT_FOUND - {missing}; {MISSING}"));
        let different = (!self.different.is_empty()).then(|| format!("{}; {DIFFERS}", self.different.join("; ")));
        let objections: Vec<_> = missing.into_iter().chain(different).collect();
        (!objections.is_empty()).then(|| objections.join("; "))
    }
}

/// Compares a topology with the broker's by a passive declaration, which finds what is missing and compares nothing, and
/// an active one, which compares and creates nothing if the object is there. Should somebody delete it between the two,
/// it is created again.
///
/// Bindings cannot be queried over AMQP. A missing one is noticed when a publication is returned.
pub(super) async fn compare(connection: &Connection, topology: &Topology) -> Result<TopologyComparison, SessionError> {
    look_for_all(connection, topology, true).await
}

/// Looks for all objects, and compares their arguments if `comparable`, until this user is refused to.
async fn look_for_all(
    connection: &Connection,
    topology: &Topology,
    mut comparable: bool,
) -> Result<TopologyComparison, SessionError> {
    let mut found = TopologyComparison::default();
    let mut channel = open(connection).await?;
    for object in objects(topology) {
        found.looked_for += 1;
        let (what, name) = object.kind_and_name();
        let error = match look_for(connection, &mut channel, object, comparable).await {
            Ok(ObjectForm::Current) => continue,
            Ok(ObjectForm::Former) => {
                found.former.push(name.to_owned());
                continue;
            }
            Err(error) => error,
        };
        match soft_error(&error) {
            Some(AMQPSoftError::NOTFOUND) => found.missing.push(format!("{what} '{name}'")),
            Some(AMQPSoftError::PRECONDITIONFAILED) => {
                found.different.push(format!("{what} {name}: {}", describe(error)));
            }
            Some(AMQPSoftError::ACCESSREFUSED) => {
                (comparable, found.incomparable) = (false, Some(describe(error)));
            }
            _ => return Err(format!("{what} {name}: {}", describe(error))),
        }
        // The broker closes the channel with every refusal.
        channel = open(connection).await?;
    }
    channel.close(200, "done".into()).await.map_err(describe)?;
    Ok(found)
}

async fn look_for(
    connection: &Connection,
    channel: &mut Channel,
    object: TopologyObject<'_>,
    comparable: bool,
) -> lapin::Result<ObjectForm> {
    object.declare(channel, true).await?;
    if comparable { declare_or_accept(connection, channel, object).await } else { Ok(ObjectForm::Current) }
}

async fn open(connection: &Connection) -> Result<Channel, SessionError> {
    connection.create_channel().await.map_err(describe)
}

/// Describes a refusal and its remedy. A lost connection has no remedy.
fn describe_refusal((what, name): (&str, &str), error: &lapin::Error) -> SessionError {
    let remedy = match soft_error(error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => format!("; {DIFFERS}"),
        Some(AMQPSoftError::ACCESSREFUSED) => format!("; {FORBIDDEN}"),
        _ => String::new(),
    };
    format!("{what} {name}: {}{remedy}", describe(error))
}

fn soft_error(error: &lapin::Error) -> Option<AMQPSoftError> {
    refusal(error).map(|(kind, _)| kind.clone())
}

/// An exchange or a queue.
#[derive(Clone, Copy)]
enum TopologyObject<'a> {
    Exchange(&'a Exchange),
    Queue(&'a Queue),
}

fn objects(topology: &Topology) -> impl Iterator<Item = TopologyObject<'_>> {
    topology.exchanges.iter().map(TopologyObject::Exchange).chain(topology.queues.iter().map(TopologyObject::Queue))
}

impl TopologyObject<'_> {
    fn kind_and_name(&self) -> (&str, &str) {
        match self {
            Self::Exchange(exchange) => ("exchange", &exchange.name),
            Self::Queue(queue) => ("queue", &queue.name),
        }
    }

    /// Returns the declaration of an earlier version, if it was different.
    fn former(self) -> Option<Exchange> {
        match self {
            Self::Exchange(exchange) => exchange.as_before(),
            Self::Queue(_) => None,
        }
    }

    /// Declares the object. With `passive`, only checks that it exists.
    async fn declare(self, channel: &Channel, passive: bool) -> lapin::Result<()> {
        match self {
            Self::Exchange(exchange) => {
                let options = ExchangeDeclareOptions { durable: true, passive, ..Default::default() };
                let (name, arguments) = (name(&exchange.name), table(&exchange.arguments));
                channel.exchange_declare(name, kind(exchange.routing), options, arguments).await
            }
            Self::Queue(queue) => {
                let options = QueueDeclareOptions { durable: true, passive, ..Default::default() };
                channel.queue_declare(name(&queue.name), options, table(&queue.arguments)).await.map(drop)
            }
        }
    }
}

fn kind(routing: Routing) -> ExchangeKind {
    match routing {
        Routing::Direct => ExchangeKind::Direct,
        Routing::Fanout => ExchangeKind::Fanout,
        Routing::Topic => ExchangeKind::Topic,
    }
}

async fn bind(channel: &Channel, binding: &Binding) -> lapin::Result<()> {
    let Binding { source, destination, routing_key, .. } = binding;
    let (source, destination, key) = (name(source), name(destination), name(routing_key));
    match binding.destination_type {
        Target::Queue => {
            channel.queue_bind(destination, source, key, QueueBindOptions::default(), FieldTable::default()).await
        }
        Target::Exchange => {
            channel.exchange_bind(destination, source, key, ExchangeBindOptions::default(), FieldTable::default()).await
        }
    }
}

/// Converts a name of the topology. The rule for prefixes keeps these short.
fn name(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}

fn table(arguments: &Arguments) -> FieldTable {
    let value = |argument: &Argument| match argument {
        Argument::Number(number) => AMQPValue::LongLongInt(*number),
        Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
    };
    let values: BTreeMap<_, _> = arguments.iter().map(|(key, argument)| (name(key), value(argument))).collect();
    values.into()
}
