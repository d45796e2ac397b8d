//! Deployment files that list the workers or their kinds: written from the table of kinds by `deploy/generate`, and
//! compared here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod made;

use genfleet_job::Kind;
use made::{assert_made, text};

fn each(line: impl Fn(&str) -> String) -> String {
    Kind::workers().map(line).collect()
}

/// `file` with what stands between two of its lines replaced.
fn assert_section(file: &str, after: &str, before: &str, section: &str) {
    let text = text(file);
    let (head, rest) = text.split_once(after).unwrap_or_else(|| panic!("{file} has no line {after:?}"));
    let (_, tail) = rest.split_once(before).unwrap_or_else(|| panic!("{file} has no line {before:?}"));
    assert_made(file, &format!("{head}{after}{section}{before}{tail}"));
}

#[test]
fn compose_runs_every_worker() {
    let service = |worker: &str| format!("  {worker}:\n    <<: *worker\n    command: [{worker}]\n\n");
    assert_section(
        "docker-compose.yml",
        "\nservices:\n",
        "  # docker compose run --rm genfleet status",
        &each(service),
    );
}

#[test]
fn kubernetes_runs_every_worker() {
    let folders = each(|worker| format!("  - {worker}\n"));
    assert_section("deploy/kubernetes/base/kustomization.yaml", "  - namespace.yaml\n", "  - network.yaml\n", &folders);
    for worker in Kind::workers() {
        let file = format!("deploy/kubernetes/base/{worker}/kustomization.yaml");
        // What is there may differ from the others by hand.
        if text(&file).is_empty() {
            assert_made(&file, &kustomization(worker));
        }
        assert!(text(&file).contains(&format!("[{worker}]")), "{file} starts another worker");
    }
}

fn kustomization(worker: &str) -> String {
    let exclusive =
        "# One process of the fleet works this kind, the other stands by: two are enough, more do nothing.\n";
    let works_alone = Kind::of_producers().filter(|kind| kind.worker() == worker).all(Kind::is_exclusive);
    let head = if works_alone { exclusive } else { "" };
    format!(
        "{head}apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../worker]
nameSuffix: -{worker}
labels:
  - pairs: {{app.kubernetes.io/name: {worker}}}
    includeSelectors: true
    includeTemplates: true
patches:
  - target: {{kind: Deployment}}
    patch: |
      - {{op: replace, path: /spec/template/spec/containers/0/command, value: [{worker}]}}
"
    )
}

#[test]
fn prometheus_scrapes_every_worker() {
    let names: Vec<&str> = Kind::workers().collect();
    assert_section("deploy/prometheus/prometheus.yml", "      - names: [", "]\n", &names.join(", "));
}

/// An alert fires if nobody works a kind; the Prometheus operator gets the same rules as the other one.
#[test]
fn every_kind_that_nobody_works_is_noticed() {
    let wanted = Kind::of_producers().filter(|kind| !kind.is_optional());
    let absent = wanted.map(|kind| format!("absent(genfleet_jobs_in_flight{{kind=\"{kind}\"}})\n"));
    let absent = absent.collect::<Vec<_>>().join("          or ");
    let before = "        expr: |\n          ";
    assert_section(
        "deploy/prometheus/rules.yml",
        &format!("      - alert: GenfleetNoWorker\n{before}"),
        "        for: 5m\n",
        &absent,
    );
    let indented = |line: &str| if line.is_empty() { String::new() } else { format!("  {line}") };
    let rules: Vec<String> = text("deploy/prometheus/rules.yml").lines().map(indented).collect();
    let head = "# deploy/prometheus/rules.yml for the Prometheus operator, written by deploy/generate.\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: genfleet\nspec:\n";
    assert_made("deploy/kubernetes/components/monitoring/rules.yaml", &format!("{head}{}\n", rules.join("\n")));
}
