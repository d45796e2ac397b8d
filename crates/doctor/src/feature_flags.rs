//! The broker's feature flags. Quorum queues need some of them to keep dead letters, and a broker with any stable flag
//! disabled cannot be upgraded.

use serde::Deserialize;

use super::finding::{Check, Finding, some};

/// The flags that the topology needs. Newer brokers do not list them, because they are always enabled there.
const NEEDED: [&str; 2] = ["quorum_queue", "stream_queue"];

/// A feature flag as `/api/feature-flags` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FeatureFlag {
    name: String,
    state: String,
    #[serde(default)]
    stability: String,
}

/// Judges all feature flags.
pub(crate) fn judge(flags: &[FeatureFlag]) -> Finding {
    const REMEDY: &str = "rabbitmqctl enable_feature_flag all";
    let check = Check::new("broker.feature_flags", "the feature flags");
    let disabled = |which: &dyn Fn(&FeatureFlag) -> bool| -> Vec<String> {
        let matching = flags.iter().filter(|flag| flag.state == "disabled" && which(flag));
        matching.map(|flag| flag.name.clone()).collect()
    };
    let needed = disabled(&|flag| NEEDED.contains(&&*flag.name));
    if !needed.is_empty() {
        let found = format!("disabled: {}; without them dead letters and delayed jobs can be lost", some(&needed));
        return check.failed(found, REMEDY);
    }
    let stable = disabled(&|flag| flag.stability == "stable");
    if !stable.is_empty() {
        let found =
            format!("disabled: {}; the next version of the broker does not start with them disabled", some(&stable));
        return check.warning(found, REMEDY);
    }
    check.ok("all stable flags are enabled")
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    const ALL_ON: &str = include_str!("samples/feature-flags.json");

    fn level(flags: &str) -> Level {
        judge(&serde_json::from_str::<Vec<FeatureFlag>>(flags).unwrap()).level
    }

    #[test]
    fn disabled_flags_are_reported_by_their_effect() {
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
