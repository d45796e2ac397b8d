//! The files in `deploy/` agree with each other and with the binaries, so that a renamed setting or a changed default is
//! noticed.

use std::{collections::BTreeSet, fs, path::PathBuf};

use genfleet_core::handler::JobHandler;
use genfleet_purger::Purger;
use harness::{Process, seconds};
use serde_json::Value;

/// The files that define processes and their settings.
const SETTINGS: [&str; 9] = [
    "../docker-compose.yml",
    "docker/Dockerfile",
    "docker/prepare",
    "kubernetes/base/kustomization.yaml",
    "kubernetes/base/worker/deployment.yaml",
    "kubernetes/base/vni-provisioner/kustomization.yaml",
    "kubernetes/overlays/production/kustomization.yaml",
    "kubernetes/overlays/simulate/kustomization.yaml",
    "kubernetes/tool/deployment.yaml",
];

/// The path of a file.
pub(crate) fn deploy(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(name)
}

/// The content of a file.
pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

/// The image contains every binary. They are copied from the build's folder, not by name.
#[test]
fn the_image_has_every_binary() {
    assert!(text("docker/Dockerfile").contains("find target/dist -maxdepth 1 -type f -executable"));
}

#[tokio::test]
async fn every_setting_that_is_named_exists() {
    let mut known = BTreeSet::new();
    for arguments in [["up", "--help"], ["health", "--help"], ["doctor", "--help"]] {
        known.extend(variables(&help("genfleet", &arguments).await));
    }
    // Secrets are set by a variable, or by the file that it names.
    known.extend(known.clone().iter().map(|variable| format!("{variable}_FILE")));
    // Used by compose itself.
    known.extend(["GENFLEET_VERSION", "GENFLEET_REVISION"].map(str::to_owned));
    for name in SETTINGS {
        let unknown: Vec<String> = variables(&text(name)).into_iter().filter(|each| !known.contains(each)).collect();
        assert!(unknown.is_empty(), "deploy/{name} sets what no binary knows: {unknown:?}");
    }
}

#[tokio::test]
async fn a_process_that_is_stopped_has_more_time_than_it_takes_to_drain() {
    let help = help("purger", &["--help"]).await;
    let drain = after(&after(&help, "GENFLEET_DRAIN_TIMEOUT="), "[default: ");
    let drain = number(&drain);
    assert_eq!(number(&after(&text("kubernetes/base/kustomization.yaml"), "GENFLEET_DRAIN_TIMEOUT=")), drain);
    assert!(number(&after(&text("kubernetes/base/worker/deployment.yaml"), "terminationGracePeriodSeconds: ")) > drain);
    assert!(number(&after(&text("../docker-compose.yml"), "stop_grace_period: ")) > drain);
}

#[test]
fn a_worker_has_the_same_memory_in_compose_and_on_kubernetes_and_it_holds_what_a_purger_is_handed() {
    const LANES: u64 = 2;
    const REST_MIB: u64 = 64;
    let compose = after(&text("../docker-compose.yml"), "x-worker: &worker");
    let base = after(&text("kubernetes/base/worker/deployment.yaml"), "limits: {memory: ");
    assert_eq!(number(&after(&compose, "memory: ")), number(&base));
    let largest = number(&after(&text("rabbitmq/rabbitmq.conf"), "max_message_size = "));
    let handed_over = LANES * Purger::CONCURRENCY as u64 * largest;
    assert!(number(&base) >= handed_over / (1 << 20) + REST_MIB);
}

#[test]
fn the_operators_users_have_the_rights_of_the_definitions() {
    let definitions: Value = serde_json::from_str(&text("rabbitmq/definitions.json")).unwrap();
    let users = text("kubernetes/topology/users.yaml");
    let made = text("docker/prepare");
    for permission in definitions["permissions"].as_array().unwrap() {
        let of = |member: &str| permission[member].as_str().unwrap();
        let rights = format!(
            "  userReference: {{name: {}}}\n  permissions:\n    configure: '{}'\n    write: '{}'\n    read: '{}'\n",
            of("user"),
            of("configure"),
            of("write"),
            of("read")
        );
        assert!(users.contains(&rights), "{rights}");
        let user = of("user").strip_prefix("genfleet-").unwrap();
        let made = made.lines().any(|line| line.starts_with("  for user in ") && line.contains(user));
        assert!(made, "deploy/docker/prepare makes no password for {user}");
    }
    // An import of the definitions gives rights to these users, and fails if one does not exist.
    let runbook = text("RUNBOOK.md");
    for user in definitions["permissions"].as_array().unwrap().iter().map(|each| each["user"].as_str().unwrap()) {
        let commands =
            |command: &str| runbook.lines().any(|line| line.trim().starts_with(&format!("{command} {user}")));
        assert!(commands("rabbitmqctl add_user"), "{user}");
        let deleted = format!("rabbitmqctl delete_user {user}");
        assert!(!runbook.lines().any(|line| line.trim() == deleted), "{deleted}");
    }
    assert!(runbook.contains("rabbitmqctl set_user_tags genfleet-scaler management"));
    for policy in definitions["policies"].as_array().unwrap() {
        assert!(users.contains(&format!("  pattern: '{}'\n", policy["pattern"].as_str().unwrap())), "{policy}");
    }
}

/// The broker's configuration in compose and on Kubernetes.
#[test]
fn the_operators_broker_is_configured_as_the_other_one() {
    let cluster = text("kubernetes/overlays/simulate/rabbitmq.yaml");
    let conf = text("rabbitmq/rabbitmq.conf");
    let settings = conf.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    // Other files there belong to the operators.
    for setting in settings.filter(|line| !line.starts_with("load_definitions")) {
        assert!(cluster.contains(&format!("      {setting}\n")), "{setting}");
    }
    let advanced = text("rabbitmq/advanced.config");
    let term = advanced.lines().find(|line| !line.starts_with("%%")).unwrap();
    assert!(cluster.contains(&format!("      {term}\n")), "{term}");
    for file in ["rabbitmq.conf", "advanced.config", "definitions.json", "replies.json"] {
        assert!(text("../docker-compose.yml").contains(&format!("./deploy/rabbitmq/{file}:/etc/rabbitmq/")), "{file}");
    }
}

/// `replies.json` gives the workers' user one more right than the definitions.
#[test]
fn answers_cost_one_right_and_are_switched_on_by_a_file_of_their_own() {
    let read = |name: &str| serde_json::from_str::<Value>(&text(name)).unwrap();
    let of_worker = |definitions: &Value| {
        let all = definitions["permissions"].as_array().unwrap().clone();
        all.into_iter().find(|each| each["user"] == "genfleet-worker").unwrap()
    };
    let (without, with) = (of_worker(&read("rabbitmq/definitions.json")), read("rabbitmq/replies.json"));
    assert_eq!(with["permissions"].as_array().unwrap().len(), 1);
    let with = of_worker(&with);
    let write = without["write"].as_str().unwrap();
    assert!(!write.contains("default"), "{write}");
    assert_eq!(with["write"], write.replace(r"amq\.gen-", r"amq\.(default$|gen-)"));
    for same in ["vhost", "configure", "read"] {
        assert_eq!(with[same], without[same], "{same}");
    }
    let runbook = text("RUNBOOK.md");
    for rights in [&without, &with] {
        let output = ["configure", "write", "read"].map(|member| format!("'{}'", rights[member].as_str().unwrap()));
        assert!(runbook.contains(&output.join(" ")), "the runbook's command gives {output:?}");
        let second = format!("set_permissions -p genfleet genfleet-worker-2 {}", output.join(" "));
        assert!(runbook.contains(&second), "whoever stands in may do the same: {output:?}");
    }
}

async fn help(binary: &str, arguments: &[&str]) -> String {
    let process = Process::binary(binary).args(arguments.iter().copied()).start();
    assert_eq!(process.wait(seconds(10)).await, 0);
    process.stdout_lines().join("\n")
}

/// Finds every `GENFLEET_…` and `GENESYS_…` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'));
    let ours = words.filter(|word| ["GENFLEET_", "GENESYS_"].iter().any(|begin| word.starts_with(begin)));
    ours.filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
}

fn after(text: &str, what: &str) -> String {
    let (_, rest) = text.split_once(what).unwrap_or_else(|| panic!("no {what:?}"));
    rest.to_owned()
}

/// Parses the number at the beginning of a text.
fn number(text: &str) -> u64 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number: {:?}", text.lines().next()))
}
