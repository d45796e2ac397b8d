//! The configuration of an integration: the existing one, the requested one, and whether they differ. Members that this
//! worker does not know are sent back unchanged. Pure.

use std::collections::BTreeSet;

use genfleet_core::hash;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::payload::Payload;
use crate::definition::is_same;

/// Maximum length of a body that the platform accepts, in bytes.
pub(crate) const MAX_BYTES: usize = 512_000;

const ACCOUNT: &str = "awsAccountId";
const REGION: &str = "awsAccountRegion";
const SUFFIX: &str = "eventSourceSuffix";
const TOPICS: &str = "eventFilter";

/// A configuration with the six members that a `PUT` requires.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IntegrationConfig {
    /// The integration's name.
    pub name: String,
    /// The version, which increases with each change. A `PUT` contains the version that it replaces.
    pub version: i64,
    properties: Map<String, Value>,
    advanced: Value,
    notes: String,
    credentials: Value,
}

/// The configuration as the API returns it. Every member may be missing or null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReadConfig {
    name: Option<String>,
    version: Option<Value>,
    properties: Option<Map<String, Value>>,
    advanced: Option<Value>,
    notes: Option<String>,
    credentials: Option<Value>,
}

/// Account, region and suffix, which together identify an event source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceIdentity {
    account: String,
    region: String,
    suffix: String,
}

impl IntegrationConfig {
    /// Parses the configuration of the integration `name`. The error names the missing member.
    pub(crate) fn read(answer: Value, name: &str) -> Result<Self, String> {
        let answer = ReadConfig::deserialize(answer).map_err(|error| error.to_string())?;
        let version = answer.version.as_ref().and_then(whole).ok_or("it has no version that is a whole number")?;
        let object = |value: Option<Value>| value.filter(|value| !value.is_null()).unwrap_or_else(|| json!({}));
        Ok(Self {
            name: answer.name.unwrap_or_else(|| name.to_owned()),
            version,
            properties: answer.properties.unwrap_or_default(),
            advanced: object(answer.advanced),
            notes: answer.notes.unwrap_or_default(),
            credentials: object(answer.credentials),
        })
    }

    /// Returns the configuration that `payload` requests instead.
    pub(crate) fn with_changes_of(&self, payload: &Payload) -> Self {
        let mut wanted = self.clone();
        wanted.name = payload.name();
        wanted.notes = payload.notes.clone().unwrap_or(wanted.notes);
        let identity = SourceIdentity::of(payload);
        let members = [
            (ACCOUNT, identity.account.into()),
            (REGION, identity.region.into()),
            (SUFFIX, identity.suffix.into()),
            (TOPICS, payload.topics().into()),
        ];
        for (member, value) in members {
            wanted.properties.insert(member.to_owned(), value);
        }
        wanted
    }

    /// Returns true if it equals `wanted` except for the version. The order of topics does not matter.
    pub(crate) fn is(&self, wanted: &Self) -> bool {
        let others = |config: &Self| {
            let is_other = |name: &str| ![ACCOUNT, REGION, SUFFIX, TOPICS].contains(&name);
            let properties = config.properties.iter().filter(|(name, _)| is_other(name));
            Value::Object(properties.map(|(name, value)| (name.clone(), value.clone())).collect())
        };
        (&self.name, &self.notes) == (&wanted.name, &wanted.notes)
            && self.identity() == wanted.identity()
            && self.topics() == wanted.topics()
            && is_same(&others(self), &others(wanted))
    }

    /// Returns the event source that it feeds; `None` if it was never configured.
    pub(crate) fn identity(&self) -> Option<SourceIdentity> {
        SourceIdentity::read(&self.properties)
    }

    /// SHA-256 over the canonical JSON of its properties.
    pub(crate) fn properties_sha256(&self) -> String {
        hash::sha256(hash::canonical(&Value::Object(self.properties.clone())))
    }

    fn topics(&self) -> Option<BTreeSet<&str>> {
        self.properties.get(TOPICS)?.as_array()?.iter().map(Value::as_str).collect()
    }
}

impl SourceIdentity {
    /// Returns the event source that a job requests.
    pub(crate) fn of(payload: &Payload) -> Self {
        Self {
            account: payload.aws_account_id.clone(),
            region: payload.aws_account_region.clone(),
            suffix: payload.event_source_suffix.clone(),
        }
    }

    /// Returns the event source in `properties`; `None` if they have no suffix.
    pub(crate) fn read(properties: &Map<String, Value>) -> Option<Self> {
        let text = |member: &str| match properties.get(member) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let identity = Self { account: text(ACCOUNT), region: text(REGION), suffix: text(SUFFIX) };
        let is_empty = [&identity.account, &identity.region, &identity.suffix].iter().all(|part| part.is_empty());
        (!is_empty).then_some(identity)
    }

    /// Describes the parts that differ from `other`, for people.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let parts = [
            (ACCOUNT, &self.account, &other.account),
            (REGION, &self.region, &other.region),
            (SUFFIX, &self.suffix, &other.suffix),
        ];
        let differing = parts.into_iter().filter(|(_, one, other)| one != other);
        differing
            .map(|(member, one, other)| format!("{member} is {one:.80?}, not {other:.80?}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Payload {
    /// Returns the minimum length of the configuration that this job sends.
    pub(crate) fn least_bytes(&self) -> usize {
        let empty = IntegrationConfig {
            name: String::new(),
            version: 1,
            properties: Map::new(),
            advanced: json!({}),
            notes: String::new(),
            credentials: json!({}),
        };
        // Cannot fail: all members are texts and JSON values.
        serde_json::to_vec(&empty.with_changes_of(self)).map_or(0, |written| written.len())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a version that is no whole number is none")]
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        serde_json::from_value(json!({
            "awsAccountId": "123456789012", "awsAccountRegion": "eu-central-1", "eventSourceSuffix": "crm",
            "topics": ["v2.a", "v2.b", "v2.a"],
        }))
        .unwrap()
    }

    fn answer() -> Value {
        json!({
            "id": "x", "name": "genfleet-crm", "version": 7, "selfUri": "/",
            "properties": {
                "awsAccountId": "123456789012", "awsAccountRegion": "eu-central-1", "eventSourceSuffix": "crm",
                "eventFilter": ["v2.b", "v2.a"], "debug": {"level": 1},
            },
            "advanced": {"a": [1]}, "notes": "by hand", "credentials": {"c": {"id": "1", "name": null}},
        })
    }

    #[test]
    fn what_is_sent_has_the_six_members_and_keeps_what_is_not_known() {
        let sent =
            serde_json::to_value(IntegrationConfig::read(answer(), "n").unwrap().with_changes_of(&payload())).unwrap();
        let expected = json!({
            "name": "genfleet-crm", "version": 7,
            "properties": {
                "awsAccountId": "123456789012", "awsAccountRegion": "eu-central-1", "eventSourceSuffix": "crm",
                "eventFilter": ["v2.a", "v2.b"], "debug": {"level": 1},
            },
            "advanced": {"a": [1]}, "notes": "by hand", "credentials": {"c": {"id": "1", "name": null}},
        });
        assert_eq!(sent, expected);
        let bare = IntegrationConfig::read(json!({"version": 1, "advanced": null, "notes": null}), "n").unwrap();
        let sent = serde_json::to_value(bare.with_changes_of(&payload())).unwrap();
        assert_eq!((&sent["advanced"], &sent["notes"], &sent["credentials"]), (&json!({}), &json!(""), &json!({})));
        assert!(IntegrationConfig::read(json!({"name": "n"}), "n").unwrap_err().contains("version"));
    }

    #[test]
    fn a_configuration_that_says_the_same_is_known_and_another_is_not() {
        let of = |answer: Value| IntegrationConfig::read(answer, "genfleet-crm").unwrap();
        let changed = |pointer: &str, value: Value| {
            let mut other = answer();
            *other.pointer_mut(pointer).unwrap() = value;
            of(other)
        };
        let there = of(answer());
        assert!(there.is(&there.with_changes_of(&payload())));
        for same in [changed("/version", json!(9)), changed("/properties/awsAccountId", json!(123_456_789_012_i64))] {
            assert!(same.is(&same.with_changes_of(&payload())), "{same:?}");
        }
        for other in [
            changed("/name", json!("other")),
            changed("/properties/eventFilter", json!(["v2.a"])),
            changed("/properties/eventFilter", json!("v2.a")),
            changed("/properties/eventSourceSuffix", json!("CRM")),
            changed("/properties", json!({})),
        ] {
            assert!(!other.is(&other.with_changes_of(&payload())), "{other:?}");
        }
        let noted = Payload { notes: Some("else".to_owned()), ..payload() };
        assert!(!there.is(&there.with_changes_of(&noted)));
    }

    #[test]
    fn a_source_has_an_identity_once_it_is_configured() {
        let ours = SourceIdentity::of(&payload());
        assert_eq!(IntegrationConfig::read(answer(), "n").unwrap().identity(), Some(ours.clone()));
        assert_eq!(
            IntegrationConfig::read(json!({"version": 1, "properties": {"eventFilter": []}}), "n").unwrap().identity(),
            None
        );
        let mut other = answer();
        other["properties"]["awsAccountRegion"] = "us-east-1".into();
        let other = IntegrationConfig::read(other, "n").unwrap().identity().unwrap();
        assert_eq!(other.differences(&ours), r#"awsAccountRegion is "us-east-1", not "eu-central-1""#);
    }

    #[test]
    fn the_hash_of_the_properties_does_not_depend_on_their_order() {
        let one = IntegrationConfig::read(answer(), "n").unwrap();
        let mut answer = answer();
        answer["properties"].sort_all_objects();
        assert_eq!(one.properties_sha256(), IntegrationConfig::read(answer, "n").unwrap().properties_sha256());
    }
}
