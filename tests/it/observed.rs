//! A fleet for tests of metrics: the binaries of all workers, and a load with known results.

use std::time::{SystemTime, UNIX_EPOCH};

use genfleet_core::job::Kind;
use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, Process, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{outcomes, purge_job, simulator_with, worker};

/// The kinds that are worked with any settings, each with its binary.
pub(crate) fn worked() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = Kind::of_producers().filter(|kind| !kind.is_optional());
    kinds.map(|kind| (kind.worker(), kind.as_str()))
}

/// Number of jobs of the load for each kind, outcome and code.
pub(crate) const ENDINGS: [(&str, &str, &str, u64); 13] = [
    ("cdn.purge", "succeeded", "", 20),
    ("cdn.purge", "failed", "undecodable", 1),
    ("cdn.purge", "failed", "invalid_job", 1),
    ("cdn.purge", "failed", "kind_mismatch", 1),
    ("cdn.purge", "expired", "deadline_passed", 1),
    ("stream.configure", "succeeded", "", 3),
    ("stream.configure", "failed", "rejected", 1),
    ("channel.provision", "succeeded", "", 2),
    ("channel.provision", "failed", "license_limit_reached", 1),
    ("vni.provision", "succeeded", "", 2),
    ("vni.provision", "failed", "gateway_refused", 1),
    ("file.scan", "succeeded", "", 2),
    ("file.scan", "failed", "scan_failed", 1),
];

/// Time that the jobs of the load had waited before they were published, in seconds.
pub(crate) const AGE: u64 = 600;

pub(crate) struct Fleet {
    pub broker: &'static Broker,
    // Dropped after the processes that use it.
    pub processes: Vec<Process>,
    pub prefix: Prefix,
    pub simulator: Simulator,
    _gateway: std::net::TcpListener,
    gateway_port: u16,
}

impl Fleet {
    /// Starts a ready fleet. Queue lengths are updated every two seconds instead of every ten.
    pub(crate) async fn start() -> Self {
        let broker = Broker::shared().await;
        let prefix = Prefix::on(broker);
        let faults = [
            "status=503,times=1,path=/api/v2/external/cdn/purge",
            "status=400,path=/api/v2/configuration/event-streams/refused",
        ];
        let faults = faults.iter().map(|rule| rule.parse().unwrap()).collect();
        let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
        simulator.set("files", &json!({"scanMs": 300})).unwrap();
        let gateway = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway_port = gateway.local_addr().unwrap().port();
        let own = |binary: &str| match binary {
            "channel-provisioner" => ["--license-limit", "2"].as_slice(),
            "vni-provisioner" => &["--gateway-allow", "127.0.0.1/32", "--routing-poll-interval", "100ms"],
            "scan-monitor" => &["--poll-interval", "1s"],
            _ => &[],
        };
        let start = |binary: &str| {
            let launch = worker(binary, broker, &prefix, &simulator).args(["--queue-watchdog", "8s"]);
            launch.args(own(binary).iter().copied()).start()
        };
        let processes: Vec<Process> = Kind::workers().map(start).collect();
        for process in &processes {
            process.wait_ready(seconds(30)).await;
        }
        Self { broker, processes, prefix, simulator, _gateway: gateway, gateway_port }
    }

    /// Publishes the load and a message of an unknown kind, and waits until all jobs have ended.
    pub(crate) async fn work(&self) {
        let amqp = Amqp::connect(self.broker.url()).await;
        let mut events = amqp.declare_events_queue(&self.prefix).await;
        let sent = now() - AGE;
        for (kind, body) in self.load() {
            amqp.publish_job(&self.prefix, kind, body, json_properties().with_timestamp(sent)).await;
        }
        amqp.publish_job(&self.prefix, "no.such.kind", "{}", json_properties()).await;
        let jobs = ENDINGS.iter().map(|(.., count)| count).sum::<u64>();
        // And the event of the unknown kind.
        outcomes(&mut events, usize::try_from(jobs).unwrap() + 1, seconds(60)).await;
    }

    fn load(&self) -> Vec<(&'static str, String)> {
        let mut load: Vec<(&str, String)> = Vec::new();
        load.extend((0..20).map(|n| ("cdn.purge", purge_job(&format!("purge-{n}"), &[&format!("/{n}")]))));
        load.push(("cdn.purge", "not JSON".to_owned()));
        load.push(("cdn.purge", purge_job("invalid", &["no slash"])));
        load.push(("cdn.purge", job("mismatched", "file.scan", &json!({"paths": ["/a"]}))));
        load.push(("cdn.purge", expired().to_string()));
        load.extend(["a", "b", "c", "refused"].map(|source| ("stream.configure", stream(source))));
        load.extend((0..3).map(|n| ("channel.provision", channel(n))));
        load.extend([1, 2].map(|n| ("vni.provision", vni(n, "127.0.0.1", self.gateway_port))));
        load.push(("vni.provision", vni(3, "169.254.169.254", self.gateway_port)));
        load.extend(["a", "e", "f"].map(|first| ("file.scan", scan(first))));
        load
    }
}

/// Interface `n`, with its own organisation and network.
pub(crate) fn vni(n: usize, gateway: &str, port: u16) -> String {
    let payload = json!({
        "name": format!("vni-{n}"), "organizationId": format!("00000000-0000-4000-8000-00000000000{n}"),
        "localIp": format!("10.{n}.0.1"), "subnetCidr": format!("10.{n}.0.0/16"), "remoteIp": gateway,
        "gatewayPort": port, "dnsServers": ["8.8.8.8"], "routingTableId": format!("rt-{n}"),
    });
    job(&format!("vni-{n}"), "vni.provision", &payload)
}

fn job(id: &str, kind: &str, payload: &Value) -> String {
    json!({"id": id, "kind": kind, "payload": payload}).to_string()
}

fn expired() -> Value {
    json!({"id": "expired", "deadline": "2020-01-01T00:00:00Z", "payload": {"paths": ["/late"]}})
}

pub(crate) fn stream(source: &str) -> String {
    let configuration = json!({
        "awsAccountId": "123456789012", "roleArn": "arn:aws:iam::123456789012:role/genesys", "region": "us-east-1",
    });
    let payload = json!({
        "sourceId": source, "configuration": configuration,
        "filters": [{"eventType": "conversation.created", "conditions": []}],
        "transformations": [], "attributeMappings": [],
    });
    job(&format!("stream-{source}"), "stream.configure", &payload)
}

pub(crate) fn channel(n: usize) -> String {
    let payload = json!({
        "queueId": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "routingEmail": "chat@example.com",
        "security": {"allowedDomains": ["example.com"]},
    });
    job(&format!("channel-{n}"), "channel.provision", &payload)
}

/// The simulator determines the result of a scan from the first digit of the file's id.
fn scan(first: &str) -> String {
    scan_of(&format!("scan-{first}"), &format!("{first}0000000-0000-4000-8000-000000000001"))
}

pub(crate) fn scan_of(id: &str, file: &str) -> String {
    let payload = json!({"fileId": file, "scanEngine": "standard", "quarantineAction": "auto_quarantine"});
    job(id, "file.scan", &payload)
}

#[expect(clippy::disallowed_methods, reason = "a producer stamps its messages")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
