//! Logs, metrics and traces, set up once per process. The metrics are listed in [`genfleet_job::metric`].

use clap::ValueEnum;
use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use self::escaped_log::EscapedLog;
use genfleet_job::{
    metric::{self, MetricKind},
    options::ConfigError,
};

mod escaped_log;
pub mod http;
pub mod trace;

const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
const LONG_SECONDS: [f64; 12] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// The buckets of job durations, from jobs that take a moment to jobs that are retried for a day.
const JOB_SECONDS: [f64; 15] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
const PATHS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0];

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Text,
}

/// Checks a log filter: levels, and directives such as `genfleet_core=debug`, separated by commas. Anything else would
/// be taken for the name of a target, and switch off the rest of the log.
pub fn log_filter(written: &str) -> Result<String, ConfigError> {
    let is_known = |part: &str| part.contains(['=', ':', '[']) || part.parse::<LevelFilter>().is_ok();
    let wrong = |why: String| {
        ConfigError::new(format!(
            "--log (GENFLEET_LOG): {why}; write error, warn, info, debug, trace or off, or a filter such as \
             info,genfleet_core=debug"
        ))
    };
    match written.split(',').map(str::trim).find(|part| !part.is_empty() && !is_known(part)) {
        Some(part) => Err(wrong(format!("{part:?} is not a level"))),
        None => EnvFilter::try_new(written).map(|_| written.to_owned()).map_err(|error| wrong(error.to_string())),
    }
}

/// Starts the log on stderr.
pub fn start_logs(format: LogFormat, filter: &str) -> Result<(), ConfigError> {
    // lapin logs returned messages with their bodies, and losses that the sessions log better.
    let filter = EnvFilter::try_new(format!("{},lapin=off", log_filter(filter)?))
        .map_err(|error| ConfigError::new(format!("--log: {error}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    // The layer would report a closed stderr on stderr, and panic.
    let lines = |colours| {
        let writer = move || EscapedLog::new(std::io::stderr(), colours);
        fmt::layer().with_ansi(colours).with_writer(writer).log_internal_errors(false)
    };
    let started = match format {
        LogFormat::Json => registry
            .with(lines(false).json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init(),
        LogFormat::Text => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && !plain;
            registry.with(lines(ansi).compact()).try_init()
        }
    };
    started.map_err(|error| ConfigError::new(format!("the log is set up already: {error}")))?;
    // In the log's format, and without the message, which may quote a payload.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    Ok(())
}

/// Installs the metrics recorder. The owner of the handle must run its upkeep every few seconds.
pub fn start_metrics() -> Result<PrometheusHandle, ConfigError> {
    let handle = recorder().map_err(|error| ConfigError::new(format!("metrics cannot be set up: {error}")))?;
    metrics_process::Collector::default().describe();
    describe();
    Ok(handle)
}

fn recorder() -> Result<PrometheusHandle, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .set_buckets_for_metric(full(metric::JOB_DURATION), &JOB_SECONDS)?
        .set_buckets_for_metric(full(metric::JOB_QUEUE_WAIT), &LONG_SECONDS)?
        .set_buckets_for_metric(full(metric::PURGE_BATCH_PATHS), &PATHS)?
        .install_recorder()
}

fn describe() {
    metrics::with_recorder(|recorder| {
        for metric in metric::ALL {
            let unit = metric.name.contains("_seconds").then_some(Unit::Seconds);
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(name, unit, help),
                MetricKind::Gauge => recorder.describe_gauge(name, unit, help),
                MetricKind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}
