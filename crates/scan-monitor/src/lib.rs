//! The scan-monitor works `file.scan` jobs, which order a virus scan and follow it to its verdict (SPEC 3.5), and
//! `media.scan` jobs, which scan with the operator's own engine ([`media`], SPEC 3.6). The rest of this crate is
//! `file.scan`.
//!
//! [`ScanMonitor`] is the handler. The job's payload is in [`payload`], the API calls in [`api`], the polling interval
//! in [`poll`], and the job's state and report in [`progress`]. Between two polls a scan waits in the queue, so waiting
//! scans need no memory, and any process can poll any of them. In addition, a security webhook is registered
//! ([`registration`]) and scans are counted ([`in_flight`]).

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use genfleet_core::{
    contract::ContractTerms,
    error::{ErrorClass, JobError},
    genesys::ApiError,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    metric,
    options::{self, ConfigError},
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::info;

use crate::{
    api::ScanStatus,
    in_flight::InFlight,
    payload::Payload,
    poll::Pace,
    progress::{Scan, ScanReport, ScanVerdict},
    registration::{Registrations, SecurityWebhookUrl},
};

mod api;
mod contract;
mod in_flight;
mod media;
mod payload;
mod poll;
mod progress;
mod registration;

pub use self::{media::MediaScan, progress::ScanState};

/// The scan-monitor's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanMonitorOptions {
    /// Interval of polling a scan for its verdict. It grows evenly for all scans if the budget is short
    #[arg(long, env = "GENFLEET_POLL_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = options::duration)]
    pub poll_interval: Duration,

    /// Time after the order at which a scan without a verdict is given up, by the next poll that is answered
    #[arg(long, env = "GENFLEET_SCAN_TIMEOUT", value_name = "DURATION", default_value = "120s", value_parser = options::duration)]
    pub scan_timeout: Duration,

    /// Maximum number of orders that are not yet recorded in the queue. If a process is killed, as many files may be
    /// scanned twice; a higher number is faster if the API answers slowly
    #[arg(long, env = "GENFLEET_UNRECORDED_ORDERS", value_name = "N", default_value = "1")]
    pub unrecorded_orders: NonZeroU16,

    /// URL to which Genesys Cloud reports verdicts for a security system; registered once per quarantine action
    #[arg(long, env = "GENFLEET_SECURITY_WEBHOOK_URL", value_name = "HTTPS URL")]
    pub(crate) security_webhook_url: Option<SecurityWebhookUrl>,
}

/// Orders scans and follows them.
#[derive(Debug)]
pub struct ScanMonitor {
    pace: Pace,
    registrations: Registrations,
    in_flight: InFlight,
    /// A permit is kept from an order until its scan is recorded.
    orders: Arc<Semaphore>,
}

impl JobHandler for ScanMonitor {
    const KIND: Kind = Kind::FileScan;
    const ACTION: &'static str = "files:scan:completed";
    const AUDIT_ACTION: &'static str = "scan_completed";
    const SCOPES: &'static [&'static str] = api::SCOPES;
    const CONCURRENCY: usize = 64;

    type Options = ScanMonitorOptions;
    type Payload = Payload;
    type State = ScanState;
    type Report = ScanReport;

    fn new(options: ScanMonitorOptions, services: &Services) -> Result<Self, ConfigError> {
        let pace = Pace::new(options.poll_interval, options.scan_timeout)?;
        let registrations = Registrations::new(services.genesys.clone(), options.security_webhook_url);
        let in_flight = InFlight::default();
        // Series that exist from the start, since an increase from nothing would go unseen.
        metrics::gauge!(metric::SCANS_IN_FLIGHT).set(0.0);
        metrics::counter!(metric::THREATS_DETECTED).absolute(0);
        services.supervisor.spawn("count of scans", in_flight.clone().forget_lost());
        let orders = Arc::new(Semaphore::new(options.unrecorded_orders.get().into()));
        Ok(Self { pace, registrations, in_flight, orders })
    }

    fn validate(payload: &Payload, _: &ScanMonitorOptions) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: ScanState) -> Result<Progress<Self>, JobError> {
        let step = match state.scan {
            None => self.order(job, &payload).await,
            Some(scan) => self.follow(job, &payload, scan).await,
        };
        if step.is_ok() {
            self.registrations.start_if_due(&payload.quarantine_action, job);
        }
        step
    }
}

impl ScanMonitor {
    async fn order(&self, job: &JobContext, payload: &Payload) -> Result<Progress<Self>, JobError> {
        let asked = job.now();
        self.take_turn(job).await?;
        let id = api::order(job, &payload.file_id).await?;
        let ordered_at = job.now();
        let initiation = Duration::try_from(ordered_at.duration_since(asked)).unwrap_or_default();
        let scan = Scan { id, ordered_at, initiation, polls: 0 };
        Ok(self.again(job, &scan, Duration::ZERO))
    }

    /// Orders a scan. The API cannot tell whether a scan was ordered, so if a process dies between an order and its
    /// record, the scan is ordered again. The permit limits how many these can be.
    async fn take_turn(&self, job: &JobContext) -> Result<(), JobError> {
        let turn = job.unless_stopped(Arc::clone(&self.orders).acquire_owned()).await?;
        // The semaphore is never closed.
        job.keep_until_recorded(turn.map_err(|_| JobError::interrupted())?);
        Ok(())
    }

    /// Polls once, and decides the next step.
    async fn follow(&self, job: &JobContext, payload: &Payload, mut scan: Scan) -> Result<Progress<Self>, JobError> {
        self.in_flight.record_return(&scan.id);
        let polled = api::poll(job, &payload.file_id, &scan.id).await;
        if polled.as_ref().map_or_else(|error| error.requests, |_| 1) > 0 {
            scan.polls += 1;
        }
        match polled {
            Ok(status) => self.judge(job, payload, &scan, &status),
            Err(error) => self.handle_failed_poll(job, payload, &scan, error),
        }
        .map_err(|error| *error)
    }

    fn judge(
        &self,
        job: &JobContext,
        payload: &Payload,
        scan: &Scan,
        status: &ScanStatus,
    ) -> Result<Progress<Self>, Box<JobError>> {
        let now = job.now();
        let report = || scan.report(payload, Some(status), now);
        match status.verdict() {
            ScanVerdict::Completed => {
                self.end_following(scan, Some(status));
                Ok(Progress::Done(report()))
            }
            ends @ (ScanVerdict::Unknown | ScanVerdict::Failed) => {
                self.end_following(scan, Some(status));
                let (id, file) = (scan.id.as_str(), &payload.file_id);
                let result =
                    status.result.as_ref().map_or_else(|| "no result".to_owned(), |word| format!("result {word:?}"));
                let what = match ends {
                    ScanVerdict::Failed => format!("failed with {result}"),
                    _ => format!("completed with {result}, which is no verdict known here"),
                };
                let details = format!("scan {id} {what}: nobody knows what is in file {file}");
                Err(scan_failure("scan_failed", details, &report()))
            }
            ScanVerdict::Pending if self.pace.is_over(scan.age(now)) => {
                self.end_following(scan, None);
                let (id, status, age) = (scan.id.as_str(), &status.status, scan.age(now).as_secs());
                let details =
                    format!("scan {id} still says {status:?} {age} s after it was ordered; see --scan-timeout");
                Err(scan_failure("scan_timed_out", details, &report()))
            }
            ScanVerdict::Pending => Ok(self.again(job, scan, Duration::ZERO)),
        }
    }

    /// Handles a failed poll: polls again while the scan has time, and then fails with the poll's error.
    fn handle_failed_poll(
        &self,
        job: &JobContext,
        payload: &Payload,
        scan: &Scan,
        error: ApiError,
    ) -> Result<Progress<Self>, Box<JobError>> {
        let now = job.now();
        let (age, report) = (scan.age(now), || scan.report(payload, None, now));
        match (error.class, error.status) {
            // The error does not concern this scan, so no attempt counts. The core knows when to continue.
            (ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted, _) => {
                Err(Box::new(JobError::from(error).with_state(&ScanState::from(scan))))
            }
            (ErrorClass::Permanent, Some(404)) if Pace::may_be_unknown(age) => {
                Ok(self.again(job, scan, Duration::ZERO))
            }
            (ErrorClass::Permanent, Some(404)) => {
                self.end_following(scan, None);
                let details = format!("scan {} of file {} is not there (any more)", scan.id.as_str(), payload.file_id);
                let api = JobError::from(error);
                let report = Some(json(&report()));
                Err(Box::new(JobError { code: "scan_not_found", message: details, report, ..api }))
            }
            (ErrorClass::Transient | ErrorClass::Ambiguous | ErrorClass::Permanent, _) if !self.pace.is_over(age) => {
                info!(
                    code = error.code,
                    status = error.status,
                    error = error.message,
                    "a poll failed: asked again later"
                );
                Ok(self.again(job, scan, error.retry_after))
            }
            (ErrorClass::Transient | ErrorClass::Ambiguous | ErrorClass::Permanent, _) => {
                let error = JobError { report: Some(json(&report())), ..error.into() };
                Err(Box::new(error.with_state(&ScanState::from(scan))))
            }
        }
    }

    /// Returns the job to the queue until the next poll.
    fn again(&self, job: &JobContext, scan: &Scan, at_least: Duration) -> Progress<Self> {
        let again_in = self.pace.wait(scan.age(job.now()), fastrand::f64()).max(at_least);
        self.in_flight.record_departure(&scan.id, again_in);
        Progress::Begun { state: ScanState::from(scan), again_in }
    }

    /// Ends following the scan.
    fn end_following(&self, scan: &Scan, verdict: Option<&ScanStatus>) {
        self.in_flight.record_end(&scan.id);
        if verdict.and_then(ScanStatus::threat_detected) == Some(true) {
            metrics::counter!(metric::THREATS_DETECTED).increment(1);
        }
    }
}

/// Creates the error of a scan that failed, with its report.
fn scan_failure(code: &'static str, details: String, report: &ScanReport) -> Box<JobError> {
    Box::new(JobError { report: Some(json(report)), ..JobError::permanent(code, details) })
}

pub(crate) fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
