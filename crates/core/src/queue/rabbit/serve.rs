//! One kind on one session: consumes its three queues while the worker wants it to, and hands out single
//! messages while it does not. Ends with its session, or ends it.

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
    consume::{Intake, Probe, Running},
    convert,
    dial::why,
    session::{Link, Lost},
    settle::{Flow, Settler},
};
use crate::queue::{self, Delivery, Lane, topology::lane_queue};

/// How long the broker may take to end a consumer.
const CANCELLED: Duration = Duration::from_secs(10);
/// Suspects are worked one at a time.
const ONE: u16 = 1;

/// What the lanes of a kind have seen in one session.
#[derive(Debug, Default)]
pub(super) struct Flows {
    jobs: Arc<Flow>,
    resume: Arc<Flow>,
    suspect: Arc<Flow>,
}

impl Flows {
    pub(super) fn of(&self, lane: Lane) -> &Arc<Flow> {
        match lane {
            Lane::Jobs => &self.jobs,
            Lane::Resume => &self.resume,
            Lane::Suspect => &self.suspect,
        }
    }
}

/// One kind on one session.
pub(super) struct Serving {
    shared: Arc<Shared>,
    intake: Arc<Intake>,
    link: Arc<Link>,
    flows: Arc<Flows>,
    prefetch: u16,
    begun_first: bool,
}

impl Serving {
    /// Hands over at most `cap` messages at once of each lane, and no more than the intake asks for.
    pub(super) fn new(
        shared: &Arc<Shared>,
        intake: &Arc<Intake>,
        link: &Arc<Link>,
        flows: &Arc<Flows>,
        cap: u16,
    ) -> Self {
        let (shared, link, flows, prefetch) = (shared.clone(), link.clone(), flows.clone(), intake.prefetch.min(cap));
        Self { shared, intake: intake.clone(), link, flows, prefetch, begun_first: true }
    }

    /// Serves until something ends; says what.
    pub(super) async fn until_lost(self) -> Lost {
        match self.run().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn run(mut self) -> Result<Infallible, Lost> {
        let intake = self.intake.clone();
        let mut probes = intake.probes.lock().await;
        let mut wanted = intake.wanted.subscribe();
        let channel = self.link.channel(self.prefetch).await?;
        let aside = self.link.channel(ONE).await?;
        loop {
            intake.running.send_replace(Running::Open);
            if *wanted.borrow_and_update() {
                let mut lanes = self.open(&channel, &aside).await?;
                self.hand_over(&mut lanes, &mut wanted).await?;
                self.close(lanes, &channel, &aside).await?;
            }
            intake.running.send_replace(Running::Closed);
            self.probe(&channel, &mut wanted, &mut probes).await?;
        }
    }

    async fn open(&self, channel: &Channel, aside: &Channel) -> Result<Lanes, Lost> {
        Ok(Lanes {
            jobs: self.consumer(channel, Lane::Jobs).await?,
            resume: self.consumer(channel, Lane::Resume).await?,
            suspect: self.consumer(aside, Lane::Suspect).await?,
        })
    }

    async fn consumer(&self, channel: &Channel, lane: Lane) -> Result<Consumer, Lost> {
        let queue = lane_queue(&self.shared.prefix, lane, self.intake.kind);
        let (queue, tag) = (queue.as_str().into(), "".into());
        channel
            .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(|error| why(&error))
    }

    /// Until the worker wants no more.
    async fn hand_over(&self, lanes: &mut Lanes, wanted: &mut watch::Receiver<bool>) -> Result<(), Lost> {
        loop {
            let (lane, next) = tokio::select! {
                _ = wanted.wait_for(|wanted| !wanted) => return Ok(()),
                next = lanes.jobs.next() => (Lane::Jobs, next),
                next = lanes.resume.next() => (Lane::Resume, next),
                next = lanes.suspect.next() => (Lane::Suspect, next),
            };
            match next {
                Some(Ok(delivery)) => self.put(lane, delivery),
                Some(Err(error)) => return Err(why(&error)),
                None => return Err(format!("the broker ended the consumer of {}.{}", lane, self.intake.kind)),
            }
        }
    }

    /// What arrives until the broker has ended a consumer is put with the rest.
    async fn close(&self, lanes: Lanes, channel: &Channel, aside: &Channel) -> Result<(), Lost> {
        let ending = async {
            self.end(Lane::Jobs, lanes.jobs, channel).await?;
            self.end(Lane::Resume, lanes.resume, channel).await?;
            self.end(Lane::Suspect, lanes.suspect, aside).await
        };
        timeout(CANCELLED, ending)
            .await
            .unwrap_or_else(|_| Err(format!("a consumer was not ended within {CANCELLED:?}")))
    }

    async fn end(&self, lane: Lane, mut consumer: Consumer, channel: &Channel) -> Result<(), Lost> {
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.map_err(|error| why(&error))?;
        while let Some(delivery) = consumer.next().await {
            self.put(lane, delivery.map_err(|error| why(&error))?);
        }
        Ok(())
    }

    /// Until the worker wants deliveries again.
    async fn probe(
        &mut self,
        channel: &Channel,
        wanted: &mut watch::Receiver<bool>,
        probes: &mut mpsc::Receiver<Probe>,
    ) -> Result<(), Lost> {
        loop {
            let probe = tokio::select! {
                _ = wanted.wait_for(|wanted| *wanted) => return Ok(()),
                probe = probes.recv() => probe,
            };
            let Some(probe) = probe.filter(|probe| !probe.is_closed()) else { continue };
            let found = self.get_one(channel).await?;
            // Nobody waits any more: the delivery is dropped, and so given back.
            let _ = probe.send(found);
        }
    }

    /// Begun and new ones in turns.
    async fn get_one(&mut self, channel: &Channel) -> Result<Option<Delivery>, Lost> {
        let order = if self.begun_first { [Lane::Resume, Lane::Jobs] } else { [Lane::Jobs, Lane::Resume] };
        for lane in order {
            let queue = lane_queue(&self.shared.prefix, lane, self.intake.kind);
            let got = channel
                .basic_get(queue.as_str().into(), BasicGetOptions::default())
                .await
                .map_err(|error| why(&error))?;
            if let Some(got) = got {
                self.begun_first = lane == Lane::Jobs;
                return Ok(Some(self.delivery(lane, got.delivery)));
            }
        }
        Ok(None)
    }

    fn put(&self, lane: Lane, delivery: lapin::message::Delivery) {
        self.intake.put(self.delivery(lane, delivery));
    }

    fn delivery(&self, lane: Lane, delivery: lapin::message::Delivery) -> Delivery {
        let settler = Settler::new(&self.shared, &self.link.session, self.flows.of(lane), delivery.acker.clone());
        let (message, returns) = convert::received(&self.shared.prefix, delivery);
        Delivery { message, lane, returns, settler: queue::Settler::Rabbit(settler) }
    }
}

/// The consumers of one kind.
struct Lanes {
    jobs: Consumer,
    resume: Consumer,
    suspect: Consumer,
}
