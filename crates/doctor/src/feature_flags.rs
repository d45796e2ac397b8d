//! The broker's feature flags: without some of them quorum queues lose dead letters, and with any left off the next
//! upgrade does not start.

use serde::Deserialize;

use super::finding::{Finding, some};

/// What the topology stands on. Newer brokers have no such flags any more: they always can.
const NEEDED: [&str; 2] = ["quorum_queue", "stream_queue"];

/// A flag, as `/api/feature-flags` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FeatureFlag {
    name: String,
    state: String,
    #[serde(default)]
    stability: String,
}

/// Judges all of them.
pub(crate) fn judge(flags: &[FeatureFlag]) -> Finding {
    const CHECK: &str = "broker.feature_flags";
    const LOOKED_AT: &str = "the feature flags";
    let off = |flag: &&FeatureFlag| flag.state == "disabled";
    let needed: Vec<String> =
        flags.iter().filter(off).filter(|flag| NEEDED.contains(&&*flag.name)).map(|flag| flag.name.clone()).collect();
    if !needed.is_empty() {
        let found = format!("off: {}; without them dead letters and delays can be lost", some(&needed));
        return Finding::failed(CHECK, LOOKED_AT, found, "rabbitmqctl enable_feature_flag all");
    }
    let stable: Vec<String> =
        flags.iter().filter(off).filter(|flag| flag.stability == "stable").map(|flag| flag.name.clone()).collect();
    if !stable.is_empty() {
        let found = format!("off: {}; the next upgrade refuses to start with them off", some(&stable));
        return Finding::warning(CHECK, LOOKED_AT, found, "rabbitmqctl enable_feature_flag all");
    }
    Finding::ok(CHECK, LOOKED_AT, "all stable ones are on")
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    const ALL_ON: &str = include_str!("samples/feature-flags.json");

    fn level(flags: &str) -> Level {
        judge(&serde_json::from_str::<Vec<FeatureFlag>>(flags).unwrap()).level
    }

    #[test]
    fn what_is_off_is_told_by_what_it_costs() {
        assert_eq!(level(ALL_ON), Level::Ok);
        let off = |name: &str| {
            let mut flags: serde_json::Value = serde_json::from_str(ALL_ON).unwrap();
            let flag = flags.as_array_mut().unwrap().iter_mut().find(|flag| flag["name"] == name).unwrap();
            flag["state"] = "disabled".into();
            flags.to_string()
        };
        assert_eq!(level(&off("stream_queue")), Level::Failed);
        assert_eq!(level(&off("user_limits")), Level::Warning);
        assert_eq!(level(r#"[{"name":"khepri_db","state":"disabled","stability":"experimental"}]"#), Level::Ok);
    }
}
