//! The scan engine. It is tested before it is used: at the start, after a scan failed, and every ten minutes. While
//! the test fails, the kind is on hold and its jobs wait in the queue.
//!
//! [`clamd`] is the client, [`verdict`] parses its answers, [`samples`] creates the test files, [`version`] reads the
//! age of the database, and [`stand_in`] is the engine of the simulator.

use std::{sync::Arc, time::Duration};

use genfleet_core::{
    clock::SharedClock,
    genesys::{GenesysClient, WorkerHold},
    job::Kind,
    metric,
};
use metrics::gauge;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, watch},
    time::{Instant, sleep},
};
use tracing::{info, warn};

mod clamd;
mod samples;
mod stand_in;
mod verdict;
mod version;

use self::{clamd::Instream, stand_in::StandInScan};
pub(crate) use self::{
    clamd::ScannerAddress,
    verdict::{EngineError, Verdict},
    version::EngineVersion,
};

/// Interval of testing an engine that has passed.
const TEST_INTERVAL: Duration = Duration::from_secs(600);
/// Interval of testing an engine that has failed.
pub(crate) const HELD_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two tests.
const BETWEEN_TESTS: Duration = Duration::from_secs(1);

/// The names of the holds.
pub(crate) const HOLDS: [&str; 3] = [GONE, BLIND, LIMITS];
const GONE: &str = "engine_gone";
const BLIND: &str = "engine_blind";
const LIMITS: &str = "engine_limits";

/// The settings of an engine.
#[derive(Clone, Debug)]
pub(crate) struct EngineSettings {
    pub kind: EngineKind,
    pub concurrency: usize,
    /// The age of the database from which a warning is logged.
    pub max_age: Duration,
    /// True to use an engine that does not report its limits.
    pub accepts_unproven_limits: bool,
}

/// The type of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    Clamd(ScannerAddress),
    StandIn,
}

/// The result of a passed test of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedTest {
    pub version: EngineVersion,
    /// True if it reports that it gives up at its own limits.
    pub limits_told: bool,
}

/// The reason why an engine may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestFailure {
    pub reason: &'static str,
    pub why: String,
}

/// The engine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Engine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: EngineSettings,
    slots: Semaphore,
    /// The result of the last test; `None` until the first test has ended.
    last_test: watch::Sender<Option<Result<PassedTest, TestFailure>>>,
    test_requests: Notify,
}

/// A scan in progress.
pub(crate) enum EngineScan {
    Clamd(Box<Instream>),
    StandIn(StandInScan),
}

impl EngineKind {
    /// The name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Clamd(_) => "clamd",
            Self::StandIn => "stand-in",
        }
    }

    async fn begin(&self) -> Result<EngineScan, EngineError> {
        Ok(match self {
            Self::Clamd(address) => EngineScan::Clamd(Box::new(clamd::begin(address).await?)),
            Self::StandIn => EngineScan::StandIn(StandInScan::begin()),
        })
    }

    pub(crate) async fn version(&self) -> Result<EngineVersion, EngineError> {
        let text = match self {
            Self::Clamd(address) => clamd::version(address).await?,
            Self::StandIn => "stand-in: it knows the EICAR test string only".to_owned(),
        };
        Ok(EngineVersion::read(&text))
    }

    async fn scan(&self, file: &[u8]) -> Result<Verdict, EngineError> {
        let mut scan = self.begin().await?;
        match scan.write(file).await? {
            Some(early) => Ok(early),
            None => scan.finish().await,
        }
    }

    /// Tests the engine: it must find the test string, and report when it gives up at a limit.
    pub(crate) async fn test(&self, accepts_unproven_limits: bool) -> Result<PassedTest, TestFailure> {
        let gone = |error: EngineError| TestFailure {
            reason: GONE,
            why: format!("{error}; see whether the engine runs and --scanner-address is right"),
        };
        let version = self.version().await.map_err(gone)?;
        let found = self.scan(&samples::eicar()).await.map_err(gone)?;
        if !matches!(found, Verdict::Malware(_)) {
            let why = format!(
                "the engine ({}) does not find the EICAR test string, so it would find nothing; see whether its virus database is there",
                version.text
            );
            return Err(TestFailure { reason: BLIND, why });
        }
        if *self == Self::StandIn {
            return Ok(PassedTest { version, limits_told: false });
        }
        let limits_told = matches!(self.scan(&samples::nested_archive()).await.map_err(gone)?, Verdict::Unscannable(_));
        if !limits_told && !accepts_unproven_limits {
            let why = format!(
                "the engine ({}) calls a file clean that it did not look at to its end; set AlertExceedsMax yes in clamd.conf, or accept it with --scanner-unproven-limits accept",
                version.text
            );
            return Err(TestFailure { reason: LIMITS, why });
        }
        Ok(PassedTest { version, limits_told })
    }
}

impl Engine {
    /// Creates an engine that has not been tested.
    pub(crate) fn new(settings: EngineSettings) -> Self {
        let slots = Semaphore::new(settings.concurrency);
        Self(Arc::new(Shared { settings, slots, last_test: watch::Sender::new(None), test_requests: Notify::new() }))
    }

    /// The engine's name in reports.
    pub(crate) fn name(&self) -> &'static str {
        self.0.settings.kind.name()
    }

    /// Returns the result of the last test; an error while the engine may not be used. Waits for the first test.
    pub(crate) async fn last_test(&self) -> Result<PassedTest, TestFailure> {
        let mut last_test = self.0.last_test.subscribe();
        let known = last_test.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        // Cannot fail: the sender is in `self`.
        known.unwrap_or_else(|| Err(TestFailure { reason: GONE, why: "the engine has not been tested yet".to_owned() }))
    }

    /// Waits for a permit to scan.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.slots.acquire().await.ok()
    }

    /// Begins a scan.
    pub(crate) async fn begin(&self) -> Result<EngineScan, EngineError> {
        self.0.settings.kind.begin().await
    }

    /// Requests a test at once, because a scan failed.
    pub(crate) fn request_test(&self) {
        self.0.test_requests.notify_one();
    }

    /// Tests the engine at regular intervals, and holds the kind while the test fails. Never ends.
    pub(crate) async fn watch(self, genesys: GenesysClient, clock: SharedClock) {
        let EngineSettings { kind, max_age, accepts_unproven_limits, .. } = &self.0.settings;
        let mut warned = None;
        loop {
            let last_test = kind.test(*accepts_unproven_limits).await;
            let interval = if last_test.is_ok() { TEST_INTERVAL } else { HELD_INTERVAL };
            let before = self.0.last_test.send_replace(Some(last_test.clone()));
            let hold = match &last_test {
                Ok(passed) => {
                    if !matches!(before, Some(Ok(_))) {
                        info!(
                            engine = kind.name(),
                            version = passed.version.text,
                            limits_told = passed.limits_told,
                            "the engine passed its test"
                        );
                    }
                    self.report_database_age(&passed.version, &clock, *max_age, &mut warned);
                    None
                }
                Err(TestFailure { reason, why }) => Some(WorkerHold {
                    reason,
                    why: why.clone(),
                    next_look: Instant::now() + interval,
                    is_pause: false,
                    closes_intake: true,
                }),
            };
            genesys.set_worker_hold(Kind::MediaScan, hold);
            sleep(BETWEEN_TESTS).await;
            tokio::select! {
                () = sleep(interval) => {}
                () = self.0.test_requests.notified() => {}
            }
        }
    }

    /// Sets the metric with the age of the database, and logs one warning for each old database.
    fn report_database_age(
        &self,
        version: &EngineVersion,
        clock: &SharedClock,
        max_age: Duration,
        warned: &mut Option<String>,
    ) {
        if self.0.settings.kind == EngineKind::StandIn {
            return;
        }
        let now = clock.now();
        let age = version.database_age(now).map_or(f64::NAN, |age| age.as_secs_f64());
        gauge!(metric::SCANNER_DATABASE_AGE).set(age);
        match version.database_trouble(now, max_age) {
            Some(trouble) if warned.as_ref() != Some(&version.text) => {
                warn!("{trouble}");
                *warned = Some(version.text.clone());
            }
            Some(_) | None => {}
        }
    }
}

impl EngineScan {
    /// Sends the next bytes. Returns the verdict if the engine gave one before the end.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<Option<Verdict>, EngineError> {
        match self {
            Self::Clamd(scan) => scan.write(bytes).await,
            Self::StandIn(scan) => {
                scan.write(bytes);
                Ok(None)
            }
        }
    }

    /// Says that this was all, and waits for the verdict.
    pub(crate) async fn finish(self) -> Result<Verdict, EngineError> {
        match self {
            Self::Clamd(scan) => scan.finish().await,
            Self::StandIn(scan) => Ok(scan.finish()),
        }
    }
}
