//! One kind on one session: consumes its three queues while the worker wants it to, and hands out single
//! messages while it does not. Ends with its session, or ends it.
//!
//! A consumer's prefetch does not count what came before it, by an earlier one or by a probe. Of suspects one is
//! unsettled at a time, whatever way it came: they are consumed, or looked for, only while none is.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Shared,
    connect::describe,
    consume::{ConsumeState, DeliveryBuffer, Probe, fresh},
    convert, delays, headers,
    session::{Link, SessionError},
    settle::{LaneFlow, RabbitSettler},
};
use crate as queue;
use crate::{
    Delivery, MessageDefect,
    topology::{self, lane_queue},
    unsettled::UnsettledCounts,
};
use genfleet_job::{Kind, lease::Lease, message::Lane};
use genfleet_telemetry::trace::Span;

/// How long the broker may take to end a consumer.
const CANCELLED: Duration = Duration::from_secs(10);
/// Suspects are worked one at a time.
const ONE: u16 = 1;

/// What the lanes of a kind have seen in one session.
#[derive(Debug)]
pub(super) struct KindFlows {
    jobs: Arc<LaneFlow>,
    resume: Arc<LaneFlow>,
    suspect: Arc<LaneFlow>,
}

impl KindFlows {
    /// Of `kind`, in a session that begins.
    pub(super) fn new(counts: &UnsettledCounts, kind: Kind) -> Self {
        let flow = || Arc::new(LaneFlow::new(counts.clone(), kind));
        Self { jobs: flow(), resume: flow(), suspect: flow() }
    }

    pub(super) fn of(&self, lane: Lane) -> &Arc<LaneFlow> {
        match lane {
            Lane::Jobs => &self.jobs,
            Lane::Resume => &self.resume,
            Lane::Suspect => &self.suspect,
        }
    }
}

/// With its session all that came by it is lost, and in the queue again.
impl Drop for KindFlows {
    fn drop(&mut self) {
        for flow in [&self.jobs, &self.resume, &self.suspect] {
            flow.end();
        }
    }
}

/// One kind on one session.
pub(super) struct KindConsumer {
    shared: Arc<Shared>,
    buffer: Arc<DeliveryBuffer>,
    link: Arc<Link>,
    flows: Arc<KindFlows>,
    /// Of a kind that one process at a time works.
    lease: Option<Lease>,
    begun_first: bool,
}

impl KindConsumer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        buffer: &Arc<DeliveryBuffer>,
        link: &Arc<Link>,
        flows: &Arc<KindFlows>,
    ) -> Self {
        let (shared, buffer, link, flows) = (shared.clone(), buffer.clone(), link.clone(), flows.clone());
        Self { shared, buffer, link, flows, lease: None, begun_first: true }
    }

    /// While this process alone works the kind.
    pub(super) fn within(self, lease: Option<Lease>) -> Self {
        Self { lease, ..self }
    }

    /// Serves until something ends; says what.
    pub(super) async fn until_lost(self) -> SessionError {
        match self.run().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn run(mut self) -> Result<Infallible, SessionError> {
        let buffer = self.buffer.clone();
        let mut probes = buffer.probes.lock().await;
        let mut wanted = buffer.wanted.subscribe();
        let channel = self.link.channel(buffer.prefetch).await?;
        let aside = self.link.channel(ONE).await?;
        loop {
            buffer.running.send_replace(ConsumeState::Open);
            if *wanted.borrow_and_update() {
                let mut lanes = self.open(&channel).await?;
                self.hand_over(&mut lanes, &aside, &mut wanted).await?;
                self.close(lanes, &channel, &aside).await?;
            }
            buffer.running.send_replace(ConsumeState::Closed);
            self.probe((&channel, &aside), &mut wanted, &mut probes).await?;
        }
    }

    async fn open(&self, channel: &Channel) -> Result<Lanes, SessionError> {
        Ok(Lanes {
            jobs: self.consumer(channel, Lane::Jobs).await?,
            resume: self.consumer(channel, Lane::Resume).await?,
            suspect: None,
        })
    }

    async fn consumer(&self, channel: &Channel, lane: Lane) -> Result<Consumer, SessionError> {
        let queue = lane_queue(&self.shared.prefix, lane, self.buffer.kind);
        let (queue, tag) = (queue.as_str().into(), "".into());
        channel
            .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(|error| describe(&error))
    }

    /// Until the worker wants no more.
    async fn hand_over(
        &self,
        lanes: &mut Lanes,
        aside: &Channel,
        wanted: &mut watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        loop {
            let arrived = tokio::select! {
                _ = wanted.wait_for(|wanted| !wanted) => return Ok(()),
                next = lanes.jobs.next() => Some((Lane::Jobs, next)),
                next = lanes.resume.next() => Some((Lane::Resume, next)),
                next = next_suspect(&mut lanes.suspect) => Some((Lane::Suspect, next)),
                () = self.suspects_due(), if lanes.suspect.is_none() => None,
            };
            let Some((lane, next)) = arrived else {
                lanes.suspect = Some(self.consumer(aside, Lane::Suspect).await?);
                continue;
            };
            match next {
                Some(Ok(delivery)) => self.put(lane, delivery),
                Some(Err(error)) => return Err(describe(&error)),
                None => return Err(format!("the broker ended the consumer of {}.{}", lane, self.buffer.kind)),
            }
        }
    }

    /// Once they are asked for, and none is unsettled.
    async fn suspects_due(&self) {
        self.buffer.suspects_wanted().await;
        self.flows.suspect.idle().await;
    }

    /// What arrives until the broker has ended a consumer is put with the rest.
    async fn close(&self, lanes: Lanes, channel: &Channel, aside: &Channel) -> Result<(), SessionError> {
        let ending = async {
            self.end(Lane::Jobs, lanes.jobs, channel).await?;
            self.end(Lane::Resume, lanes.resume, channel).await?;
            match lanes.suspect {
                Some(suspect) => self.end(Lane::Suspect, suspect, aside).await,
                None => Ok(()),
            }
        };
        timeout(CANCELLED, ending)
            .await
            .unwrap_or_else(|_| Err(format!("a consumer was not ended within {CANCELLED:?}")))
    }

    async fn end(&self, lane: Lane, mut consumer: Consumer, channel: &Channel) -> Result<(), SessionError> {
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.map_err(|error| describe(&error))?;
        while let Some(delivery) = consumer.next().await {
            self.put(lane, delivery.map_err(|error| describe(&error))?);
        }
        Ok(())
    }

    /// Until the worker wants deliveries again.
    async fn probe(
        &mut self,
        channels: (&Channel, &Channel),
        wanted: &mut watch::Receiver<bool>,
        probes: &mut mpsc::Receiver<Probe>,
    ) -> Result<(), SessionError> {
        loop {
            let probe = tokio::select! {
                _ = wanted.wait_for(|wanted| *wanted) => return Ok(()),
                probe = probes.recv() => probe,
            };
            let Some(probe) = probe.filter(|probe| !probe.is_closed()) else { continue };
            let found = self.get_one(channels).await?;
            // Nobody waits any more: the delivery is dropped, and so given back.
            let _ = probe.send(found);
        }
    }

    /// Begun and new ones in turns; where there are none a suspect, unless one is unsettled.
    async fn get_one(&mut self, (channel, aside): (&Channel, &Channel)) -> Result<Option<Delivery>, SessionError> {
        let order = if self.begun_first { [Lane::Resume, Lane::Jobs] } else { [Lane::Jobs, Lane::Resume] };
        for lane in order {
            if let Some(delivery) = self.get(channel, lane).await? {
                self.begun_first = lane == Lane::Jobs;
                return Ok(Some(delivery));
            }
        }
        if self.flows.suspect.unsettled() > 0 {
            return Ok(None);
        }
        self.get(aside, Lane::Suspect).await
    }

    async fn get(&self, channel: &Channel, lane: Lane) -> Result<Option<Delivery>, SessionError> {
        let queue = lane_queue(&self.shared.prefix, lane, self.buffer.kind);
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await;
        let got = got.map_err(|error| describe(&error))?;
        Ok(got.map(|got| self.delivery(lane, got.delivery)).and_then(fresh))
    }

    fn put(&self, lane: Lane, delivery: lapin::message::Delivery) {
        self.buffer.put(self.delivery(lane, delivery));
    }

    /// What is wrong with a delivery before its body is looked at. A producer's rights are to keys, so the key it used has
    /// to be this kind's; jobs of an internal kind are made by us alone.
    fn defect(&self, delivery: &lapin::message::Delivery) -> Option<MessageDefect> {
        let (prefix, exchange, kind) = (&self.shared.prefix, delivery.exchange.as_str(), self.buffer.kind);
        let is_others = if kind.is_internal() {
            !topology::is_ours(prefix, exchange)
        } else {
            exchange == topology::jobs_exchange(prefix) && delivery.routing_key.as_str() != kind.as_str()
        };
        headers::defect(&delivery.properties).or(is_others.then_some(MessageDefect::OtherKey))
    }

    fn delivery(&self, lane: Lane, delivery: lapin::message::Delivery) -> Delivery {
        let shared = &self.shared;
        let identity = shared.recent.identity(&delivery, topology::is_ours(&shared.prefix, delivery.exchange.as_str()));
        let held = (shared.recent.hold(identity, delivery.redelivered), delivery.acker.clone());
        let settler = RabbitSettler::new(shared, &self.link.session, self.flows.of(lane), held);
        let settler = queue::Settler::Rabbit(settler.within(self.lease.as_ref()));
        delays::ended(&shared.prefix, (self.buffer.kind, lane), &delivery.properties);
        let (redelivered, defect) = (delivery.redelivered, self.defect(&delivery));
        let (message, delivery_count) = convert::received(&shared.prefix, delivery);
        Delivery { message, lane, delivery_count, redelivered, defect, settler, span: Span::default() }
    }
}

/// The consumers of one kind.
struct Lanes {
    jobs: Consumer,
    resume: Consumer,
    /// Once no suspect is unsettled.
    suspect: Option<Consumer>,
}

async fn next_suspect(suspect: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match suspect {
        Some(suspect) => suspect.next().await,
        None => std::future::pending().await,
    }
}
