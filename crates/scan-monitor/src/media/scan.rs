//! Fetches one file and scans it. The bytes are streamed from the host of the link to the engine, and never written to
//! disk.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, HELD_SPREAD, JobError},
    genesys::ApiError,
    handler::JobContext,
    hash::hexadecimal,
};
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;

use super::{
    api::{self, Offered},
    engine::{Engine, EngineError, HELD_INTERVAL, Verdict},
    fetch::{FetchError, Fetcher, OpenFile},
    payload::read_url,
    report::{ScanResult, ScannedFile},
};

/// The reason why a file was not scanned.
#[derive(Debug)]
pub(crate) enum ScanFailure {
    /// The link is dead. A new one may work.
    LinkDead(String),
    Error(Box<JobError>),
}

impl From<JobError> for ScanFailure {
    fn from(error: JobError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<ApiError> for ScanFailure {
    fn from(error: ApiError) -> Self {
        JobError::from(error).into()
    }
}

/// The times of fetching and scanning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    pub fetching: Duration,
    pub scanning: Duration,
}

/// The clients for fetching and scanning files.
#[derive(Debug)]
pub(crate) struct Scanning<'a> {
    pub job: &'a JobContext,
    pub engine: &'a Engine,
    pub fetcher: &'a Fetcher,
    /// The URL of the API.
    pub api: &'a Url,
    /// Maximum length of a file.
    pub most_bytes: u64,
}

impl Scanning<'_> {
    /// Fetches and scans one file.
    pub(crate) async fn scan(&self, offered: &Offered, took: &mut Took) -> Result<ScannedFile, ScanFailure> {
        let slot = self.job.unless_stopped(self.engine.slot()).await?;
        let began = Instant::now();
        let link = self.resolve(&offered.link).await?;
        let opened = self.job.unless_stopped(self.fetcher.open(self.job, link)).await?;
        let mut file = opened.map_err(failure_of_fetch)?;
        let mut scanned = ScannedFile {
            name: offered.name.clone(),
            media_type: offered.media_type.clone().or_else(|| file.media_type.clone()),
            bytes: file.length.or(offered.length),
            sha256: None,
            result: ScanResult::TooLarge,
            threat: None,
            warning: None,
        };
        if file.length.is_some_and(|length| length > self.most_bytes) {
            scanned.warning = Some(self.too_long());
            return Ok(scanned);
        }
        let last_byte = self.job.unless_stopped(self.stream(&mut file, &mut scanned)).await??;
        took.fetching += last_byte - began;
        took.scanning += last_byte.elapsed();
        drop(slot);
        Ok(scanned)
    }

    /// Exchanges a link on the API's host for one that needs no token.
    async fn resolve(&self, link: &str) -> Result<Url, ScanFailure> {
        let url = parse_link(link)?;
        let Some(id) = api::download_id(self.api, &url) else { return Ok(url) };
        match api::download(self.job, &id).await? {
            Some(link) => parse_link(&link),
            None => Err(ScanFailure::LinkDead("the API knows the download no more".to_owned())),
        }
    }

    /// Streams the file to the engine and records the verdict. Returns the time of the last byte.
    async fn stream(&self, file: &mut OpenFile, scanned: &mut ScannedFile) -> Result<Instant, ScanFailure> {
        let mut scan = self.engine.begin().await.map_err(|error| self.failure_of_engine(error))?;
        let (mut read, mut digest) = (0_u64, Sha256::new());
        while let Some(bytes) = file.chunk().await.map_err(failure_of_fetch)? {
            read += bytes.len() as u64;
            if read > self.most_bytes {
                scanned.bytes = scanned.bytes.max(Some(read));
                scanned.warning = Some(self.too_long());
                return Ok(Instant::now());
            }
            digest.update(&bytes);
            if let Some(verdict) = scan.write(&bytes).await.map_err(|error| self.failure_of_engine(error))? {
                return self.judge_early(verdict, read, scanned);
            }
        }
        let last_byte = Instant::now();
        scanned.bytes = Some(read);
        scanned.sha256 = Some(hexadecimal(&digest.finalize()));
        let verdict = scan.finish().await.map_err(|error| self.failure_of_engine(error))?;
        scanned.judge(verdict);
        Ok(last_byte)
    }

    /// Records a verdict that arrived before the last byte. That is valid only for a file that is too long, because the
    /// rest of another file would be unknown.
    fn judge_early(&self, verdict: Verdict, read: u64, scanned: &mut ScannedFile) -> Result<Instant, ScanFailure> {
        if verdict != Verdict::TooLarge {
            let error = EngineError::Failed("the engine gave its verdict before the last byte".to_owned());
            return Err(self.failure_of_engine(error));
        }
        scanned.bytes = scanned.bytes.max(Some(read));
        scanned.judge(verdict);
        Ok(Instant::now())
    }

    fn too_long(&self) -> String {
        format!(
            "the file is longer than {} bytes and was not scanned; see maxBytes and --scan-max-bytes",
            self.most_bytes
        )
    }

    /// Converts an error of the engine. If the engine cannot be reached, the job waits. If it fails, the attempt
    /// counts, and the engine is tested again.
    fn failure_of_engine(&self, error: EngineError) -> ScanFailure {
        self.engine.request_test();
        ScanFailure::from(match error {
            EngineError::Gone(why) => hold_error(self.job, "engine_gone", why),
            EngineError::Failed(why) => JobError::new(ErrorClass::Transient, "engine_failed", why),
        })
    }
}

/// Creates the error of a job that waits for the engine.
pub(crate) fn hold_error(job: &JobContext, code: &'static str, why: String) -> JobError {
    let wait = SignedDuration::try_from(HELD_INTERVAL).unwrap_or(SignedDuration::MAX);
    let until = job.now().checked_add(wait).unwrap_or_else(|_| job.now());
    JobError::new(ErrorClass::Held { until, spread: HELD_SPREAD }, code, why)
}

fn parse_link(link: &str) -> Result<Url, ScanFailure> {
    // The link itself may contain a secret key.
    let wrong = |why| JobError::permanent("unexpected_response", format!("the link to the file {why}"));
    read_url(link).map_err(|why| wrong(why).into())
}

fn failure_of_fetch(error: FetchError) -> ScanFailure {
    ScanFailure::from(match error {
        FetchError::Dead(why) => return ScanFailure::LinkDead(why),
        FetchError::Refused(why) => JobError::permanent("address_refused", why),
        FetchError::Interrupted => JobError::interrupted(),
        FetchError::Rejected(why) => JobError::permanent("link_refused", why),
        FetchError::Unavailable(why, retry_after) => {
            JobError { retry_after, ..JobError::new(ErrorClass::Transient, "media_unavailable", why) }
        }
    })
}
