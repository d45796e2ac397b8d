//! One delivery from end to end: suspicion, decoding and validation, the handler, settlement. Under one span; what
//! a worker's author wrote runs under panic guards: the validation here, the handler in [`super::attempt`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::{Instrument, debug, info_span, warn};

use super::{
    aside,
    audited::Leave,
    conclusion::Conclusion,
    engine::Engine,
    report,
    running::{Entered, Run},
    suspect::{self, SESSION_LOST_LATELY, Verdict},
    traced, validate,
};
use crate::handler::JobHandler;
use genfleet_audit::AuditPosition;
use genfleet_job::job_headers::JobHeaders;
use genfleet_job::{
    Job, Rejection, decode,
    error::JobError,
    message::{Lane, Message, enqueued::QueueWait},
    metric,
};
use genfleet_queue::{Delivery, MessageDefect, Publication, QueueError};

/// How long a job whose state was written by another version of this product waits.
const UNREADABLE_STATE_WAIT: Duration = Duration::from_secs(60);
/// How long a delivery waits here for another job of its id; then it waits in the queue, as long again.
const SAME_ID_WAIT: Duration = Duration::from_secs(1);

/// A job that is about to run.
struct Arrived {
    delivery: Delivery,
    carried: JobHeaders,
    job: Job,
    slot: OwnedSemaphorePermit,
}

impl<H: JobHandler> Engine<H> {
    /// Sees `delivery` to its settlement. `slot` is its place among the jobs in flight.
    pub async fn process(self: Arc<Self>, mut delivery: Delivery, slot: OwnedSemaphorePermit) {
        delivery.span = self.processing(&delivery);
        let span = info_span!("job", kind = self.kind(), id = tracing::field::Empty);
        self.judged(delivery, slot).instrument(span).await;
    }

    async fn judged(self: Arc<Self>, delivery: Delivery, slot: OwnedSemaphorePermit) {
        // Until all is over: the job is in memory several times.
        let _room = aside::room(delivery.message.body.len()).await;
        if delivery.settler.is_stale() {
            return debug!("its session is gone: it comes again");
        }
        if let Some(defect) = delivery.defect {
            return self.refuse(delivery, defect).await;
        }
        let outlived = delivery.lane == Lane::Suspect && self.outlived.has(&delivery.message);
        let sessions_lost = self.queue.lost_session_within(SESSION_LOST_LATELY);
        match suspect::judge(delivery.lane, delivery.delivery_count, outlived, sessions_lost) {
            Verdict::Run => self.decoded(delivery, slot).await,
            Verdict::Suspect => {
                // Not decoded: the producer's own id, where there is one.
                let (delivery_count, message_id) = (delivery.delivery_count, delivery.message.message_id.as_deref());
                warn!(
                    returns = delivery_count,
                    message_id, "came back too often: moved to the suspects, to be run on its own"
                );
                self.suspect(delivery).await;
            }
            Verdict::StartOver => {
                let lane = delivery.lane;
                self.move_to(delivery, lane, Duration::ZERO).await;
            }
            Verdict::Convict => self.convict(delivery).await,
        }
    }

    async fn decoded(self: Arc<Self>, mut delivery: Delivery, slot: OwnedSemaphorePermit) {
        let carried = JobHeaders::read(&delivery.message.headers);
        let now = self.clock.now();
        self.note_age(&delivery.message, now);
        let (job, payload) = match self.checked(&delivery.message).await {
            Ok(checked) => checked,
            Err(rejection) => return self.reject(delivery, &carried, *rejection).await,
        };
        tracing::Span::current().record("id", job.id.as_str());
        traced::read(&mut delivery.span, &job, &carried);
        let has_run = delivery.redelivered && self.unsettled.has(&job.id, &delivery.message, Instant::now());
        if let Some(wait) = not_yet(&job, &carried, now).filter(|_| !has_run) {
            debug!(?wait, "not yet");
            return self.postpone(delivery, &carried, wait).await;
        }
        if !has_run && !carried.started() && job.deadline.is_some_and(|deadline| deadline < now) {
            return self.expire(delivery, &carried, job).await;
        }
        self.entered(Arrived { delivery, carried, job, slot }, payload).await;
    }

    /// A validation that panics does so every time.
    async fn checked(self: &Arc<Self>, message: &Message) -> Result<(Job, H::Payload), Box<Rejection>> {
        let (this, body) = (Arc::clone(self), message.body.clone());
        let (id, timestamp) = (message.message_id.clone(), message.timestamp);
        let checking = move || {
            let job =
                AssertUnwindSafe(|| validate::job::<H>(&this.rules, &this.options, &body, id.as_deref(), timestamp));
            catch_unwind(job).unwrap_or_else(|_| {
                let id = decode::extract_id(&body, id.as_deref(), timestamp);
                let told = "the worker panicked while it validated this job: a defect of the worker";
                Err(Box::new(Rejection::new(id, "panicked", told)))
            })
        };
        aside::aside(message.body.len(), checking).await
    }

    /// Once at a time: runs, attaches to the one that runs, or waits for another job of the same id. What ran here
    /// before, and could not be settled, is settled now.
    async fn entered(self: Arc<Self>, mut arrived: Arrived, payload: H::Payload) {
        loop {
            let Arrived { delivery, carried, job, slot } = arrived;
            let body = delivery.message.body.clone();
            match self.running.enter(&job.id, &body, carried.generation, delivery) {
                Entered::Run(run, delivery) => {
                    let result = if delivery.redelivered {
                        self.unsettled.take(&job.id, &delivery.message, Instant::now())
                    } else {
                        None
                    };
                    if let Some(result) = result {
                        debug!("it ran here before its session was lost: that result is settled now");
                        return self.settle(&job.id, run, delivery, result, slot).await;
                    }
                    return self.run(run, Arrived { delivery, carried, job, slot }, payload).await;
                }
                Entered::Attached => return debug!("attached to the delivery of this job that runs here"),
                Entered::Busy(delivery, ended) => {
                    if timeout(SAME_ID_WAIT, ended.cancelled()).await.is_err() {
                        return self.postpone(delivery, &carried, SAME_ID_WAIT).await;
                    }
                    arrived = Arrived { delivery, carried, job, slot };
                }
            }
        }
    }

    async fn run(self: Arc<Self>, run: Run, arrived: Arrived, payload: H::Payload) {
        let Arrived { mut delivery, mut carried, job, slot } = arrived;
        let state = carried.state.as_deref().map_or_else(|| Ok(H::State::default()), serde_json::from_str);
        let Ok(state) = state else {
            warn!("the state of this job is of another version: given back for a minute");
            return self.move_to(delivery, Lane::Resume, UNREADABLE_STATE_WAIT).await;
        };
        let began = self.clock.now();
        if !carried.started() {
            self.note_queue_wait(&delivery.message, began);
        }
        let started_at = *carried.started_at.get_or_insert(began);
        let context = self.context(&job, &carried, &delivery, started_at);
        let trail = self.audit.begin(H::KIND, &job.id, H::AUDIT_ACTION, &job.payload_sha256);
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => self.kind()).increment(1.0);
        let in_hand = self.doing.takes(H::KIND);
        let ended = self.attempt(&context, &delivery, payload, state).await;
        drop(in_hand);
        if delivery.lane == Lane::Suspect {
            self.outlived.note(&delivery.message);
        }
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => self.kind()).decrement(1.0);
        traced::shared(&mut delivery.span, &context);
        carried.requests += context.requests.load(Ordering::Relaxed);
        let conclusion = self.conclude(&job, carried, &delivery, ended);
        let audited = self.audited(conclusion, &trail);
        drop(trail);
        self.settle(&job.id, run, delivery, Arc::new(audited), slot).await;
        // With it go the turns that its handler keeps until here.
        drop(context);
    }

    async fn reject(&self, delivery: Delivery, carried: &JobHeaders, rejection: Rejection) {
        let Rejection { id, code, message, violations } = rejection;
        let error = JobError { violations, ..JobError::permanent(code, message) };
        // Validation that fails counts as one attempt.
        let carried = JobHeaders { attempts: carried.attempts + 1, ..carried.clone() };
        let conclusion = self.fail_unrun(&id, &carried, &delivery, error);
        self.settle_unrun(delivery, conclusion).await;
    }

    /// What cannot be read does not become readable elsewhere, however often it came back.
    async fn refuse(&self, delivery: Delivery, defect: MessageDefect) {
        let (carried, message) = (JobHeaders::read(&delivery.message.headers), &delivery.message);
        let id = decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp);
        let rejection = Rejection::new(id, defect.code(), defect.to_string());
        self.reject(delivery, &carried, rejection).await;
    }

    async fn convict(&self, delivery: Delivery) {
        let (carried, message) = (JobHeaders::read(&delivery.message.headers), &delivery.message);
        let id = decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp);
        let told = format!("processes died while they ran this job on its own ({} times)", delivery.delivery_count);
        let error = JobError::permanent("crash_loop", told);
        let conclusion = self.fail_unrun(&id, &carried, &delivery, error);
        self.settle_unrun(delivery, conclusion).await;
    }

    async fn expire(&self, delivery: Delivery, carried: &JobHeaders, job: Job) {
        let deadline = job.deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        let told = match delivery.delivery_count {
            0 => format!("not started by its deadline {deadline}; nothing was called"),
            delivery_count => format!(
                "not started by its deadline {deadline}, unless by one of those that gave it back or died ({delivery_count}) \
                 without saying how far they came"
            ),
        };
        // What has expired may have been in time by the producer's clock.
        let told = self.genesys.clock_warning().into_iter().fold(told, |told, clock| format!("{told}; {clock}"));
        let error = JobError::permanent("deadline_passed", told);
        let ending = self.expired(&job.id, carried, &delivery, &error);
        let receivers = self.webhooks.receivers(self.kind(), job.webhook.as_deref());
        self.settle_unrun(delivery, Conclusion::ends(ending, receivers)).await;
    }

    /// Back to its own lane for `wait`; nothing was begun, nothing is burned.
    async fn postpone(&self, delivery: Delivery, carried: &JobHeaders, wait: Duration) {
        let carried = JobHeaders { not_before: None, ..carried.clone() };
        let publication =
            report::again(&delivery.message, &carried, H::KIND, delivery.lane, wait, self.clock.now(), None);
        self.settle_moved(delivery, publication, "postponed").await;
    }

    /// Unrun, to the suspects.
    async fn suspect(&self, mut delivery: Delivery) {
        let mut carried = JobHeaders::read(&delivery.message.headers);
        carried.suspected += 1;
        delivery.message = carried.write(&delivery.message);
        self.move_to(delivery, Lane::Suspect, Duration::ZERO).await;
    }

    /// Unrun, as it is, into `lane` after `wait`.
    pub(super) async fn move_to(&self, delivery: Delivery, lane: Lane, wait: Duration) {
        let publication = report::moved(&delivery.message, H::KIND, lane, wait);
        self.settle_moved(delivery, publication, "moved").await;
    }

    async fn settle_moved(&self, mut delivery: Delivery, publication: Publication, outcome: &'static str) {
        delivery.span.set(traced::JOB_OUTCOME, outcome);
        if self.leave_to_settle(AuditPosition::default()).await == Leave::GiveBack {
            return delivery.settler.give_back().await;
        }
        if delivery.settler.is_stale() {
            return;
        }
        match delivery.settler.settle(vec![publication]).await {
            Ok(_) => {}
            Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
                delivery.settler = settler;
                let carried = JobHeaders::read(&delivery.message.headers);
                self.give_up_too_large(delivery, &carried, size).await;
            }
            Err(error) => not_settled(&error),
        }
    }

    fn note_age(&self, message: &Message, now: Timestamp) {
        if let Some(age) = message.waited(now).map(QueueWait::seconds) {
            metrics::gauge!(metric::OLDEST_JOB_AGE, "kind" => self.kind()).set(age);
            self.doing.delivered(H::KIND, age);
        }
    }

    fn note_queue_wait(&self, message: &Message, began: Timestamp) {
        if let Some(waited) = message.waited(began) {
            metrics::histogram!(metric::JOB_QUEUE_WAIT, "kind" => self.kind()).record(waited.seconds());
        }
    }
}

/// How long the job may not start yet, if so.
fn not_yet(job: &Job, carried: &JobHeaders, now: Timestamp) -> Option<Duration> {
    let not_before = carried.not_before.or(job.not_before.filter(|_| !carried.started()))?;
    Duration::try_from(not_before.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

pub(super) fn not_settled(error: &QueueError) {
    warn!(%error, "not settled: the message comes again");
}
