//! The broker's nodes: who runs, who has an alarm, who does not see the others.

use serde::Deserialize;

use super::finding::{Finding, size};

const CHECK: &str = "broker.nodes";

/// A node, as `/api/nodes` tells it.
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
    disk_free: Option<Told>,
    #[serde(default)]
    disk_free_limit: Option<u64>,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    being_drained: Option<bool>,
}

/// A number, or a word where the broker does not know.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    Bytes(u64),
    Word(#[expect(dead_code, reason = "any word says that it is not known")] String),
}

/// Judges each, and how many they are.
pub(crate) fn judge(nodes: &[Node]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = nodes.iter().flat_map(Node::troubles).collect();
    if findings.is_empty() {
        let found = match nodes.len() {
            1 => "one, without alarms. What it holds is away while it is: several would go on".to_owned(),
            many => format!("{many}, all running, without alarms"),
        };
        findings.push(Finding::ok(CHECK, "the nodes", found));
    }
    findings
}

impl Node {
    fn troubles(&self) -> Vec<Finding> {
        let looked_at = format!("node {}", self.name);
        let mut troubles = Vec::new();
        if !self.running {
            troubles.push(Finding::warning(
                CHECK,
                &looked_at,
                "does not run",
                "start it: queues are one failure nearer to standing still",
            ));
        }
        if self.mem_alarm {
            let [used, limit] = [self.mem_used, self.mem_limit].map(|bytes| bytes.map_or("?".to_owned(), size));
            let found = format!("memory alarm, {used} of {limit} used: it takes no publications, so that no job ends");
            troubles.push(Finding::failed(
                CHECK,
                &looked_at,
                found,
                "give it memory (vm_memory_high_watermark), or consume what waits",
            ));
        }
        if self.disk_free_alarm {
            let free = match self.disk_free {
                Some(Told::Bytes(bytes)) => size(bytes),
                Some(Told::Word(_)) | None => "?".to_owned(),
            };
            let limit = self.disk_free_limit.map_or("?".to_owned(), size);
            let found =
                format!("disk alarm, {free} free of {limit} wanted: it takes no publications, so that no job ends");
            troubles.push(Finding::failed(CHECK, &looked_at, found, "make room on its disk, or lower disk_free_limit"));
        }
        if !self.partitions.is_empty() {
            let found = format!("does not see {}", self.partitions.join(", "));
            troubles.push(Finding::failed(
                CHECK,
                &looked_at,
                found,
                "mend the network between the nodes, then restart the smaller side",
            ));
        }
        if self.being_drained == Some(true) {
            troubles.push(Finding::warning(
                CHECK,
                &looked_at,
                "is in maintenance",
                "rabbitmq-upgrade revive, once that is over",
            ));
        }
        troubles
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
    fn a_healthy_node_is_well_and_each_trouble_is_told() {
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
    fn a_node_that_is_down_tells_little_and_that_is_enough() {
        assert_eq!(levels(include_str!("samples/nodes-one-down.json")), [Level::Warning]);
        assert_eq!(levels(r#"[{"name":"rabbit@two","running":false,"disk_free":"NaN"}]"#), [Level::Warning]);
    }
}
