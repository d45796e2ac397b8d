//! The broker's nodes: which are running, which have an alarm, and which cannot reach the others.

use serde::Deserialize;

use super::finding::{Check, Finding, size};

const CHECK: &str = "broker.nodes";

/// A node as `/api/nodes` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub name: String,
    #[serde(default)]
    pub running: bool,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default)]
    mem_used: Option<u64>,
    #[serde(default)]
    mem_limit: Option<u64>,
    #[serde(default)]
    disk_free: Option<DiskFree>,
    #[serde(default)]
    disk_free_limit: Option<u64>,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    being_drained: Option<bool>,
}

/// A number of bytes, or a word if the broker does not know it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum DiskFree {
    Bytes(u64),
    Word(#[expect(dead_code, reason = "any word says that it is not known")] String),
}

/// Judges each node, and their number.
pub(crate) fn judge(nodes: &[Node]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = nodes.iter().flat_map(Node::problems).collect();
    if findings.is_empty() {
        let found = match nodes.len() {
            1 => "one, without alarms. Its queues are unavailable while it is down; a cluster of three nodes would continue"
                .to_owned(),
            many => format!("{many}, all running, without alarms"),
        };
        findings.push(Check::new(CHECK, "the nodes").ok(found));
    }
    findings
}

impl Node {
    fn problems(&self) -> Vec<Finding> {
        const BLOCKED: &str = "it accepts no publications, so that no job can be completed";
        let check = Check::new(CHECK, format!("node {}", self.name));
        let bytes = |bytes: Option<u64>| bytes.map_or("?".to_owned(), size);
        let mut problems = Vec::new();
        if !self.running {
            problems.push(
                check.warning("is not running", "start it: with one more failure, queues may become unavailable"),
            );
        }
        if self.mem_alarm {
            let (used, limit) = (bytes(self.mem_used), bytes(self.mem_limit));
            problems.push(check.failed(
                format!("memory alarm, {used} of {limit} used: {BLOCKED}"),
                "give it memory (vm_memory_high_watermark), or consume the waiting messages",
            ));
        }
        if self.disk_free_alarm {
            let free = match self.disk_free {
                Some(DiskFree::Bytes(bytes)) => size(bytes),
                Some(DiskFree::Word(_)) | None => "?".to_owned(),
            };
            let limit = bytes(self.disk_free_limit);
            let found = format!("disk alarm, {free} free, at least {limit} required: {BLOCKED}");
            problems.push(check.failed(found, "free space on its disk, or lower disk_free_limit"));
        }
        if !self.partitions.is_empty() {
            let found = format!("cannot reach {}", self.partitions.join(", "));
            problems.push(check.failed(found, "repair the network between the nodes, then restart the smaller side"));
        }
        if self.being_drained == Some(true) {
            problems.push(check.warning("is in maintenance mode", "run rabbitmq-upgrade revive after the maintenance"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    const ONE: &str = include_str!("samples/nodes.json");

    fn levels(nodes: &str) -> Vec<Level> {
        let nodes: Vec<Node> = serde_json::from_str(nodes).unwrap();
        judge(&nodes).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_healthy_node_is_ok_and_each_problem_is_reported() {
        assert_eq!(levels(ONE), [Level::Ok]);
        for (from, to, level) in [
            (r#""mem_alarm":false"#, r#""mem_alarm":true"#, Level::Failed),
            (r#""disk_free_alarm":false"#, r#""disk_free_alarm":true"#, Level::Failed),
            (r#""partitions":[]"#, r#""partitions":["rabbit@two"]"#, Level::Failed),
            (r#""running":true"#, r#""running":false"#, Level::Warning),
        ] {
            let changed = ONE.replace(from, to);
            assert_ne!(changed, ONE, "{from} is in the sample");
            assert_eq!(levels(&changed), [level], "{to}");
        }
    }

    #[test]
    fn a_node_that_is_down_is_reported_although_it_reports_little() {
        assert_eq!(levels(include_str!("samples/nodes-one-down.json")), [Level::Warning]);
        assert_eq!(levels(r#"[{"name":"rabbit@two","running":false,"disk_free":"NaN"}]"#), [Level::Warning]);
    }
}
