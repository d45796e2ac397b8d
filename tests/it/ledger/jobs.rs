//! Jobs of all five kinds, in turn. Each succeeds with the simulator, and has a unique effect there.

use std::net::TcpListener;

use serde_json::{Value, json};

/// The kinds, in the order of their workers in [`super::crew::WORKERS`].
pub(super) const KINDS: [&str; 5] =
    ["cdn.purge", "stream.configure", "channel.provision", "vni.provision", "file.scan"];

/// Number of organisations. Jobs of one organisation run one after the other.
const ORGANISATIONS: usize = 40;
const PATHS: usize = 3;

/// A job as its producer knows it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub id: String,
    pub kind: &'static str,
    pub payload: Value,
    /// The text that identifies it in its requests.
    pub mark: String,
}

impl Job {
    /// The message's body.
    pub(super) fn body(&self) -> String {
        json!({"id": self.id, "payload": self.payload}).to_string()
    }

    /// The job as a line of a batch.
    pub(super) fn line(&self) -> String {
        json!({"id": self.id, "kind": self.kind, "payload": self.payload}).to_string()
    }
}

/// Creates job `n`; the kinds alternate. `gateway` is a port that accepts connections.
pub(super) fn job(n: usize, gateway: u16) -> Job {
    let kind = KINDS[n % KINDS.len()];
    let id = format!("{}-{n}", kind.replace('.', "-"));
    let mark = if kind == "file.scan" { file_id(n) } else { id.clone() };
    Job { payload: payload(kind, n, &id, gateway), id, kind, mark }
}

/// The paths of the purge with this id.
pub(super) fn paths(id: &str) -> Vec<String> {
    (0..PATHS).map(|path| format!("/{id}/{path}")).collect()
}

/// The id of a clean file.
pub(super) fn file_id(n: usize) -> String {
    format!("a0000000-0000-4000-8000-{n:012x}")
}

/// Starts a gateway that accepts connections until the end of the test; returns its port.
pub(super) fn gateway() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}

fn payload(kind: &str, n: usize, id: &str, gateway: u16) -> Value {
    match kind {
        "cdn.purge" => json!({"paths": paths(id)}),
        "stream.configure" => json!({
            "sourceId": id,
            "configuration": {
                "awsAccountId": "123456789012", "roleArn": "arn:aws:iam::123456789012:role/genesys", "region": "us-east-1",
            },
            "filters": [{"eventType": "conversation.created", "conditions": []}],
            "transformations": [],
            "attributeMappings": [],
        }),
        "channel.provision" => json!({
            "name": id, "queueId": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "routingEmail": "chat@example.com",
            "security": {"allowedDomains": ["example.com"]},
        }),
        "vni.provision" => {
            let (subnet, organisation) = (format!("10.{}.{}", n / 256, n % 256), n / KINDS.len() % ORGANISATIONS);
            json!({
                "name": id, "organizationId": format!("00000000-0000-4000-8000-{organisation:012}"),
                "localIp": format!("{subnet}.1"), "subnetCidr": format!("{subnet}.0/24"), "remoteIp": "127.0.0.1",
                "gatewayPort": gateway, "dnsServers": ["8.8.8.8"], "routingTableId": format!("rt-{id}"),
            })
        }
        _ => json!({"fileId": file_id(n), "scanEngine": "standard", "quarantineAction": "auto_quarantine"}),
    }
}
