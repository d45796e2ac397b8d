//! Every metric of SPEC 9: exported by the binaries, present from the start, and correct.

use std::collections::BTreeSet;

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Metrics, Prefix, Process, Prometheus, eventually, seconds};

use crate::{
    observed::{AGE, ENDINGS, Fleet, worked},
    stack::{UNLIMITED, publish_one_path_jobs, simulator, simulator_with, worker},
};

/// Names and types that every worker exports from the start.
const OF_ALL: [(&str, &str); 36] = [
    ("genfleet_jobs_total", "counter"),
    ("genfleet_job_duration_seconds", "histogram"),
    ("genfleet_job_queue_wait_seconds", "histogram"),
    ("genfleet_jobs_in_flight", "gauge"),
    ("genfleet_jobs_held", "gauge"),
    ("genfleet_job_retries_total", "counter"),
    ("genfleet_dead_letters_total", "counter"),
    ("genfleet_oldest_job_age_seconds", "gauge"),
    ("genfleet_api_throttled_seconds_total", "counter"),
    ("genfleet_api_budget_remaining", "gauge"),
    ("genfleet_gate_state", "gauge"),
    ("genfleet_clock_offset_seconds", "gauge"),
    ("genfleet_token_refreshes_total", "counter"),
    ("genfleet_events_published_total", "counter"),
    ("genfleet_publish_confirm_seconds", "histogram"),
    ("genfleet_publish_unconfirmed", "gauge"),
    ("genfleet_replies_given_up_total", "counter"),
    ("genfleet_replies_unroutable_total", "counter"),
    ("genfleet_broker_connected", "gauge"),
    ("genfleet_broker_reconnects_total", "counter"),
    ("genfleet_stale_acks_total", "counter"),
    ("genfleet_webhook_deliveries_total", "counter"),
    ("genfleet_audit_records_total", "counter"),
    ("genfleet_fleet_processes", "gauge"),
    ("genfleet_fleet_share", "gauge"),
    ("genfleet_fleet_heard", "gauge"),
    ("genfleet_fleet_words_refused_total", "counter"),
    ("genfleet_ready", "gauge"),
    ("genfleet_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
];

/// The metrics of one worker.
const OF_ONE: [(&str, &str, &str); 4] = [
    ("purger", "genfleet_purge_paths_total", "counter"),
    ("purger", "genfleet_purge_batch_paths", "histogram"),
    ("scan-monitor", "genfleet_scans_in_flight", "gauge"),
    ("scan-monitor", "genfleet_threats_detected_total", "counter"),
];

/// Metrics that must exist before the first event, because an increase from a missing series is not visible.
const COMPLETE_FROM_THE_START: [&str; 9] = [
    "genfleet_jobs_total",
    "genfleet_job_retries_total",
    "genfleet_dead_letters_total",
    "genfleet_gate_state",
    "genfleet_threats_detected_total",
    "genfleet_broker_connected",
    "genfleet_broker_reconnects_total",
    "genfleet_webhook_deliveries_total",
    "genfleet_fleet_words_refused_total",
];

const GATES: [&str; 6] = ["throttled", "service_limit", "api_unavailable", "credentials", "forbidden", "audit"];

/// Number of messages of an unknown kind: they are no jobs, but have an event.
const UNKNOWN: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_exports_its_metrics_at_zero_before_it_has_seen_a_broker() {
    for (binary, kind) in worked() {
        let process = Process::binary(binary)
            .args(["--admin-addr", "127.0.0.1:0"])
            .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
            .env("GENESYS_CLIENT_ID", "client")
            .env("GENESYS_CLIENT_SECRET", "hush")
            .start();
        let (_, text) = process.get("/metrics").await.unwrap();
        let of_one = OF_ONE.iter().filter(|(of, ..)| *of == binary).map(|(_, name, kind)| (*name, *kind));
        for (name, of_type) in OF_ALL.into_iter().chain(of_one) {
            assert!(text.contains(&format!("# TYPE {name} {of_type}\n")), "{binary}: no {of_type} {name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{binary}: {name} is not explained");
        }
        let metrics = Metrics::parse(&text);
        let at_zero = |name: &str, labels: &[(&str, &str)]| {
            let series: Vec<_> = metrics.matching(name, labels).collect();
            assert!(!series.is_empty(), "{binary}: no series {name} {labels:?}");
            assert!(series.iter().all(|(_, value)| value.abs() < f64::EPSILON), "{binary}: not at zero: {series:?}");
        };
        for (_, outcome, code, _) in ENDINGS.iter().filter(|(of, ..)| *of == kind) {
            at_zero("genfleet_jobs_total", &[("kind", kind), ("outcome", outcome), ("code", code)]);
        }
        for code in ["attempts_exhausted", "crash_loop", "panicked", "forbidden", "too_large"] {
            at_zero("genfleet_jobs_total", &[("kind", kind), ("outcome", "failed"), ("code", code)]);
            at_zero("genfleet_dead_letters_total", &[("kind", kind), ("reason", code)]);
        }
        for reason in GATES {
            at_zero("genfleet_gate_state", &[("reason", reason)]);
        }
        for role in ["consume", "publish"] {
            at_zero("genfleet_broker_connected", &[("role", role)]);
            at_zero("genfleet_broker_reconnects_total", &[("role", role)]);
        }
        at_zero("genfleet_job_duration_seconds_count", &[("kind", kind)]);
        at_zero("genfleet_job_queue_wait_seconds_bucket", &[("kind", kind), ("le", "+Inf")]);
        at_zero("genfleet_jobs_held", &[("kind", kind)]);
        at_zero("genfleet_ready", &[]);
        assert_eq!(metrics.count("genfleet_api_budget_remaining", &[]), 300);
        assert_eq!(metrics.count("genfleet_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault_in_what_any_binary_exports() {
    if !Prometheus::available() {
        return;
    }
    let fleet = Fleet::start().await;
    fleet.work().await;
    let up = Process::binary("genfleet").args(["up", "--simulate", "--admin-addr", "127.0.0.1:0"]).start();
    up.wait_ready(seconds(30)).await;
    for process in fleet.processes.iter().chain([&up]) {
        let (_, text) = process.get("/metrics").await.unwrap();
        let checked = Prometheus::promtool(&["check", "metrics", "--extended"], &text);
        let output = [checked.stderr, checked.stdout].map(|output| String::from_utf8_lossy(&output).into_owned());
        assert!(checked.status.success() && output[0].is_empty(), "{}: {}", process.name(), output.concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_what_happened() {
    let fleet = Fleet::start().await;
    let before = scraped(&fleet).await;
    fleet.work().await;
    let jobs: u64 = ENDINGS.iter().map(|(.., count)| count).sum();
    let now = eventually(seconds(20), "all is counted", async || {
        let now = scraped(&fleet).await;
        let unrouted = now.iter().all(|each| each.count("genfleet_queue_messages", &[("queue", "unrouted")]) == 1);
        let dead = total(&now, "genfleet_queue_messages", &[("queue", "dead")]);
        let ended = total(&now, "genfleet_jobs_total", &[]);
        let events = total(&now, "genfleet_events_published_total", &[]);
        let all = unrouted && ended == jobs && dead == failed(|_| true) && events == jobs + UNKNOWN;
        let output = || format!("{ended} of {jobs} ended, {dead} dead, {events} events, all see unrouted: {unrouted}");
        if all { Ok(now) } else { Err(output()) }
    })
    .await;
    jobs_are_true(&now);
    requests_are_true(&now, &fleet.simulator);
    publishing_is_true(&now, jobs);
    the_workers_own_are_true(&now);
    what_was_written_down_is_true(&fleet, &now);
    let added: BTreeSet<String> = bounded(&now).difference(&bounded(&before)).cloned().collect();
    assert_eq!(added, BTreeSet::new(), "not there from the start");
}

fn jobs_are_true(now: &[Metrics]) {
    for (kind, outcome, code, count) in ENDINGS {
        let labels = [("kind", kind), ("outcome", outcome), ("code", code)];
        assert_eq!(total(now, "genfleet_jobs_total", &labels), count, "{labels:?}");
        if outcome == "failed" {
            assert_eq!(total(now, "genfleet_dead_letters_total", &[("kind", kind), ("reason", code)]), count);
        }
    }
    assert_eq!(total(now, "genfleet_dead_letters_total", &[]), failed(|_| true));
    for kind in ENDINGS.map(|(kind, ..)| kind).into_iter().collect::<BTreeSet<_>>() {
        let of_kind = [("kind", kind)];
        assert_eq!(total(now, "genfleet_job_duration_seconds_count", &of_kind), ended(kind, |_| true));
        // Jobs that were never delivered to a worker have no end of their wait.
        let unrun = ["undecodable", "invalid_job", "kind_mismatch", "deadline_passed"];
        let started = ended(kind, |code| !unrun.contains(&code));
        assert_eq!(total(now, "genfleet_job_queue_wait_seconds_count", &of_kind), started, "{kind}");
        assert!(total(now, "genfleet_job_queue_wait_seconds_sum", &of_kind) >= started * AGE);
        assert!(total(now, "genfleet_oldest_job_age_seconds", &of_kind) >= AGE);
        assert_eq!(total(now, "genfleet_jobs_in_flight", &of_kind), 0);
        let dead = total(now, "genfleet_queue_messages", &[("kind", kind), ("queue", "dead")]);
        assert_eq!(dead, failed(|of| of == kind));
        for queue in ["jobs", "resume", "suspect"] {
            assert_eq!(total(now, "genfleet_queue_messages", &[("kind", kind), ("queue", queue)]), 0);
        }
    }
}

fn requests_are_true(now: &[Metrics], simulator: &Simulator) {
    let received = simulator.requests();
    let (tokens, requests): (Vec<_>, Vec<_>) = received.iter().partition(|each| each.path == "/oauth/token");
    assert_eq!(total(now, "genfleet_token_refreshes_total", &[("result", "ok")]), tokens.len() as u64);
    assert_eq!(total(now, "genfleet_token_refreshes_total", &[]), tokens.len() as u64);
    let statuses: BTreeSet<u16> = requests.iter().filter_map(|request| request.status).collect();
    assert!(statuses.contains(&503) && statuses.contains(&400), "the load wants some of each: {statuses:?}");
    for status in statuses {
        let answered = requests.iter().filter(|request| request.status == Some(status)).count() as u64;
        assert_eq!(total(now, "genfleet_api_requests_total", &[("status", &status.to_string())]), answered);
    }
    assert_eq!(total(now, "genfleet_api_requests_total", &[]), requests.len() as u64);
    assert_eq!(total(now, "genfleet_api_request_duration_seconds_count", &[]), requests.len() as u64);
    for each in now {
        let left = each.count("genfleet_api_budget_remaining", &[]);
        assert!(left + each.count("genfleet_api_requests_total", &[]) >= UNLIMITED.into(), "{left}");
    }
    let endpoint = ("endpoint", "/api/v2/external/cdn/purge");
    let purges = total(now, "genfleet_api_requests_total", &[endpoint, ("method", "POST")]);
    // The request that was answered with 503 is sent again unchanged.
    assert_eq!(total(now, "genfleet_purge_batch_paths_count", &[]), purges - 1);
}

fn publishing_is_true(now: &[Metrics], jobs: u64) {
    assert_eq!(total(now, "genfleet_events_published_total", &[]), jobs + UNKNOWN);
    assert!(total(now, "genfleet_publish_confirm_seconds_count", &[]) >= jobs);
    assert_eq!(total(now, "genfleet_publish_unconfirmed", &[]), 0);
    assert_eq!(total(now, "genfleet_broker_connected", &[]), 2 * now.len() as u64);
    assert_eq!(total(now, "genfleet_ready", &[]), now.len() as u64);
}

fn the_workers_own_are_true(now: &[Metrics]) {
    assert_eq!(total(now, "genfleet_purge_paths_total", &[]), 20);
    assert_eq!(total(now, "genfleet_purge_batch_paths_sum", &[]), 20);
    assert_eq!(total(now, "genfleet_threats_detected_total", &[]), 1);
    assert_eq!(total(now, "genfleet_scans_in_flight", &[]), 0);
    assert!(now.iter().all(|each| each.sum("process_resident_memory_bytes", &[]) > 1e6));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shut_gate_shows_with_its_reason() {
    let broker = Broker::shared().await;
    let shut = async |reason: &str, rule: &str, ready: u64| {
        let prefix = Prefix::on(broker);
        let faults = vec![rule.parse().unwrap()];
        let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
        let purger = worker("purger", broker, &prefix, &simulator).args(["--batch-linger", "0ms"]).start();
        purger.wait_ready(seconds(30)).await;
        let amqp = Amqp::connect(broker.url()).await;
        publish_one_path_jobs(&amqp, &prefix, "held", 60).await;
        eventually(seconds(30), format!("{reason} shows"), async || {
            let now = purger.metrics().await;
            let seen = GATES.map(|each| (each, now.count("genfleet_gate_state", &[("reason", each)])));
            let alone = seen.iter().all(|(each, state)| *state == u64::from(*each == reason));
            let counted = reason != "throttled" || now.sum("genfleet_api_throttled_seconds_total", &[]) >= 1.0;
            let so = alone && counted && now.count("genfleet_ready", &[]) == ready;
            if so { Ok(()) } else { Err(format!("{seen:?}, ready {}", now.count("genfleet_ready", &[]))) }
        })
        .await;
    };
    tokio::join!(
        shut("throttled", "status=429,retry-after=60", 1),
        shut("service_limit", r#"status=429,retry-after=60,body="{\"limit\":{\"namespace\":\"integrations\"}}""#, 1),
        shut("api_unavailable", "status=503", 1),
        shut("credentials", "status=401,path=/oauth/token", 0),
        shut("forbidden", "status=403", 0),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_that_shows_and_no_old_count_does() {
    let Some(mut broker) = Broker::private().await else {
        return;
    };
    let prefix = Prefix::on(&broker);
    let simulator = simulator().await;
    let purger = worker("purger", &broker, &prefix, &simulator).start();
    let counts =
        |now: &Metrics| now.matching("genfleet_queue_messages", &[]).map(|(_, value)| value).collect::<Vec<_>>();
    eventually(seconds(30), "all five queues are counted", async || counts(&purger.metrics().await) == [0.0; 5]).await;
    broker.kill().await;
    eventually(seconds(30), "it shows", async || {
        let now = purger.metrics().await;
        let away = now.count("genfleet_broker_connected", &[]) == 0 && now.count("genfleet_ready", &[]) == 0;
        let counts = counts(&now);
        if away && counts.len() == 5 && counts.iter().all(|count| count.is_nan()) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
    broker.start().await;
    eventually(seconds(60), "it is back", async || {
        let now = purger.metrics().await;
        let back = now.count("genfleet_broker_connected", &[]) == 2 && now.count("genfleet_ready", &[]) == 1;
        back && counts(&now) == [0.0; 5] && now.sum("genfleet_broker_reconnects_total", &[("role", "consume")]) >= 1.0
    })
    .await;
}

fn what_was_written_down_is_true(fleet: &Fleet, now: &[Metrics]) {
    let lines = |process: &Process| {
        let file = process.directory().join(format!("genfleet-audit-{}.jsonl", process.name()));
        std::fs::read_to_string(file).unwrap().lines().count() as u64
    };
    assert_eq!(total(now, "genfleet_audit_records_total", &[]), fleet.processes.iter().map(lines).sum::<u64>());
}

async fn scraped(fleet: &Fleet) -> Vec<Metrics> {
    let mut all = Vec::new();
    for process in &fleet.processes {
        all.push(process.metrics().await);
    }
    all
}

/// Sums over all processes.
fn total(now: &[Metrics], name: &str, labels: &[(&str, &str)]) -> u64 {
    now.iter().map(|each| each.count(name, labels)).sum()
}

fn ended(kind: &str, with: impl Fn(&str) -> bool) -> u64 {
    ENDINGS.iter().filter(|(of, _, code, _)| *of == kind && with(code)).map(|(.., count)| count).sum()
}

fn failed(of: impl Fn(&str) -> bool) -> u64 {
    ENDINGS.iter().filter(|(kind, outcome, ..)| *outcome == "failed" && of(kind)).map(|(.., count)| count).sum()
}

/// Returns the series, without values, that must exist from the start.
fn bounded(all: &[Metrics]) -> BTreeSet<String> {
    let series = all.iter().flat_map(|each| each.all().keys());
    series.filter(|series| COMPLETE_FROM_THE_START.iter().any(|name| series.starts_with(name))).cloned().collect()
}
