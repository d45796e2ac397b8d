//! What a test or a rehearsal sees and changes of the deployments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Flow, WebDeployments};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WebDeploymentsChange {
    flows: Option<BTreeMap<String, Flow>>,
    limits: Option<BTreeMap<String, u64>>,
    read_lag_ms: Option<u64>,
    pending_ms: Option<u64>,
    reference_lag_ms: Option<u64>,
    edge_lag_ms: Option<u64>,
    changed_by_others: Option<u32>,
    failing: Option<BTreeSet<String>>,
    unique_names: Option<bool>,
}

impl WebDeployments {
    /// Returns the content for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let now = Instant::now();
        let configuration = |one: &super::Configuration| {
            let versions: Vec<&Value> = one.versions.iter().map(|(version, _)| &version["version"]).collect();
            json!({"id": one.id, "draft": self.draft_of(one, now), "versions": versions})
        };
        json!({
            "configurations": self.configurations.iter().map(configuration).collect::<Vec<_>>(),
            "deployments": self.deployments.iter().map(|one| self.deployment_json(one, now)).collect::<Vec<_>>(),
            "limits": self.limits,
            "changedByOthers": self.changed_by_others,
        })
    }

    /// Changes `flows` (by id: `missing`, `type`, `deleted`, `published`, `queues`), `limits`, `readLagMs`,
    /// `pendingMs`, `referenceLagMs`, `edgeLagMs`, `changedByOthers`, `failing` and `uniqueNames`; says what is wrong
    /// with `change`.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let change = WebDeploymentsChange::deserialize(change).map_err(|error| error.to_string())?;
        let flows = change.flows.into_iter().flatten();
        self.flows.extend(flows.map(|(id, flow)| (id.to_ascii_lowercase(), flow)));
        self.limits = change.limits.unwrap_or_else(|| std::mem::take(&mut self.limits));
        self.read_lag = change.read_lag_ms.map_or(self.read_lag, Duration::from_millis);
        self.pending = change.pending_ms.map_or(self.pending, Duration::from_millis);
        self.reference_lag = change.reference_lag_ms.map_or(self.reference_lag, Duration::from_millis);
        self.edge_lag = change.edge_lag_ms.map_or(self.edge_lag, Duration::from_millis);
        self.changed_by_others = change.changed_by_others.unwrap_or(self.changed_by_others);
        self.failing = change.failing.unwrap_or_else(|| std::mem::take(&mut self.failing));
        self.unique_names = change.unique_names.unwrap_or(self.unique_names);
        Ok(())
    }
}
