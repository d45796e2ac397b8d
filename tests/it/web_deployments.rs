//! Web deployments on a real broker: a death makes no second one; the vendor's own client judges the requests and works with
//! the simulator.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Launch, Prefix, encrypt, eventually, json_properties, seconds, skip};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::stack::{outcomes, simulator_with, worker};

const KIND: &str = "webdeployment.provision";
const FLOW: &str = "0b9a8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d";
const QUEUE: &str = "6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e";

fn job(id: &str, change: &Value) -> String {
    let mut payload = json!({
        "name": id, "flowId": FLOW, "queueId": QUEUE, "allowedDomains": ["shop.example"], "description": "Spring",
        "supportedContentId": QUEUE,
        "configuration": {"document": {
            "languages": ["en-us"], "defaultLanguage": "en-us", "description": "Looks", "headlessMode": {"enabled": false},
            "customI18nLabels": [{"language": "en-us", "localizedLabels": [{"key": "MessengerHomeHeaderTitle", "value": "Hello"}]}],
            "messenger": {"enabled": true, "launcherButton": {"visibility": "On"}, "styles": {"primaryColor": "#2A60C8"}},
            "position": {"alignment": "Right", "sideSpace": 20, "bottomSpace": 20},
        }},
    });
    payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"id": id, "kind": KIND, "payload": payload}).to_string()
}

fn provisioner(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    worker("channel-provisioner", broker, prefix, simulator)
        .args(["--kinds", KIND])
        .env("GENESYS_CDN_URL", &simulator.base_url())
}

async fn platform() -> Simulator {
    let simulator = simulator_with(SimulatorOptions::default()).await;
    let change = json!({"flows": {FLOW: {"queues": [QUEUE]}}, "pendingMs": 300});
    simulator.set("webDeployments", &change).unwrap();
    simulator
}

fn made(simulator: &Simulator) -> (usize, usize) {
    let state = simulator.state();
    let count = |what: &str| state["webDeployments"][what].as_array().unwrap().len();
    (count("configurations"), count("deployments"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_in_the_middle_leaves_one_deployment_to_the_next() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = platform().await;
    // The deployment is made, its answer hangs, and reads lag.
    simulator.set("webDeployments", &json!({"readLagMs": 3000})).unwrap();
    let hang = "hang,effect=true,method=POST,path=/api/v2/webdeployments/deployments,times=1";
    simulator.set_faults(vec![hang.parse().unwrap()]);
    let working = provisioner(broker, &prefix, &simulator).start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("shop", &json!({})), json_properties()).await;
    eventually(seconds(60), "the deployment is made", async || made(&simulator) == (1, 1)).await;
    working.kill9();
    let _next = provisioner(broker, &prefix, &simulator).start();

    let by_job = outcomes(&mut events, 1, seconds(120)).await;
    let data = &by_job["shop"][0]["data"];
    assert_eq!((&data["outcome"], &data["action"]), (&json!("succeeded"), &json!("webdeployment.published")), "{data}");
    assert_eq!((&data["report"]["adopted"], made(&simulator)), (&json!(true), (1, 1)), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_browsers_read_is_trusted_by_the_authority_of_the_ca_file() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = platform().await;
    let (port, authority) = encrypt(simulator.base_url().rsplit_once(':').unwrap().1.parse().unwrap()).await;
    let working = provisioner(broker, &prefix, &simulator)
        .env("GENESYS_CDN_URL", &format!("https://127.0.0.1:{port}"))
        .env("GENESYS_CA_FILE", authority.to_str().unwrap())
        .args(["--edge-timeout", "20s"])
        .start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("shop", &json!({})), json_properties()).await;
    let data = &outcomes(&mut events, 1, seconds(120)).await["shop"][0]["data"];
    assert_eq!(data["report"]["edgeVerified"], true, "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_client_knows_every_request_and_works_with_the_simulator() {
    let Some(python) = vendors_client().await else {
        return skip("the vendor's Python client cannot be installed here");
    };
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = platform().await;
    let working = provisioner(broker, &prefix, &simulator).start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("shop", &json!({})), json_properties()).await;
    let made = &outcomes(&mut events, 1, seconds(120)).await["shop"][0]["data"]["report"];
    let configuration = json!({"id": made["configurationId"], "document": {"position": {"alignment": "Left"}}});
    let update = json!({"onExisting": "update", "name": "shop", "configuration": configuration, "status": "Active"});
    amqp.publish_job(&prefix, KIND, job("update", &update), json_properties()).await;
    let updated = &outcomes(&mut events, 1, seconds(120)).await["update"][0]["data"];
    assert_eq!((&updated["outcome"], &updated["report"]["updated"]), (&json!("succeeded"), &json!(true)), "{updated}");
    // A configuration that is removed again.
    let fault = "status=422,method=POST,path=/api/v2/webdeployments/deployments";
    simulator.set_faults(vec![fault.parse().unwrap()]);
    amqp.publish_job(&prefix, KIND, job("refused", &json!({})), json_properties()).await;
    let refused = &outcomes(&mut events, 1, seconds(120)).await["refused"][0]["data"]["error"];
    assert_eq!((&refused["code"], &refused["rolledBack"]), (&json!("rejected"), &json!(true)), "{refused}");
    simulator.set_faults(Vec::new());

    let sent = simulator.requests().into_iter().filter(|request| request.path.starts_with("/api/"));
    let requests: Vec<Value> =
        sent.map(|one| json!({"method": one.method, "path": one.path, "query": one.query, "body": one.body})).collect();
    let verbs: Vec<&str> = requests.iter().map(|request| request["method"].as_str().unwrap()).collect();
    assert!(["GET", "POST", "PUT", "DELETE"].iter().all(|verb| verbs.contains(verb)), "{verbs:?}");
    simulator.set("webDeployments", &json!({"pendingMs": 0})).unwrap();
    let given = json!({"url": simulator.base_url(), "requests": requests, "flow": FLOW});
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/web_deployments.py");
    let mut child = tokio::process::Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).await.unwrap();
    let ended = child.wait_with_output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}");
}

/// A Python with the vendor's client, beside the build.
async fn vendors_client() -> Option<PathBuf> {
    let install = || {
        let executable = std::env::current_exe().unwrap();
        let folder = executable.ancestors().nth(3).unwrap().join("tmp/vendors-client");
        let python = folder.join("bin/python");
        let succeeds = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
            output.is_ok_and(|output| output.status.success())
        };
        let there = python.exists() || succeeds(Path::new("python3"), &["-m", "venv", folder.to_str().unwrap()]);
        let install = ["-m", "pip", "install", "--disable-pip-version-check", "PureCloudPlatformClientV2==269.0.0"];
        let known = ["-c", "import PureCloudPlatformClientV2"];
        (there && (succeeds(&python, &known) || succeeds(&python, &install))).then_some(python)
    };
    tokio::task::spawn_blocking(install).await.unwrap()
}
