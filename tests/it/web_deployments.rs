//! Web deployments on a real broker: a death makes no second one; the vendor's own client judges the requests and works with
//! the simulator.

use std::path::Path;

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Launch, Prefix, Python, encrypt, eventually, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{Stack, outcomes, simulator_with, worker};

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
    let simulator = platform().await;
    // The deployment is made, its answer hangs, and reads lag.
    simulator.set("webDeployments", &json!({"readLagMs": 3000})).unwrap();
    let hang = "hang,effect=true,method=POST,path=/api/v2/webdeployments/deployments,times=1";
    simulator.set_faults(vec![hang.parse().unwrap()]);
    let mut stack = Stack::start(simulator, provisioner).await;
    stack.publish(KIND, job("shop", &json!({}))).await;
    eventually(seconds(60), "the deployment is made", async || made(&stack.simulator) == (1, 1)).await;
    stack.process.kill9();
    stack.start_another();

    let by_job = stack.outcomes(1, seconds(120)).await;
    let data = &by_job["shop"][0]["data"];
    assert_eq!((&data["outcome"], &data["action"]), (&json!("succeeded"), &json!("webdeployment.published")), "{data}");
    assert_eq!((&data["report"]["adopted"], made(&stack.simulator)), (&json!(true), (1, 1)), "{data}");
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
    let Some(python) = Python::with("web-deployments", &["PureCloudPlatformClientV2==269.0.0"]).await else { return };
    let mut stack = Stack::start(platform().await, provisioner).await;
    stack.publish(KIND, job("shop", &json!({}))).await;
    let made = &stack.outcomes(1, seconds(120)).await["shop"][0]["data"]["report"];
    let configuration = json!({"id": made["configurationId"], "document": {"position": {"alignment": "Left"}}});
    let update = json!({"onExisting": "update", "name": "shop", "configuration": configuration, "status": "Active"});
    stack.publish(KIND, job("update", &update)).await;
    let updated = &stack.outcomes(1, seconds(120)).await["update"][0]["data"];
    assert_eq!((&updated["outcome"], &updated["report"]["updated"]), (&json!("succeeded"), &json!(true)), "{updated}");
    // A configuration that is removed again.
    let fault = "status=422,method=POST,path=/api/v2/webdeployments/deployments";
    stack.simulator.set_faults(vec![fault.parse().unwrap()]);
    stack.publish(KIND, job("refused", &json!({}))).await;
    let refused = &stack.outcomes(1, seconds(120)).await["refused"][0]["data"]["error"];
    assert_eq!((&refused["code"], &refused["rolledBack"]), (&json!("rejected"), &json!(true)), "{refused}");
    stack.simulator.set_faults(Vec::new());

    let sent = stack.simulator.requests().into_iter().filter(|request| request.path.starts_with("/api/"));
    let requests: Vec<Value> =
        sent.map(|one| json!({"method": one.method, "path": one.path, "query": one.query, "body": one.body})).collect();
    let verbs: Vec<&str> = requests.iter().map(|request| request["method"].as_str().unwrap()).collect();
    assert!(["GET", "POST", "PUT", "DELETE"].iter().all(|verb| verbs.contains(verb)), "{verbs:?}");
    stack.simulator.set("webDeployments", &json!({"pendingMs": 0})).unwrap();
    let given = json!({"url": stack.simulator.base_url(), "requests": requests, "flow": FLOW});
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/web_deployments.py");
    python.run(&script, &[], &given.to_string()).await;
}
