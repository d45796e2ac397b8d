//! The consumers of one kind in one session. While the worker wants deliveries, they consume the kind's three queues;
//! otherwise single messages are fetched on request. They end with their session, and an error ends the session.
//!
//! A consumer's prefetch does not count earlier deliveries, from a previous consumer or a probe. At most one suspect
//! may be unsettled, so suspects are consumed or fetched only while none is.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    acknowledge::Acknowledger,
    buffer::{BufferedDelivery, ConsumeState, DeliveryBuffer, Probe},
    convert, delays,
    error::describe,
    flow::KindFlows,
    headers,
    link::{Link, SessionError, SessionTaskEnd},
    settle::RabbitSettler,
    shared::Shared,
};
use crate::{
    defect::MessageDefect,
    message::Delivery,
    topology::{self, lane_queue},
};
use genfleet_job::{lease::Lease, message::Lane};

/// Maximum wait for the broker to cancel a consumer.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Prefetch of suspects, which are processed one at a time.
const ONE: u16 = 1;

/// The consumers of one kind in one session.
pub(super) struct KindConsumer {
    shared: Arc<Shared>,
    buffer: Arc<DeliveryBuffer>,
    link: Arc<Link>,
    flows: Arc<KindFlows>,
    /// The lease on an exclusive kind.
    lease: Option<Lease>,
    started_first: bool,
}

impl KindConsumer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        buffer: &Arc<DeliveryBuffer>,
        link: &Arc<Link>,
        flows: &Arc<KindFlows>,
        lease: Option<Lease>,
    ) -> Self {
        let (shared, buffer, link, flows) = (shared.clone(), buffer.clone(), link.clone(), flows.clone());
        Self { shared, buffer, link, flows, lease, started_first: true }
    }

    /// Serves the worker until the session ends.
    pub(super) async fn run_until_lost(mut self) -> SessionTaskEnd {
        let buffer = self.buffer.clone();
        let mut probes = buffer.probes.lock().await;
        let mut wanted = buffer.wanted.subscribe();
        let channels = LaneChannels { shared: self.channel(buffer.prefetch).await?, suspect: self.channel(ONE).await? };
        loop {
            buffer.state.send_replace(ConsumeState::Open);
            if *wanted.borrow_and_update() {
                let mut lanes = self.open(&channels).await?;
                self.fill_buffer(&mut lanes, &channels, &mut wanted).await?;
                self.close(lanes, &channels).await?;
            }
            buffer.state.send_replace(ConsumeState::Closed);
            self.answer_probes(&channels, &mut wanted, &mut probes).await?;
        }
    }

    async fn channel(&self, prefetch: u16) -> Result<Arc<Acknowledger>, SessionError> {
        Ok(Arc::new(Acknowledger::new(self.link.channel(prefetch).await?, &self.link.session)))
    }

    async fn open(&self, channels: &LaneChannels) -> Result<LaneConsumers, SessionError> {
        Ok(LaneConsumers {
            jobs: self.consumer(channels, Lane::Jobs).await?,
            resume: self.consumer(channels, Lane::Resume).await?,
            suspect: None,
        })
    }

    async fn consumer(&self, channels: &LaneChannels, lane: Lane) -> Result<Consumer, SessionError> {
        let channel = channels.of(lane).channel();
        let queue = lane_queue(&self.shared.prefix, lane, self.buffer.kind);
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        channel.basic_consume(queue.as_str().into(), "".into(), options, none).await.map_err(describe)
    }

    /// Adds deliveries to the buffer until the worker wants no more.
    async fn fill_buffer(
        &self,
        lanes: &mut LaneConsumers,
        channels: &LaneChannels,
        wanted: &mut watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        loop {
            let arrived = tokio::select! {
                _ = wanted.wait_for(|wanted| !wanted) => return Ok(()),
                next = lanes.jobs.next() => Some((Lane::Jobs, next)),
                next = lanes.resume.next() => Some((Lane::Resume, next)),
                next = next_suspect(&mut lanes.suspect) => Some((Lane::Suspect, next)),
                () = self.wait_until_suspects_due(), if lanes.suspect.is_none() => None,
            };
            let Some((lane, next)) = arrived else {
                lanes.suspect = Some(self.consumer(channels, Lane::Suspect).await?);
                continue;
            };
            match next {
                Some(Ok(delivery)) => self.put(channels, lane, delivery),
                Some(Err(error)) => return Err(describe(error)),
                None => return Err(format!("the broker ended the consumer of {}.{}", lane, self.buffer.kind)),
            }
        }
    }

    /// Waits until the worker has asked for suspects and none is unsettled.
    async fn wait_until_suspects_due(&self) {
        self.buffer.wait_until_suspects_wanted().await;
        self.flows.of(Lane::Suspect).idle().await;
    }

    /// Cancels the consumers. Deliveries that arrive until then are added to the buffer.
    async fn close(&self, lanes: LaneConsumers, channels: &LaneChannels) -> Result<(), SessionError> {
        let ending = async {
            self.end(Lane::Jobs, lanes.jobs, channels).await?;
            self.end(Lane::Resume, lanes.resume, channels).await?;
            match lanes.suspect {
                Some(suspect) => self.end(Lane::Suspect, suspect, channels).await,
                None => Ok(()),
            }
        };
        let late = |_| Err(format!("a consumer was not ended within {CANCEL_TIMEOUT:?}"));
        timeout(CANCEL_TIMEOUT, ending).await.unwrap_or_else(late)
    }

    async fn end(&self, lane: Lane, mut consumer: Consumer, channels: &LaneChannels) -> Result<(), SessionError> {
        let channel = channels.of(lane).channel();
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.map_err(describe)?;
        while let Some(delivery) = consumer.next().await {
            self.put(channels, lane, delivery.map_err(describe)?);
        }
        Ok(())
    }

    /// Answers probes until the worker wants deliveries again.
    async fn answer_probes(
        &mut self,
        channels: &LaneChannels,
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
            // Without a receiver the delivery is dropped, which requeues it.
            let _ = probe.send(found);
        }
    }

    /// Fetches started and new jobs in turns. If there are none, fetches a suspect, unless one is unsettled.
    async fn get_one(&mut self, channels: &LaneChannels) -> Result<Option<Delivery>, SessionError> {
        let order = if self.started_first { [Lane::Resume, Lane::Jobs] } else { [Lane::Jobs, Lane::Resume] };
        for lane in order {
            if let Some(delivery) = self.get(channels, lane).await? {
                self.started_first = lane == Lane::Jobs;
                return Ok(Some(delivery));
            }
        }
        if self.flows.of(Lane::Suspect).unsettled() > 0 {
            return Ok(None);
        }
        self.get(channels, Lane::Suspect).await
    }

    async fn get(&self, channels: &LaneChannels, lane: Lane) -> Result<Option<Delivery>, SessionError> {
        let channel = channels.of(lane).channel();
        let queue = lane_queue(&self.shared.prefix, lane, self.buffer.kind);
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.map_err(describe)?;
        Ok(got.map(|got| self.delivery(channels, lane, got.delivery)).and_then(BufferedDelivery::into_fresh))
    }

    fn put(&self, channels: &LaneChannels, lane: Lane, delivery: lapin::message::Delivery) {
        self.buffer.put(self.delivery(channels, lane, delivery));
    }

    /// Finds a defect of a delivery before its body is read. Producers have rights to routing keys, so the key must be
    /// that of this kind. Only workers may publish jobs of an internal kind.
    fn defect(&self, delivery: &lapin::message::Delivery) -> Option<MessageDefect> {
        let (prefix, exchange, kind) = (&self.shared.prefix, delivery.exchange.as_str(), self.buffer.kind);
        let is_others = if kind.is_internal() {
            !topology::is_ours(prefix, exchange)
        } else {
            exchange == topology::jobs_exchange(prefix) && delivery.routing_key.as_str() != kind.as_str()
        };
        headers::defect(&delivery.properties).or(is_others.then_some(MessageDefect::OtherKey))
    }

    fn delivery(&self, channels: &LaneChannels, lane: Lane, delivery: lapin::message::Delivery) -> BufferedDelivery {
        let (shared, recent) = (&self.shared, &self.shared.settlements.recent);
        let identity = recent.identity(&delivery, topology::is_ours(&shared.prefix, delivery.exchange.as_str()));
        let known = recent.hold(identity, delivery.redelivered);
        let (acknowledger, flow) = (channels.of(lane), self.flows.of(lane));
        let settler = RabbitSettler::new(&shared.settlements, acknowledger, flow, &delivery, known);
        let settler = settler.with_lease(self.lease.as_ref());
        delays::count_ended(&shared.prefix, (self.buffer.kind, lane), &delivery.properties);
        let (redelivered, defect) = (delivery.redelivered, self.defect(&delivery));
        let (message, delivery_count) = convert::from_delivery(&shared.prefix, delivery);
        BufferedDelivery { message, lane, delivery_count, redelivered, defect, settler }
    }
}

struct LaneChannels {
    /// The channel of new and of started jobs.
    shared: Arc<Acknowledger>,
    suspect: Arc<Acknowledger>,
}

impl LaneChannels {
    fn of(&self, lane: Lane) -> &Arc<Acknowledger> {
        match lane {
            Lane::Jobs | Lane::Resume => &self.shared,
            Lane::Suspect => &self.suspect,
        }
    }
}

struct LaneConsumers {
    jobs: Consumer,
    resume: Consumer,
    /// `None` while a suspect is unsettled.
    suspect: Option<Consumer>,
}

async fn next_suspect(suspect: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match suspect {
        Some(suspect) => suspect.next().await,
        None => std::future::pending().await,
    }
}
