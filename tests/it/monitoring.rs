//! The rules and the dashboard in `deploy/`, with Prometheus and the metrics of the binaries.

use std::collections::{BTreeMap, BTreeSet};

use harness::{Prometheus, eventually, seconds};
use serde_json::Value;

use crate::{
    deploy::{deploy, text},
    observed::Fleet,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_finds_data_for_every_rule_and_every_panel() {
    if !Prometheus::available() {
        return;
    }
    let fleet = Fleet::start().await;
    let prometheus = Prometheus::start(&configuration(&fleet).await).await;
    eventually(seconds(30), "every process was scraped", async || {
        let scraped = prometheus.query("count_over_time(up[1m]) >= 2").await;
        scraped.is_ok_and(|scraped| scraped.len() == fleet.processes.len())
    })
    .await;
    let queries = panel_queries();
    assert!(queries.len() > 40, "the dashboard's queries were found");
    eventually(seconds(90), "every panel's query gives data", async || {
        // Repeated, because some series start with the first load, and a rate needs later values.
        fleet.work().await;
        let mut empty = Vec::new();
        for (panel, query) in &queries {
            let series = prometheus.query(query).await.unwrap_or_else(|error| panic!("{panel}: {query}: {error}"));
            if !series.iter().any(has_value) {
                empty.push(panel);
            }
        }
        if empty.is_empty() { Ok(()) } else { Err(format!("nothing in {empty:?}")) }
    })
    .await;
    let mut used: BTreeSet<String> = queries.iter().flat_map(|(_, query)| names(query)).collect();
    for rule in evaluated(&prometheus).await {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
        used.extend(names(rule["query"].as_str().unwrap()));
    }
    assert!(used.len() > 20, "{used:?}");
    for name in &used {
        let series = prometheus.query(&format!("count({{__name__=\"{name}\"}})")).await.unwrap();
        assert!(!series.is_empty(), "no binary exports {name}");
    }
    // An alert fires a few evaluations after its data arrived.
    let firing = || async {
        let firing = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await.unwrap();
        let name = |alert: &Value| alert["metric"]["alertname"].as_str().unwrap().to_owned();
        firing.iter().map(name).collect::<BTreeSet<_>>()
    };
    eventually(seconds(60), "an alert tells of the message of no kind", async || {
        firing().await.contains("GenfleetUnrouted")
    })
    .await;
    // Each load contains a message of an unknown kind, failing jobs and an expiring one.
    let wanted = ["GenfleetUnrouted", "GenfleetDeadLettersGrowing", "GenfleetJobsExpired"];
    let firing = firing().await;
    assert!(firing.iter().all(|name| wanted.contains(&name.as_str())), "{firing:?}");
}

/// The configuration of `deploy/prometheus/prometheus.yml`, but faster and without host names.
async fn configuration(fleet: &Fleet) -> String {
    let mut targets = Vec::new();
    for process in &fleet.processes {
        let (address, worker) = (process.admin_addr(seconds(10)).await, process.name());
        targets.push(format!("{{targets: ['{address}'], labels: {{worker: '{worker}'}}}}"));
    }
    let targets = targets.join(", ");
    let rules = deploy("prometheus/rules.yml");
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
         scrape_configs: [{{job_name: genfleet, static_configs: [{targets}]}}]\n",
        rules.display()
    )
}

/// Waits until all rules are evaluated.
async fn evaluated(prometheus: &Prometheus) -> Vec<Value> {
    eventually(seconds(30), "every rule was evaluated", async || {
        let groups = prometheus.rules().await;
        let rules: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        let known = rules.len() == text("prometheus/rules.yml").matches("expr:").count();
        (known && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(rules)
    })
    .await
}

#[test]
fn every_alert_has_a_test_and_a_page_and_says_where() {
    let (rules, tests, runbook) = (text("prometheus/rules.yml"), text("prometheus/rules_test.yml"), text("RUNBOOK.md"));
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let pages: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## Genfleet")).collect();
    let pages: BTreeSet<String> = pages.iter().map(|page| format!("Genfleet{page}")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    assert_eq!(
        alerts.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        pages,
        "alerts, and pages of the runbook"
    );
    for alert in alerts {
        assert!(tests.contains(&format!(r#"alertname="{alert}"}}', value"#)), "no test in which {alert} fires");
        let page = format!("runbook_url: deploy/RUNBOOK.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&page).count(), 1, "{alert} says where its page is");
    }
}

#[test]
fn every_alert_fires_in_its_test_and_none_for_a_fleet_that_is_well() {
    if !Prometheus::available() {
        return;
    }
    for (check, name) in [("rules", "rules.yml"), ("config", "prometheus.yml")] {
        run(&["check", check, path(&deploy(&format!("prometheus/{name}")))]);
    }
    run(&["test", "rules", path(&deploy("prometheus/rules_test.yml"))]);
}

fn run(arguments: &[&str]) {
    let done = Prometheus::promtool(arguments, "");
    let output = [done.stdout, done.stderr].map(|output| String::from_utf8_lossy(&output).into_owned()).concat();
    assert!(done.status.success(), "promtool {}: {output}", arguments.join(" "));
}

/// All queries of the dashboard as Grafana would send them, with the titles of their panels.
fn panel_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("grafana/dashboards/genfleet.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["type"] == "row", panel["targets"].is_null(), "{title} has queries unless it is a row");
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((title.to_owned(), as_sent(target["expr"].as_str().unwrap())));
        }
    }
    found
}

fn as_sent(query: &str) -> String {
    let known = BTreeMap::from([("$kind", ".*"), ("$__rate_interval", "1m")]);
    let sent = known.iter().fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value));
    assert!(!sent.contains('$'), "an unknown variable: {sent}");
    sent
}

fn has_value(series: &Value) -> bool {
    series["value"][1].as_str().is_some_and(|value| value != "NaN")
}

/// The metrics that a query names.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
    let ours = |word: &&str| ["genfleet_", "process_", "kind:", "kind_"].iter().any(|begin| word.starts_with(begin));
    words.filter(ours).map(str::to_owned).collect()
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}
