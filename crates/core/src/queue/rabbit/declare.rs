//! Makes the objects of [`super::super::topology`] at the broker, or looks for them. Decides nothing about them.

use std::collections::BTreeMap;

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{Shared, TopologyMode, dial::why, session::Lost};
use crate::queue::topology::{Argument, Arguments, Binding, Exchange, Queue, Routing, Target, Topology};

/// What to do about an object that is there with other arguments.
const DIFFERS: &str =
    "remedy: delete it once it is empty and let this process declare it anew, or run with --topology verify";
/// What to do about an object that is not there.
const MISSING: &str = "remedy: run once with --topology declare, or declare what `genfleet topology` prints";

/// Whatever `--topology` asks for, on a channel of its own.
pub(super) async fn prepare(shared: &Shared, connection: &Connection) -> Result<(), Lost> {
    if shared.mode == TopologyMode::Skip {
        return Ok(());
    }
    let _alone = shared.declaring.lock().await;
    let channel = connection.create_channel().await.map_err(|error| why(&error))?;
    match shared.mode {
        TopologyMode::Declare => declare(&channel, &shared.topology).await?,
        TopologyMode::Verify => verify(&channel, &shared.topology).await?,
        TopologyMode::Skip => {}
    }
    channel.close(200, "done".into()).await.map_err(|error| why(&error))
}

async fn declare(channel: &Channel, topology: &Topology) -> Result<(), Lost> {
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        declare_exchange(channel, exchange, options)
            .await
            .map_err(|error| refused("exchange", &exchange.name, DIFFERS, &error))?;
    }
    for queue in &topology.queues {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        declare_queue(channel, queue, options).await.map_err(|error| refused("queue", &queue.name, DIFFERS, &error))?;
    }
    for binding in &topology.bindings {
        bind(channel, binding).await.map_err(|error| refused("binding to", &binding.destination, DIFFERS, &error))?;
    }
    Ok(())
}

/// Bindings cannot be looked at over AMQP; a publication that finds none is noticed when it comes back.
async fn verify(channel: &Channel, topology: &Topology) -> Result<(), Lost> {
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        declare_exchange(channel, exchange, options)
            .await
            .map_err(|error| refused("exchange", &exchange.name, MISSING, &error))?;
    }
    for queue in &topology.queues {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        declare_queue(channel, queue, options).await.map_err(|error| refused("queue", &queue.name, MISSING, &error))?;
    }
    Ok(())
}

/// Only the broker's own objection has a remedy; a connection that broke meanwhile has none.
fn refused(what: &str, name: &str, remedy: &str, error: &lapin::Error) -> Lost {
    let remedy = if error.is_amqp_soft_error() { format!("; {remedy}") } else { String::new() };
    format!("{what} {name}: {}{remedy}", why(error))
}

async fn declare_exchange(
    channel: &Channel,
    exchange: &Exchange,
    options: ExchangeDeclareOptions,
) -> lapin::Result<()> {
    let kind = match exchange.routing {
        Routing::Direct => ExchangeKind::Direct,
        Routing::Fanout => ExchangeKind::Fanout,
        Routing::Topic => ExchangeKind::Topic,
    };
    channel.exchange_declare(name(&exchange.name), kind, options, table(&exchange.arguments)).await
}

async fn declare_queue(channel: &Channel, queue: &Queue, options: QueueDeclareOptions) -> lapin::Result<()> {
    channel.queue_declare(name(&queue.name), options, table(&queue.arguments)).await.map(drop)
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
