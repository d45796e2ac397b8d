//! What the tests of `media.scan` begin with: a broker, a simulator, a host of files, and a scan-monitor on an engine.

use genfleet_simulator::Simulator;
use harness::{Amqp, Broker, Events, Prefix, Process, eventually, json_properties, seconds};
use serde_json::{Value, json};

use super::files::Files;
use crate::stack::{simulator, worker};

/// The limit of the tests; a file of exactly this length is scanned.
pub(crate) const MOST_BYTES: usize = 100_000;

/// A scan-monitor, and all that it needs.
pub(crate) struct Rig {
    pub(crate) simulator: Simulator,
    pub(crate) files: Files,
    pub(crate) process: Process,
    amqp: Amqp,
    pub(crate) events: Events,
    prefix: Prefix,
}

impl Rig {
    pub(crate) async fn start(engine: &str, arguments: &[&str]) -> Self {
        let rig = Self::unready(engine, arguments).await;
        rig.process.wait_ready(seconds(60)).await;
        rig
    }

    pub(crate) async fn unready(engine: &str, arguments: &[&str]) -> Self {
        let broker = Broker::shared().await;
        let prefix = Prefix::on(broker);
        let (simulator, files) = (simulator().await, Files::start().await);
        let most = MOST_BYTES.to_string();
        let process = worker("scan-monitor", broker, &prefix, &simulator)
            .args(["--kinds", "media.scan", "--scanner", "clamd", "--scanner-address", engine])
            .args(["--media-hosts", "127.0.0.1,127.0.0.2", "--media-allow", "127.0.0.1"])
            .args(["--retry-initial", "50ms"])
            .env("GENFLEET_SCAN_MAX_BYTES", &most)
            .args(arguments.iter().copied())
            .start();
        let amqp = Amqp::connect(broker.url()).await;
        amqp.wait_for_consumer(&format!("{prefix}.jobs.unknown")).await;
        let events = amqp.declare_events_queue(&prefix).await;
        Self { simulator, files, process, amqp, events, prefix }
    }

    pub(crate) async fn send(&self, id: &str, payload: &Value, attempts: u32) {
        let job = json!({"id": id, "payload": payload, "maxAttempts": attempts}).to_string();
        self.amqp.publish_job(&self.prefix, "media.scan", job, json_properties()).await;
    }

    /// Runs one job; the data of its event.
    pub(crate) async fn run(&mut self, id: &str, payload: &Value) -> Value {
        self.send(id, payload, 3).await;
        self.end(id).await
    }

    async fn end(&mut self, id: &str) -> Value {
        let event = self.events.next_event(seconds(60)).await;
        assert_eq!(event["subject"], id, "{event}");
        event["data"].clone()
    }

    /// Scans the file behind a link.
    pub(crate) async fn scan(&mut self, id: &str, link: &str) -> Value {
        self.run(id, &json!({"source": {"url": link}})).await
    }

    /// Waits until the process is not ready for this reason.
    pub(crate) async fn held(&self, reason: &str) {
        eventually(seconds(30), "the hold is told", async || {
            let (status, body) = self.process.ready().await;
            status == 503 && body["reasons"].to_string().contains(reason)
        })
        .await;
        let gate = self.process.metrics().await.count("genfleet_gate_state", &[("reason", reason)]);
        assert_eq!(gate, 1, "{reason}");
    }
}

/// A zip file with one entry that is not compressed; with flag 1 it counts as encrypted.
pub(crate) fn zip(content: &[u8], flags: u16) -> Vec<u8> {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    let crc = !content.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    let length = u32::try_from(content.len()).unwrap();
    let head = [10_u16, flags, 0, 0, 33].map(u16::to_le_bytes).concat();
    let sizes = [crc, length, length].map(u32::to_le_bytes).concat();
    let common = [head, sizes, [1_u16, 0].map(u16::to_le_bytes).concat()].concat();
    let local = [b"PK\x03\x04".as_slice(), &common, b"a", content].concat();
    let central = [b"PK\x01\x02\x0a\x00".as_slice(), &common, &[0; 14], b"a"].concat();
    let sizes = [central.len(), local.len()].map(|part| u32::try_from(part).unwrap().to_le_bytes()).concat();
    [local, central, b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec(), sizes, vec![0, 0]].concat()
}
