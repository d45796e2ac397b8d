//! `media.scan`: fetches a file from the platform, scans it with an engine, and acts if malware is found (SPEC 3.6).
//!
//! [`MediaScan`] is the handler. The job's payload is in [`payload`], the API calls in [`api`], opening links in
//! [`fetch`], scanning a file in [`scan`], the engine in [`engine`], actions against malware in [`act`], and the job's
//! state and report in [`report`]. Link and bytes are fetched in one attempt, because links are valid for minutes; a
//! verdict of malware is durable before the action.

use std::time::Duration;

use genfleet_core::{
    clock::SystemClock,
    contract::ContractTerms,
    error::{ErrorClass, JobError},
    handler::{JobContext, JobHandler, Progress, ServiceCheck, Services},
    job::{Kind, Violation},
    metric,
    options::ConfigError,
};
use jiff::{SignedDuration, Timestamp};
use metrics::counter;
use url::Url;

use self::{
    api::{Located, Offered},
    engine::{Engine, TestFailure},
    fetch::Fetcher,
    options::MediaScanOptions,
    payload::{MediaPayload, OnThreat, SourceKind},
    report::{EngineReport, Findings, MediaReport, MediaState, ScanResult, ScannedFile},
    scan::{ScanFailure, Scanning, Took},
};
use crate::{json, progress::millis};

mod act;
mod api;
mod contract;
pub(crate) mod engine;
mod fetch;
pub(crate) mod options;
pub(crate) mod payload;
pub(crate) mod report;
mod scan;

/// The setting for no engine.
const STAND_IN: &str = "stand-in";
/// Wait before a file that does not exist yet is requested again.
const NOT_YET: Duration = Duration::from_secs(5);
/// Maximum number of files in a state. With more files the state is not kept, and a job that has to repeat its action
/// scans again.
const MOST_FILES_KEPT: usize = 20;

/// Fetches files, scans them and acts on malware.
#[derive(Debug)]
pub struct MediaScan {
    engine: Engine,
    fetcher: Fetcher,
    api: Url,
    most_bytes: u64,
}

impl JobHandler for MediaScan {
    const KIND: Kind = Kind::MediaScan;
    const ACTION: &'static str = "media.scanned";
    const PERMISSIONS: &'static [&'static str] = api::PERMISSIONS;
    const CONCURRENCY: usize = 16;

    type Options = MediaScanOptions;
    type Payload = MediaPayload;
    type State = MediaState;
    type Report = MediaReport;

    fn why_not_worked(options: &MediaScanOptions) -> Option<String> {
        let without = "no engine is set; set --scanner clamd (GENFLEET_SCANNER) and --scanner-address";
        options.engine().is_none().then(|| without.to_owned())
    }

    async fn examine(options: MediaScanOptions) -> Vec<ServiceCheck> {
        options.check_engine(&SystemClock).await
    }

    fn new(options: MediaScanOptions, services: &Services) -> Result<Self, ConfigError> {
        let settings = options.engine().ok_or_else(|| ConfigError::new("media.scan needs --scanner clamd"))?;
        // Series that exist from the start, since an increase from nothing would go unseen.
        for result in ScanResult::ALL {
            counter!(metric::MEDIA_SCANS, "result" => result.as_str()).absolute(0);
        }
        metrics::gauge!(metric::SCANNER_DATABASE_AGE).set(f64::NAN);
        counter!(metric::THREATS_DETECTED).absolute(0);
        let genesys = &services.genesys;
        genesys.declare_holds(&engine::HOLDS);
        let engine = Engine::new(settings);
        services.supervisor.spawn("tests of the engine", engine.clone().watch(genesys.clone(), services.clock.clone()));
        let fetcher = Fetcher::new(&options, genesys)?;
        Ok(Self { engine, fetcher, api: genesys.addresses().api.clone(), most_bytes: options.scan_max_bytes })
    }

    fn validate(payload: &MediaPayload, _: &MediaScanOptions) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(
        &self,
        job: &JobContext,
        payload: MediaPayload,
        state: MediaState,
    ) -> Result<Progress<Self>, JobError> {
        let Some(kind) = payload.source.kind() else {
            return Err(JobError::permanent("invalid_job", "the source is not exactly one"));
        };
        if let Some(findings) = &state.findings {
            return self.act(job, &payload, kind, findings).await;
        }
        match self.scan(job, &payload, kind).await? {
            None => wait(job, &state).map_err(|error| *error),
            Some(findings) => self.conclude(job, &payload, kind, findings).await,
        }
    }
}

impl MediaScan {
    /// Fetches and scans all files of the source; `None` if they are not there yet. A dead link is replaced once.
    async fn scan(
        &self,
        job: &JobContext,
        payload: &MediaPayload,
        kind: SourceKind<'_>,
    ) -> Result<Option<Findings>, JobError> {
        let result = job.unless_stopped(self.engine.last_test()).await?;
        let passed = result.map_err(|TestFailure { reason, why }| scan::hold_error(job, reason, why))?;
        let scanning = Scanning {
            job,
            engine: &self.engine,
            fetcher: &self.fetcher,
            api: &self.api,
            most_bytes: payload.max_bytes.unwrap_or(u64::MAX).min(self.most_bytes),
        };
        let (mut files, mut took, mut renewed): (Vec<ScannedFile>, Took, Option<usize>) =
            (Vec::new(), Took::default(), None);
        'links: loop {
            let offered = match self.locate(job, kind).await? {
                Located::Here(offered) => offered,
                Located::NotYet => return Ok(None),
                Located::Invalid => {
                    let message = "the platform says that this medium is invalid, so there is nothing to scan";
                    return Err(JobError::permanent("media_invalid", message));
                }
                Located::NoAttachment => {
                    let message = "the e-mail has no attachment with this attachmentId";
                    return Err(JobError::permanent("attachment_not_found", message));
                }
            };
            for (index, offered) in offered.iter().enumerate().skip(files.len()) {
                match scanning.scan(offered, &mut took).await {
                    Ok(file) => {
                        counter!(metric::MEDIA_SCANS, "result" => file.result.as_str()).increment(1);
                        files.push(file);
                    }
                    Err(ScanFailure::Error(error)) => return Err(*error),
                    Err(ScanFailure::LinkDead(why)) => {
                        let is_final = matches!(kind, SourceKind::Url(_));
                        if is_final || renewed == Some(index) {
                            return Err(link_expired(is_final, &why));
                        }
                        renewed = Some(index);
                        continue 'links;
                    }
                }
            }
            break;
        }
        let engine = EngineReport::new(self.engine.name(), &passed);
        Ok(Some(Findings { files, engine, fetch_ms: millis(took.fetching), scan_ms: millis(took.scanning) }))
    }

    async fn locate(&self, job: &JobContext, kind: SourceKind<'_>) -> Result<Located, JobError> {
        Ok(match kind {
            SourceKind::Medium(medium) => api::medium(job, medium).await?,
            SourceKind::Message { conversation_id, message_id } => {
                api::message(job, conversation_id, message_id).await?
            }
            SourceKind::Email(email) => api::email(job, email).await?,
            SourceKind::Document(document) => api::document(job, document).await?,
            SourceKind::Url(url) => Located::Here(vec![Offered { link: url.to_owned(), ..Offered::default() }]),
        })
    }

    /// Decides the next step after the verdict.
    async fn conclude(
        &self,
        job: &JobContext,
        payload: &MediaPayload,
        kind: SourceKind<'_>,
        findings: Findings,
    ) -> Result<Progress<Self>, JobError> {
        let found = findings.worst().and_then(|file| file.sha256.as_ref());
        if let (Some(wanted), Some(found)) = (&payload.sha256, found)
            && !wanted.eq_ignore_ascii_case(found)
        {
            let message = format!("the file has the SHA-256 {found}, and the job names {wanted}: it is another file");
            let report = findings.report(payload, OnThreat::None);
            let changed = JobError::permanent("content_changed", message);
            return Err(JobError { report: Some(json(&report)), ..changed });
        }
        if findings.result() != ScanResult::Malware {
            return Ok(Progress::Done(findings.report(payload, OnThreat::None)));
        }
        counter!(metric::THREATS_DETECTED).increment(1);
        if payload.on_threat() == OnThreat::None {
            return Ok(Progress::Done(findings.report(payload, OnThreat::None)));
        }
        if findings.files.len() > MOST_FILES_KEPT {
            return self.act(job, payload, kind, &findings).await;
        }
        let state = MediaState { waiting_since: None, findings: Some(findings) };
        Ok(Progress::Begun { state, again_in: Duration::ZERO })
    }

    /// Acts on malware. The verdict is in the event even if the action fails.
    async fn act(
        &self,
        job: &JobContext,
        payload: &MediaPayload,
        kind: SourceKind<'_>,
        findings: &Findings,
    ) -> Result<Progress<Self>, JobError> {
        match act::act(job, payload, kind, findings).await {
            Ok(()) => Ok(Progress::Done(findings.report(payload, payload.on_threat()))),
            Err(error) => {
                let report = Some(json(&findings.report(payload, OnThreat::None)));
                Err(JobError { report, ..error })
            }
        }
    }
}

/// Returns the job to the queue until the file exists, at most for --settle-timeout.
fn wait(job: &JobContext, state: &MediaState) -> Result<Progress<MediaScan>, Box<JobError>> {
    let now = job.now();
    let since = state.waiting_since.as_ref().and_then(|since| since.parse::<Timestamp>().ok()).unwrap_or(now);
    let limit = SignedDuration::try_from(job.settle_timeout).unwrap_or(SignedDuration::MAX);
    let state = MediaState { waiting_since: Some(since.to_string()), findings: None };
    if now.duration_since(since) >= limit {
        let waited = job.settle_timeout.as_secs();
        let message =
            format!("the platform still says after {waited} s that the file is not there yet; see --settle-timeout");
        let error = JobError::new(ErrorClass::Transient, "media_not_ready", message);
        return Err(Box::new(error.with_state(&state)));
    }
    Ok(Progress::Begun { state, again_in: NOT_YET })
}

fn link_expired(is_final: bool, why: &str) -> JobError {
    if is_final {
        return JobError::permanent("link_expired", format!("{why}; ask for a new link, and send a new job"));
    }
    JobError::new(ErrorClass::Transient, "link_expired", format!("{why}; a new link of the platform was dead as well"))
}
