//! The jobs of the benchmark: one form for each kind.

use std::ops::Range;

use serde_json::{Value, json};

/// The jobs of a measurement.
#[derive(Clone, Copy, PartialEq)]
pub enum Jobs {
    /// Purges of this number of paths.
    Purges {
        paths: usize,
    },
    Streams,
    Channels,
    Interfaces,
    Scans,
}

impl Jobs {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Purges { .. } => "cdn.purge",
            Self::Streams => "stream.configure",
            Self::Channels => "channel.provision",
            Self::Interfaces => "vni.provision",
            Self::Scans => "file.scan",
        }
    }

    /// Name of the worker's binary.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Purges { .. } => "purger",
            Self::Streams => "stream-configurator",
            Self::Channels => "channel-provisioner",
            Self::Interfaces => "vni-provisioner",
            Self::Scans => "scan-monitor",
        }
    }

    /// Arguments without which the worker would wait for the platform, refuse jobs or refuse the local gateway.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Purges { .. } | Self::Streams | Self::Scans => &[],
            Self::Channels => &["--takeover-wait", "0s", "--license-limit", "1000000"],
            Self::Interfaces => &["--takeover-wait", "0s", "--gateway-allow", "127.0.0.0/8"],
        }
    }

    /// Jobs that Genfleet has in flight by default. Scans hold no slot while they wait.
    pub fn in_flight(self) -> u16 {
        match self {
            Self::Purges { .. } => 256,
            Self::Streams => 64,
            Self::Channels | Self::Interfaces => 8,
            Self::Scans => u16::MAX,
        }
    }

    /// The requests of a job that are not sent at the same time as those of another job: a licence is counted and used
    /// by one job at a time, and one scan is ordered at a time.
    pub fn alone(self) -> Range<usize> {
        match self {
            Self::Channels => 2..4,
            Self::Scans => 0..1,
            Self::Purges { .. } | Self::Streams | Self::Interfaces => 0..0,
        }
    }

    /// A job. Its gateway is on the local port `gateway`.
    pub fn body(self, number: usize, gateway: u16) -> String {
        let payload = self.payload(number, gateway);
        json!({ "id": format!("job-{number:010}"), "kind": self.kind(), "payload": payload }).to_string()
    }

    fn payload(self, number: usize, gateway: u16) -> Value {
        let id = format!("a0000000-0000-4000-8000-{number:012x}");
        match self {
            Self::Purges { paths } => {
                let path = |at| format!("/static/custom-apps/v2/tenant-{:05}/bundle-{at:08}.js", number % 997);
                json!({ "paths": (number * paths..(number + 1) * paths).map(path).collect::<Vec<_>>() })
            }
            Self::Streams => json!({
                "sourceId": format!("source-{number}"),
                "configuration": {
                    "awsAccountId": "123456789012",
                    "roleArn": "arn:aws:iam::123456789012:role/genesys",
                    "region": "us-east-1",
                },
                "filters": [{ "eventType": "conversation.created", "conditions": [
                    { "field": "metadata.source", "operator": "eq", "value": "web" },
                ] }],
                "transformations": [
                    { "sourceField": "participants", "targetField": "agentIds", "type": "extract", "path": "[].id" },
                ],
                "sampleEvent": { "participants": [{ "id": "agent-456" }] },
            }),
            Self::Channels => json!({
                "queueId": id,
                "routingEmail": "chat@example.com",
                "security": { "allowedDomains": ["example.com"] },
            }),
            // An organisation has one job at a time, and each job its own organisation.
            Self::Interfaces => json!({
                "name": format!("interface-{number}"),
                "organizationId": id,
                "localIp": "10.0.0.1",
                "subnetCidr": "10.0.0.0/16",
                "remoteIp": "127.0.0.1",
                "gatewayPort": gateway,
                "dnsServers": ["8.8.8.8"],
                "routingTableId": format!("table-{number}"),
            }),
            Self::Scans => json!({ "fileId": id, "scanEngine": "standard", "quarantineAction": "auto_quarantine" }),
        }
    }
}
