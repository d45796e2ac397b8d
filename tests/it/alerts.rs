//! Every alert of `deploy/prometheus/rules.yml` fires with the metrics of binaries that have problems on
//! purpose. The rules are those of the file, with two seconds for each minute. `rules_test.yml` tests the real times,
//! and that no alert fires for a healthy fleet.

use std::{collections::BTreeSet, fs};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Launch, Prefix, Process, Prometheus, Receiver, eventually, json_properties, seconds};

use lapin::types::{FieldTable, ShortString};

use crate::{
    deploy::text,
    observed::{channel, now, scan_of, stream},
    stack::{purge_job, simulator_with, worker},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_fires_for_a_real_fleet_that_is_broken() {
    if !Prometheus::available() {
        return;
    }
    let Some(broker) = Broker::private().await else { return };
    let Some(fleet) = Broken::start(broker).await else { return };
    let prometheus = Prometheus::start(&fleet.configuration().await).await;
    fleet.lose_the_broker_often(&prometheus).await;
    fleet.send_work().await;
    fleet.nowhere.kill9();
    fleet.let_the_broker_give_up_jobs(&prometheus).await;
    until_fired(&prometheus, &["GenfleetPublishStuck", "GenfleetDelaysStuck"]).await;
    fleet.stop_a_step_of_the_delays(&prometheus).await;
    until_fired(&prometheus, &["GenfleetPublishStuck"]).await;
    fleet.block_publishers(&prometheus).await;
    until_fired(&prometheus, &[]).await;
}

/// Processes with one problem each. Each has its own queue prefix, so that none repairs another's topology.
struct Broken {
    throttled: Process,
    forbidden: Process,
    no_credentials: Process,
    bad_jobs: Process,
    no_audit: Process,
    short_of_budget: Process,
    no_broker: Process,
    nowhere: Process,
    wrong_clock: Process,
    refused_by_its_cdn: Process,
    throttled_by_its_cdn: Process,
    prefixes: [Prefix; 10],
    amqp_url: String,
    _simulators: [Simulator; 6],
    _api_of_another_year: Receiver,
    _cdns: [Receiver; 2],
    // Last, so that it is stopped after the processes that use it.
    broker: Broker,
}

impl Broken {
    /// `None` if the size of files cannot be limited.
    async fn start(broker: Broker) -> Option<Self> {
        let prefixes: [Prefix; 10] = std::array::from_fn(|_| Prefix::on(&broker));
        let simulators = [
            faulty("status=429,retry-after=60").await,
            faulty("status=403").await,
            faulty("status=401,path=/oauth/token").await,
            faulty("latency=2s,path=/api/v2/purecloudv2/webchat").await,
            faulty("latency=1ms").await,
            Simulator::start(SimulatorOptions { requests_per_minute: 40, ..SimulatorOptions::default() })
                .await
                .unwrap(),
        ];
        let launch = |at: usize, binary: &str| {
            let launch = worker(binary, &broker, &prefixes[at], &simulators[at.min(5)]);
            // Queue lengths are updated every two seconds.
            launch.args(["--queue-watchdog", "8s", "--concurrency", "8"])
        };
        let forbidden = launch(1, "stream-configurator").args(["--forbidden-probe", "10m"]);
        let short_of_budget = launch(5, "scan-monitor").env("GENFLEET_REQUESTS_PER_MINUTE", "40");
        let no_broker = launch(0, "scan-monitor").env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1").args([
            "--scanner",
            "clamd",
            "--scanner-address",
            "unix:/nowhere/clamd.ctl",
        ]);
        let api_of_another_year = Receiver::start().await;
        api_of_another_year.answer("202 Accepted\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT");
        let wrong_clock = launch(7, "purger")
            .env("GENESYS_BASE_URL", &api_of_another_year.url())
            .env("GENESYS_TOKEN_URL", &format!("{}/oauth/token", simulators[5].base_url()));
        let cdns = [Receiver::start().await, Receiver::start().await];
        cdns[0].answer("405 Method Not Allowed");
        cdns[1].answer("503 Service Unavailable\r\nretry-after: 3600");
        let of_cdn = |at: usize| {
            launch(8 + at, "purger")
                .args(["--cdn", "varnish"])
                .env("GENFLEET_CDN_SERVERS", cdns[at].url().trim_end_matches("/hook"))
        };
        let (refused_by_its_cdn, throttled_by_its_cdn) = (of_cdn(0).start(), of_cdn(1).start());
        // One of its delay queues will be deleted, and with another mode it would declare it again.
        declared(launch(3, "channel-provisioner")).await;
        let bad_jobs = with_a_dead_receiver(launch(3, "channel-provisioner")).args(["--topology", "skip"]);
        let fleet = Self {
            throttled: launch(0, "purger").start(),
            forbidden: forbidden.start(),
            no_credentials: launch(2, "scan-monitor").start(),
            bad_jobs: bad_jobs.start(),
            no_audit: launch(4, "scan-monitor").room_for_files(3_000)?.start(),
            short_of_budget: short_of_budget.start(),
            no_broker: no_broker.start(),
            nowhere: launch(6, "vni-provisioner").start(),
            wrong_clock: wrong_clock.start(),
            refused_by_its_cdn,
            throttled_by_its_cdn,
            _cdns: cdns,
            _api_of_another_year: api_of_another_year,
            amqp_url: broker.url().to_owned(),
            prefixes,
            _simulators: simulators,
            broker,
        };
        for process in fleet.processes().filter(|process| process.pid() != fleet.no_broker.pid()) {
            process.wait_ready(seconds(60)).await;
        }
        Some(fleet)
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        let some = [&self.throttled, &self.forbidden, &self.no_credentials, &self.bad_jobs];
        some.into_iter().chain([
            &self.no_audit,
            &self.short_of_budget,
            &self.no_broker,
            &self.nowhere,
            &self.wrong_clock,
            &self.refused_by_its_cdn,
            &self.throttled_by_its_cdn,
        ])
    }

    async fn configuration(&self) -> String {
        let mut targets = Vec::new();
        for process in self.processes() {
            let (address, worker) = (process.admin_addr(seconds(10)).await, process.name());
            targets.push(format!("{{targets: ['{address}'], labels: {{worker: '{worker}'}}}}"));
        }
        let rules = self.throttled.directory().join("rules.yml");
        fs::write(&rules, hurried(&text("prometheus/rules.yml"))).unwrap();
        format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: genfleet, static_configs: [{}]}}]\n",
            rules.display(),
            targets.join(", ")
        )
    }

    async fn lose_the_broker_often(&self, prometheus: &Prometheus) {
        eventually(seconds(120), "GenfleetReconnecting fires", async || {
            self.broker.ctl(&["close_all_connections", "on purpose"]).await;
            fired(prometheus).await.contains("GenfleetReconnecting")
        })
        .await;
    }

    async fn send_work(&self) {
        let amqp = Amqp::connect(&self.amqp_url).await;
        let [throttled, forbidden, no_credentials, bad_jobs, no_audit, short_of_budget, _, wrong_clock, ..] =
            &self.prefixes;
        for prefix in &self.prefixes[8..] {
            amqp.publish_job(prefix, "cdn.purge", purge_job("cdn", &["/cdn"]), json_properties()).await;
        }
        amqp.publish_job(wrong_clock, "cdn.purge", purge_job("clock", &["/clock"]), json_properties()).await;
        let late = r#"{"id":"late","deadline":"2020-01-01T00:00:00Z","payload":{"paths":["/late"]}}"#;
        amqp.publish_job(wrong_clock, "cdn.purge", late, json_properties()).await;
        let long_ago = json_properties().with_timestamp(now() - 3600);
        let purges = (0..40).map(|n| (purge_job(&format!("old-{n}"), &[&format!("/{n}")]), long_ago.clone()));
        amqp.publish_jobs(throttled, "cdn.purge", purges).await;
        let suspects = (0..3).map(|n| (purge_job(&format!("suspect-{n}"), &["/s"]), json_properties()));
        amqp.publish_many(&format!("{throttled}.work"), "cdn.purge.suspect", suspects).await;
        amqp.publish_job(throttled, "no.such.kind", "{}", json_properties()).await;
        let streams = (0..5).map(|n| (stream(&format!("s{n}")), json_properties()));
        amqp.publish_jobs(forbidden, "stream.configure", streams).await;
        let bad = (0..12).map(|n| (format!(r#"{{"id":"bad-{n}","payload":{{}}}}"#), json_properties()));
        amqp.publish_jobs(bad_jobs, "channel.provision", bad).await;
        for (prefix, count) in [(no_credentials, 1), (no_audit, 20), (short_of_budget, 300)] {
            let scan = |n: usize| scan_of(&format!("scan-{n}"), &format!("{n:08}-0000-4000-8000-000000000001"));
            amqp.publish_jobs(prefix, "file.scan", (0..count).map(|n| (scan(n), json_properties()))).await;
        }
    }

    /// After the five dead letters of the worker have been counted: dead letters of the broker, of jobs that no process
    /// takes during the hold.
    async fn let_the_broker_give_up_jobs(&self, prometheus: &Prometheus) {
        let history = r#"max_over_time(kind_queue:genfleet_queue_messages:max{queue="dead", kind="stream.configure"}[10s] offset 30s) >= 5"#;
        eventually(seconds(90), "the worker's own dead letters are history", async || {
            prometheus.query(history).await.is_ok_and(|series| !series.is_empty())
        })
        .await;
        let amqp = Amqp::connect(&self.amqp_url).await;
        let soon = json_properties().with_expiration("100".into());
        let jobs = (0..3).map(|n| (stream(&format!("late{n}")), soon.clone()));
        amqp.publish_jobs(&self.prefixes[1], "stream.configure", jobs).await;
    }

    /// For webhooks that are retried: the first delays are a second long.
    async fn stop_a_step_of_the_delays(&self, prometheus: &Prometheus) {
        let amqp = Amqp::connect(&self.amqp_url).await;
        let step = format!("{}.delay.00", self.prefixes[3]);
        let (step, key) = (ShortString::from(step), "*.".repeat(15) + "1.#");
        amqp.channel().queue_unbind(step.clone(), step, key.into(), FieldTable::default()).await.unwrap();
        let bad = (0..5).map(|n| (format!(r#"{{"id":"stuck-{n}","payload":{{}}}}"#), json_properties()));
        amqp.publish_jobs(&self.prefixes[3], "channel.provision", bad).await;
        eventually(seconds(60), "GenfleetDelaysStuck fires", async || {
            fired(prometheus).await.contains("GenfleetDelaysStuck")
        })
        .await;
    }

    /// Waits while a job runs whose event will not be confirmed.
    async fn block_publishers(&self, prometheus: &Prometheus) {
        let amqp = Amqp::connect(&self.amqp_url).await;
        amqp.publish_job(&self.prefixes[3], "channel.provision", channel(1), json_properties()).await;
        eventually(seconds(20), "it runs", async || {
            self.bad_jobs.metrics().await.count("genfleet_jobs_in_flight", &[("kind", "channel.provision")]) == 1
        })
        .await;
        self.broker.ctl(&["set_disk_free_limit", "100000GB"]).await;
        eventually(seconds(60), "GenfleetPublishStuck fires", async || {
            fired(prometheus).await.contains("GenfleetPublishStuck")
        })
        .await;
        self.broker.ctl(&["set_disk_free_limit", "50MB"]).await;
    }
}

/// Declares the topology with a worker that is then stopped.
async fn declared(launch: Launch) {
    let process = launch.start();
    process.wait_ready(seconds(60)).await;
    process.terminate();
    assert_eq!(process.wait(seconds(30)).await, 0, "{}", process.stderr());
}

async fn faulty(rule: &str) -> Simulator {
    simulator_with(SimulatorOptions { faults: vec![rule.parse().unwrap()], ..SimulatorOptions::default() }).await
}

fn with_a_dead_receiver(launch: Launch) -> Launch {
    let receiver = ["--webhook-url", "http://127.0.0.1:1/", "--webhook-allow", "127.0.0.1"];
    launch
        .args(receiver)
        .args(["--webhook-retry-scale", "0.0001"])
        .env("GENFLEET_WEBHOOK_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
}

/// The alerts that have fired so far.
async fn fired(prometheus: &Prometheus) -> BTreeSet<String> {
    let series = prometheus.query(r#"max_over_time(ALERTS{alertstate="firing"}[30m])"#).await.unwrap_or_default();
    series.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap().to_owned()).collect()
}

/// Waits until every alert has fired, except those that follow later.
async fn until_fired(prometheus: &Prometheus, to_come: &[&str]) {
    let rules = text("prometheus/rules.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let wanted: BTreeSet<String> = alerts.filter(|alert| !to_come.contains(alert)).map(str::to_owned).collect();
    eventually(seconds(180), "every alert fires", async || {
        let missing: Vec<String> = wanted.difference(&fired(prometheus).await).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} did not")) }
    })
    .await;
}

/// Returns the rules with two seconds for a minute and two minutes for an hour. Only times have a number before
/// an `m` or an `h` in the file.
fn hurried(rules: &str) -> String {
    let mut hurried = String::new();
    let mut digits = String::new();
    for letter in rules.chars() {
        let seconds = digits.parse::<u64>().ok().and_then(|number| match letter {
            'm' => Some(number * 2),
            'h' => Some(number * 120),
            _ => None,
        });
        match seconds {
            Some(seconds) => hurried.extend([seconds.to_string().as_str(), "s"]),
            None if letter.is_ascii_digit() => digits.push(letter),
            None => {
                hurried += &digits;
                hurried.push(letter);
            }
        }
        if !letter.is_ascii_digit() {
            digits.clear();
        }
    }
    hurried + &digits
}

#[test]
fn a_minute_becomes_two_seconds_and_an_hour_two_minutes() {
    assert_eq!(hurried("[5m:1m] offset 15m\nfor: 1h\n> 900"), "[10s:2s] offset 30s\nfor: 120s\n> 900");
}
