//! Logs and metrics: set up once per process. The names are in [`genfleet_job::metric`].

use clap::ValueEnum;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use genfleet_job::{metric, options::ConfigError, shown::LogLines};

pub mod http;
pub mod trace;

const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
const LONG_SECONDS: [f64; 12] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

/// From jobs that take a moment to jobs that were retried for a day.
const JOB_SECONDS: [f64; 15] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
const PATHS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0];
/// A filter of logs as it is written: levels, and directives such as `genfleet_core=debug`, separated by commas. A word
/// that is neither would pass for the name of a target, and switch everything else off.
pub fn log_filter(written: &str) -> Result<String, ConfigError> {
    let is_known = |part: &str| part.contains(['=', ':', '[']) || part.parse::<LevelFilter>().is_ok();
    let wrong = |why: String| {
        ConfigError::new(format!(
            "--log (GENFLEET_LOG): {why}; write error, warn, info, debug, trace or off, or a filter such as \
             info,genfleet_core=debug"
        ))
    };
    match written.split(',').map(str::trim).find(|part| !part.is_empty() && !is_known(part)) {
        Some(part) => Err(wrong(format!("{part:?} is no level"))),
        None => EnvFilter::try_new(written).map(|_| written.to_owned()).map_err(|error| wrong(error.to_string())),
    }
}

/// Sends logs to stderr: JSON lines, or text for people.
pub fn start_logs(format: LogFormat, filter: &str) -> Result<(), ConfigError> {
    // lapin logs returned messages with their bodies, and losses that the sessions tell better.
    let filter = EnvFilter::try_new(format!("{},lapin=off", log_filter(filter)?))
        .map_err(|error| ConfigError::new(format!("--log: {error}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    // It would tell of a stderr that nobody reads any more on stderr, and panic.
    let lines = |colours| {
        let writer = move || LogLines::new(std::io::stderr(), colours);
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
    started.map_err(|error| ConfigError::new(format!("logs are set up already: {error}")))?;
    // In the log's own form, and without the message: it may quote what a job holds.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    Ok(())
}

/// Installs the recorder of metrics and describes them. Whoever serves the handle also runs its upkeep every few seconds.
pub fn start_metrics() -> Result<PrometheusHandle, ConfigError> {
    let handle = recorder().map_err(|error| ConfigError::new(format!("no metrics: {error}")))?;
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
    describe_gauge!(metric::READY, "1 while /readyz says so.");
    describe_counter!(metric::JOBS, "Jobs that ended.");
    describe_histogram!(metric::JOB_DURATION, Unit::Seconds, "From a job's first start to its end, over all attempts.");
    describe_histogram!(
        metric::JOB_QUEUE_WAIT,
        Unit::Seconds,
        "From being enqueued to the first start; up to a second too long where the producer sends no genfleet-enqueued-ms."
    );
    describe_gauge!(metric::JOBS_IN_FLIGHT, "Jobs in a handler now.");
    describe_gauge!(metric::JOBS_HELD, "Deliveries held unacknowledged now: running, or waiting for anything.");
    describe_counter!(metric::JOB_RETRIES, "Jobs sent back to the queue to wait.");
    describe_counter!(metric::DEAD_LETTERS, "Dead letters written.");
    describe_counter!(metric::API_REQUESTS, "Requests sent to Genesys Cloud.");
    describe_histogram!(metric::API_REQUEST_DURATION, Unit::Seconds, "From sending a request to its answer.");
    describe_counter!(metric::API_THROTTLED, Unit::Seconds, "Time in which the API let nothing through.");
    describe_gauge!(
        metric::API_BUDGET_REMAINING,
        "Requests that may be sent now, by the token's limit and the client's."
    );
    describe_gauge!(metric::GATE_STATE, "1 while nothing is sent for this reason.");
    describe_gauge!(
        metric::CLOCK_OFFSET,
        Unit::Seconds,
        "By how much this machine's clock is ahead of the API's, below zero where it is behind; NaN until the API answered."
    );
    describe_gauge!(metric::FLEET_PROCESSES, "Processes of the fleet that are alive, this one included.");
    describe_gauge!(metric::FLEET_SHARE, "Requests this process may send of the client's limit in any minute.");
    describe_gauge!(metric::FLEET_HEARD, "1 while the other processes of the fleet are heard.");
    describe_counter!(metric::FLEET_REFUSED, "Words on the fleet's exchange that were not believed.");
    describe_counter!(metric::TOKEN_REFRESHES, "Tokens asked for.");
    describe_gauge!(
        metric::QUEUE_MESSAGES,
        "Messages ready in a queue, as last counted; NaN while nobody here counts."
    );
    describe_gauge!(
        metric::DELAYED_MESSAGES,
        "Jobs in a step of the delays, as last counted; NaN while nobody here counts."
    );
    describe_counter!(
        metric::DELAYS_DUE,
        "Jobs that this process delayed and whose delay is over, by the step it began in."
    );
    describe_counter!(
        metric::DELAYS_ENDED,
        "Jobs that came to this process out of the delays, by the step it began in."
    );
    describe_gauge!(metric::OLDEST_JOB_AGE, Unit::Seconds, "Age of the last job delivered.");
    describe_counter!(metric::PURGE_PATHS, "Paths purged.");
    describe_histogram!(metric::PURGE_BATCH_PATHS, "Paths in one purge request.");
    describe_gauge!(
        metric::SCANS_IN_FLIGHT,
        "Scans that passed through this process and are expected back: best effort."
    );
    describe_counter!(metric::THREATS_DETECTED, "Verdicts that name a threat.");
    describe_counter!(metric::WEBHOOK_DELIVERIES, "Tries of webhook deliveries that ended.");
    describe_counter!(metric::EVENTS_PUBLISHED, "Events made durable.");
    describe_histogram!(metric::PUBLISH_CONFIRM, Unit::Seconds, "From sending a publication to its confirm.");
    describe_gauge!(metric::PUBLISH_UNCONFIRMED, "Publications sent and not confirmed yet.");
    describe_counter!(metric::REPLIES_GIVEN_UP, "Replies that their producers did not get.");
    describe_counter!(metric::REPLIES_UNROUTABLE, "Replies whose queue was gone.");
    describe_counter!(metric::AUDIT_RECORDS, "Facts written to the audit.");
    describe_gauge!(metric::BROKER_CONNECTED, "1 while connected.");
    describe_counter!(metric::BROKER_RECONNECTS, "Broker sessions rebuilt.");
    describe_counter!(metric::STALE_ACKS, "Acknowledgements that came too late: the message is delivered again.");
    describe_gauge!(metric::BUILD_INFO, "1, with the version.");
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn a_word_is_a_level_or_it_is_refused() {
        for filter in [
            "error",
            "warn",
            "INFO",
            "debug",
            "trace",
            "off",
            "info,genfleet_core=debug",
            "info,hyper=warn",
            "genfleet_core::worker",
            "[job{kind=a}]=debug",
        ] {
            assert!(log_filter(filter).is_ok(), "{filter}");
        }
        for wrong in ["warning", "information", "verbose", "info,loud", "genfleet=warning"] {
            let told = log_filter(wrong).unwrap_err().to_string();
            assert!(told.contains("error, warn, info, debug, trace or off"), "{wrong}: {told}");
        }
    }
}
