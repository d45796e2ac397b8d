//! Metric series that exist from the start, at zero, since an increase from nothing would go unseen.

use metrics_exporter_prometheus::PrometheusHandle;

use crate::{error_code::COMMON_CODES, membership::rejection::MessageRejection, webhook::DeliveryOutcome};
use genfleet_job::{Kind, event::Outcome, metric, options::ConfigError};
use genfleet_queue::{rabbit::ReplyDropReason, topology};
use genfleet_telemetry as telemetry;

/// Common codes with which no job of a kind fails: only causes, only of expired jobs, or only of kind `unknown`.
const NO_REASONS: [&str; 5] = ["unknown_kind", "deadline_passed", "api_unavailable", "api_timeout", "throttled"];

/// Installs the metrics recorder, with the series of `kinds` and of webhooks at zero.
pub(crate) fn start_metrics(kinds: &[Kind]) -> Result<PrometheusHandle, ConfigError> {
    let handle = telemetry::start_metrics()?;
    begin_at_zero(&[kinds, &[Kind::WebhookDeliver]].concat());
    Ok(handle)
}

fn begin_at_zero(kinds: &[Kind]) {
    metrics::gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::counter!(metric::EVENTS_PUBLISHED).absolute(0);
    metrics::counter!(metric::STALE_ACKS).absolute(0);
    metrics::counter!(metric::AUDIT_RECORDS).absolute(0);
    metrics::counter!(metric::REPLIES_UNROUTABLE).absolute(0);
    metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(0.0);
    metrics::gauge!(metric::FLEET_PROCESSES).set(1.0);
    metrics::gauge!(metric::FLEET_SHARE).set(0.0);
    metrics::gauge!(metric::FLEET_HEARD).set(0.0);
    for refusal in MessageRejection::ALL {
        metrics::counter!(metric::FLEET_REFUSED, "reason" => refusal.as_str()).absolute(0);
    }
    let _ = metrics::histogram!(metric::PUBLISH_CONFIRM);
    for result in ["ok", "throttled", "rejected", "error"] {
        metrics::counter!(metric::TOKEN_REFRESHES, "result" => result).absolute(0);
    }
    for role in ["consume", "publish"] {
        metrics::gauge!(metric::BROKER_CONNECTED, "role" => role).set(0.0);
        metrics::counter!(metric::BROKER_RECONNECTS, "role" => role).absolute(0);
    }
    for reason in ReplyDropReason::ALL {
        metrics::counter!(metric::REPLIES_GIVEN_UP, "reason" => reason.as_str()).absolute(0);
    }
    for outcome in DeliveryOutcome::ALL {
        metrics::counter!(metric::WEBHOOK_DELIVERIES, "outcome" => outcome.as_str()).absolute(0);
    }
    for step in topology::DELAY_STEPS {
        metrics::gauge!(metric::DELAYED_MESSAGES, "queue" => step).set(0.0);
    }
    for kind in kinds.iter().map(|kind| kind.as_str()) {
        for step in topology::DELAY_STEPS {
            metrics::counter!(metric::DELAYS_DUE, "kind" => kind, "queue" => step).absolute(0);
            metrics::counter!(metric::DELAYS_ENDED, "kind" => kind, "queue" => step).absolute(0);
        }
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => kind).set(0.0);
        metrics::gauge!(metric::JOBS_HELD, "kind" => kind).set(0.0);
        metrics::gauge!(metric::OLDEST_JOB_AGE, "kind" => kind).set(0.0);
        for outcome in [Outcome::Succeeded, Outcome::Expired] {
            let code = if outcome == Outcome::Expired { "deadline_passed" } else { "" };
            metrics::counter!(metric::JOBS, "kind" => kind, "outcome" => outcome.as_str(), "code" => code).absolute(0);
        }
        begin_codes(kind, COMMON_CODES.map(|code| code.code).into_iter().filter(|code| !NO_REASONS.contains(code)));
        let _ = metrics::histogram!(metric::JOB_DURATION, "kind" => kind);
        let _ = metrics::histogram!(metric::JOB_QUEUE_WAIT, "kind" => kind);
        for class in ["transient", "ambiguous", "throttled", "credentials", "interrupted"] {
            metrics::counter!(metric::JOB_RETRIES, "kind" => kind, "class" => class).absolute(0);
        }
    }
}

/// Starts the series for jobs of `kind` that failed with these codes at zero.
pub(crate) fn begin_codes(kind: &'static str, codes: impl IntoIterator<Item = &'static str>) {
    for code in codes {
        metrics::counter!(metric::JOBS, "kind" => kind, "outcome" => "failed", "code" => code).absolute(0);
        metrics::counter!(metric::DEAD_LETTERS, "kind" => kind, "reason" => code).absolute(0);
    }
}
