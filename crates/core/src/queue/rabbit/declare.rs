//! Makes the objects of [`super::super::topology`] at the broker, or looks for them. Decides nothing about them.

use std::collections::BTreeMap;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{Shared, TopologyMode, dial::why, session::Lost};
use crate::queue::topology::{Argument, Arguments, Binding, Exchange, Queue, Routing, Target, Topology};

/// What to do about an object that is there with other arguments.
const DIFFERS: &str =
    "remedy: delete it once it is empty and let --topology declare make it anew, or run with --topology skip";
/// What to do about an object that is not there.
const MISSING: &str = "remedy: run once with --topology declare, or declare what `genfleet topology` prints";
/// What to do where our user may not declare.
const FORBIDDEN: &str =
    "remedy: give this user that right, or declare what `genfleet topology` prints and run with --topology verify";

/// Whatever `--topology` asks for, on a channel of its own.
pub(super) async fn prepare(shared: &Shared, connection: &Connection) -> Result<(), Lost> {
    if shared.mode == TopologyMode::Skip {
        return Ok(());
    }
    let _alone = shared.declaring.lock().await;
    let channel = connection.create_channel().await.map_err(|error| why(&error))?;
    let channel = match shared.mode {
        TopologyMode::Declare => declare(channel, &shared.topology).await?,
        TopologyMode::Verify => verify(connection, channel, &shared.topology).await?,
        TopologyMode::Skip => channel,
    };
    channel.close(200, "done".into()).await.map_err(|error| why(&error))
}

async fn declare(channel: Channel, topology: &Topology) -> Result<Channel, Lost> {
    for object in objects(topology) {
        object.declare(&channel, false).await.map_err(|error| refused(object.shown(), &error))?;
    }
    for binding in &topology.bindings {
        let to = || ("binding to", binding.destination.as_str());
        bind(&channel, binding).await.map_err(|error| refused(to(), &error))?;
    }
    Ok(channel)
}

/// A passive declaration finds what is missing and compares nothing; an active one compares, and makes nothing of
/// what is there. Should somebody delete it between the two, it is made anew.
///
/// Bindings cannot be looked at over AMQP; a publication that finds none is noticed when it comes back.
async fn verify(connection: &Connection, mut channel: Channel, topology: &Topology) -> Result<Channel, Lost> {
    let mut comparable = true;
    for object in objects(topology) {
        object.declare(&channel, true).await.map_err(|error| refused(object.shown(), &error))?;
        if !comparable {
            continue;
        }
        match object.declare(&channel, false).await {
            Ok(()) => {}
            // The rights of such a user are meant to be few: it is not asked again, object by object.
            Err(error) if soft(&error) == Some(AMQPSoftError::ACCESSREFUSED) => {
                let reason = why(&error);
                tracing::info!(reason, "exchanges and queues are looked for, their arguments could not be compared");
                comparable = false;
                // The refusal closed it.
                channel = connection.create_channel().await.map_err(|error| why(&error))?;
            }
            Err(error) => return Err(refused(object.shown(), &error)),
        }
    }
    Ok(channel)
}

/// What a look at the whole topology found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Exchanges and queues that were looked for.
    pub looked_for: usize,
    /// Those that are not there: `queue genfleet.jobs.cdn.purge`.
    pub missing: Vec<String>,
    /// Those that are there with other arguments, with the broker's words.
    pub different: Vec<String>,
    /// Why the arguments could not be compared, where our user may not.
    pub incomparable: Option<String>,
}

/// As [`verify`], to the end: all that is missing and all that differs. Bindings cannot be looked at over AMQP.
pub(super) async fn compare(connection: &Connection, topology: &Topology) -> Result<Comparison, Lost> {
    let mut found = Comparison::default();
    let mut channel = open(connection).await?;
    for object in objects(topology) {
        found.looked_for += 1;
        let (what, name) = object.shown();
        let Err(error) = look(object, &channel, found.incomparable.is_none()).await else { continue };
        match soft(&error) {
            Some(AMQPSoftError::NOTFOUND) => found.missing.push(format!("{what} {name}")),
            Some(AMQPSoftError::PRECONDITIONFAILED) => found.different.push(format!("{what} {name}: {}", why(&error))),
            Some(AMQPSoftError::ACCESSREFUSED) => found.incomparable = Some(why(&error)),
            _ => return Err(format!("{what} {name}: {}", why(&error))),
        }
        // The broker closes a channel with every objection.
        channel = open(connection).await?;
    }
    channel.close(200, "done".into()).await.map_err(|error| why(&error))?;
    Ok(found)
}

async fn look(object: Object<'_>, channel: &Channel, comparable: bool) -> lapin::Result<()> {
    object.declare(channel, true).await?;
    if comparable { object.declare(channel, false).await } else { Ok(()) }
}

async fn open(connection: &Connection) -> Result<Channel, Lost> {
    connection.create_channel().await.map_err(|error| why(&error))
}

/// Only an objection of the broker has a remedy; a connection that broke meanwhile has none.
fn refused((what, name): (&str, &str), error: &lapin::Error) -> Lost {
    let remedy = match soft(error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => format!("; {DIFFERS}"),
        Some(AMQPSoftError::NOTFOUND) => format!("; {MISSING}"),
        Some(AMQPSoftError::ACCESSREFUSED) => format!("; {FORBIDDEN}"),
        _ => String::new(),
    };
    format!("{what} {name}: {}{remedy}", why(error))
}

fn soft(error: &lapin::Error) -> Option<AMQPSoftError> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    match refusal.kind() {
        AMQPErrorKind::Soft(soft) => Some(soft.clone()),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// What can be declared by itself.
#[derive(Clone, Copy)]
enum Object<'a> {
    Exchange(&'a Exchange),
    Queue(&'a Queue),
}

fn objects(topology: &Topology) -> impl Iterator<Item = Object<'_>> {
    topology.exchanges.iter().map(Object::Exchange).chain(topology.queues.iter().map(Object::Queue))
}

impl Object<'_> {
    fn shown(&self) -> (&str, &str) {
        match self {
            Self::Exchange(exchange) => ("exchange", &exchange.name),
            Self::Queue(queue) => ("queue", &queue.name),
        }
    }

    /// Passive: only looked for.
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

/// Names of ours are short by the rule for prefixes.
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
