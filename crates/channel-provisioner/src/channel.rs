//! The requested channel: the body that is sent, and the report.

use std::collections::BTreeSet;

use genfleet_core::{
    hash,
    job::{JobId, derive_id},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    csp, domain, email,
    payload::{Payload, Security},
};

/// Default number of sessions, if the limit allows it.
const DEFAULT_SESSIONS: u32 = 150;
/// Members that are compared with an existing channel, if it shows them. The platform may have set further members.
const COMPARED: [&str; 5] = ["/name", "/queueId", "/routingEmail", "/maxConcurrentSessions", "/enabled"];
/// Members of its protection that are compared.
const PROTECTION: [&str; 4] =
    ["/security/cspHeaders", "/security/xssPrevention", "/security/sanitizeHtml", "/security/allowedDomains"];

/// The channel of one job, which is the same for every delivery.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    /// The id, which is derived from the job's id.
    pub id: Uuid,
    /// The body of the request.
    pub body: Value,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

/// A channel as the API returns it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelAnswer {
    /// 2xx.
    pub status: u16,
    /// The channel.
    pub channel: Map<String, Value>,
}

/// The report of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelReport {
    /// The channel's id.
    pub channel_id: String,
    /// Its name.
    pub name: String,
    /// The queue it leads to.
    pub queue_id: String,
    /// The API's status of the answer that created the channel, or that returned an adopted one.
    pub status: u16,
    /// The protection of the page.
    pub(crate) security_profile: SecurityProfile,
    /// True if it already existed.
    pub adopted: bool,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// SHA-256 over the canonical JSON of the body that this job sends, also for an adopted channel. If that channel
    /// differs from the body, a warning lists the differences.
    pub compliance_hash: String,
}

/// The protection of the page in which the channel is embedded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityProfile {
    /// True if there is a policy: always, except for an adopted channel that shows none.
    pub csp_enforced: bool,
    /// Always true, except for an adopted channel that shows otherwise.
    pub xss_prevention: bool,
    /// The hosts that may embed the channel.
    pub domains: Vec<String>,
}

impl Channel {
    /// Creates the channel that `job` requests with a valid payload.
    pub(crate) fn of(job: &JobId, payload: Payload, most_sessions: u32) -> Self {
        let id = derive_id(&format!("channel:{job}"));
        let written = id.to_string();
        let default_name = || format!("WebMessaging-{}", written.chars().take(8).collect::<String>());
        let default_sessions = i64::from(DEFAULT_SESSIONS.min(most_sessions));
        let email = payload.routing_email.unwrap_or_default();
        let (security, warnings) = security(&payload.security.unwrap_or_default());
        let body = json!({
            "id": id,
            "name": payload.name.unwrap_or_else(default_name),
            "queueId": payload.queue_id.unwrap_or_default(),
            "routingEmail": email::addr_spec(&email).unwrap_or(email),
            "maxConcurrentSessions": payload.max_concurrent_sessions.unwrap_or(default_sessions),
            "security": security,
            "enabled": payload.enabled.unwrap_or(true),
        });
        Self { id, body, warnings }
    }

    /// The queue it leads to.
    pub(crate) fn queue_id(&self) -> &str {
        self.body["queueId"].as_str().unwrap_or_default()
    }

    /// Creates the report of a created channel.
    pub(crate) fn report_created(mut self, answer: &ChannelAnswer) -> ChannelReport {
        let id = answer.channel.get("id").and_then(Value::as_str).unwrap_or_default();
        if !id.is_empty() && !id.eq_ignore_ascii_case(&self.id.to_string()) {
            let message =
                "the platform gave the channel another id than the one sent: a repeat of this job cannot find it";
            self.warnings.push(message.to_owned());
            let id = id.to_owned();
            return ChannelReport { channel_id: id, ..self.report(answer.status, false) };
        }
        self.report(answer.status, false)
    }

    /// Creates the report of an existing channel, with the members that it shows, and otherwise those that are sent.
    pub(crate) fn report_found(mut self, answer: &ChannelAnswer) -> ChannelReport {
        let found = Value::Object(answer.channel.clone());
        let compared = COMPARED.into_iter().chain(PROTECTION);
        let differing: Vec<&str> = compared.filter(|member| self.differs(&found, member)).collect();
        self.warnings.extend(differing.into_iter().map(|member| {
            let member = member.trim_start_matches('/').replace('/', ".");
            format!("the channel that was there differs from what this job asks for: {member}")
        }));
        let message = self.report(answer.status, true);
        let found_text =
            |member: &str, default: String| found.get(member).and_then(Value::as_str).map_or(default, str::to_owned);
        ChannelReport {
            name: found_text("name", message.name),
            queue_id: found_text("queueId", message.queue_id),
            security_profile: message.security_profile.with_members_of(&found["security"]),
            ..message
        }
    }

    fn differs(&self, found: &Value, member: &str) -> bool {
        let Some(found) = found.pointer(member) else { return false };
        match (found, self.body.pointer(member)) {
            (Value::Array(found), Some(Value::Array(sent))) => as_set(found) != as_set(sent),
            (found, sent) => Some(found) != sent,
        }
    }

    fn report(self, status: u16, adopted: bool) -> ChannelReport {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ChannelReport {
            channel_id: self.id.to_string(),
            name: text(&self.body["name"]),
            queue_id: self.queue_id().to_owned(),
            status,
            security_profile: SecurityProfile::default().with_members_of(&self.body["security"]),
            adopted,
            compliance_hash: hash::sha256(hash::canonical(&self.body)),
            warnings: self.warnings,
        }
    }
}

impl SecurityProfile {
    /// Replaces the domains and the policy by those in `security`.
    fn with_members_of(self, security: &Value) -> Self {
        let list = |member: &str| security.get(member).and_then(Value::as_array);
        let texts = |all: &Vec<Value>| all.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Self {
            csp_enforced: list("cspHeaders").map_or(self.csp_enforced, |headers| !headers.is_empty()),
            xss_prevention: security.get("xssPrevention").and_then(Value::as_bool).unwrap_or(self.xss_prevention),
            domains: list("allowedDomains").map_or(self.domains, texts),
        }
    }
}

/// Converts a list to a set, because its order does not matter.
fn as_set(list: &[Value]) -> BTreeSet<String> {
    let text = |one: &Value| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
    list.iter().map(text).map(|text| domain::normalise(&text).unwrap_or(text)).collect()
}

/// Returns the `security` that is sent, and warnings.
fn security(given: &Security) -> (Value, Vec<String>) {
    let mut warnings = Vec::new();
    let mut headers = Vec::new();
    for accepted in given.csp_headers.iter().flatten().filter_map(|entry| csp::directive(entry).ok()) {
        let message = |keyword| format!("{} allows {keyword}: most of its protection is gone", accepted.name);
        warnings.extend(accepted.unsafe_sources.iter().map(message));
        headers.push(accepted.text);
    }
    if headers.is_empty() {
        headers = csp::DEFAULT.map(str::to_owned).to_vec();
    }
    if given.sanitize_html == Some(false) {
        warnings.push("sanitizeHtml false was not followed: it is always true".to_owned());
    }
    let mut domains: Vec<String> = Vec::new();
    for domain in given.allowed_domains.iter().flatten().filter_map(|given| domain::normalise(given).ok()) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let security =
        json!({"cspHeaders": headers, "xssPrevention": true, "sanitizeHtml": true, "allowedDomains": domains});
    (security, warnings)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    const QUEUE: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

    fn channel(payload: &Value) -> Channel {
        let payload: Payload = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(payload.violations(), []);
        Channel::of(&JobId::parse("job-1").unwrap(), payload, 500)
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn least() -> Value {
        json!({"queueId": QUEUE, "routingEmail": "chat@example.com", "security": {"allowedDomains": ["example.com"]}})
    }

    #[test]
    fn what_a_job_leaves_out_has_its_default() {
        let channel = channel(&least());
        assert_eq!(channel.id, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"genfleet:channel:job-1"));
        let name = format!("WebMessaging-{}", &channel.id.to_string()[..8]);
        let security = json!({"cspHeaders": csp::DEFAULT, "xssPrevention": true, "sanitizeHtml": true, "allowedDomains": ["https://example.com"]});
        let expected = json!({"id": channel.id, "name": name, "queueId": QUEUE, "routingEmail": "chat@example.com",
            "maxConcurrentSessions": 150, "security": security, "enabled": true});
        assert_eq!(channel.body.to_string(), expected.to_string(), "with the members in this order");
        assert!(channel.warnings.is_empty());
    }

    #[test]
    fn what_a_job_says_is_sent_and_what_it_may_not_say_is_not() {
        let given = json!({"name": "Shop", "queueId": QUEUE, "routingEmail": "chat@bücher.example",
            "maxConcurrentSessions": 7, "enabled": false, "security": {
                "cspHeaders": ["Script-SRC 'Unsafe-Inline' https:", "img-src *", "style-src 'unsafe-inline' 'unsafe-eval'"],
                "xssPrevention": true, "sanitizeHtml": false,
                "allowedDomains": ["Shop.example", "https://b.example:8443/", "shop.EXAMPLE/", "https://shop.example:443"]}});
        let channel = channel(&given);
        let body = &channel.body;
        assert_eq!(
            (&body["name"], &body["enabled"], &body["maxConcurrentSessions"]),
            (&json!("Shop"), &json!(false), &json!(7))
        );
        assert_eq!(body["routingEmail"], "chat@xn--bcher-kva.example");
        assert_eq!(body["security"]["sanitizeHtml"], true);
        assert_eq!(body["security"]["cspHeaders"][0], "script-src 'unsafe-inline' https:");
        assert_eq!(body["security"]["allowedDomains"], json!(["https://shop.example", "https://b.example:8443"]));
        let report = channel.report_created(&ChannelAnswer { status: 201, channel: Map::new() });
        assert_eq!(report.security_profile.domains, ["https://shop.example", "https://b.example:8443"]);
        let about = [
            "script-src allows 'unsafe-inline'",
            "style-src allows 'unsafe-eval'",
            "style-src allows 'unsafe-inline'",
            "sanitizeHtml",
        ];
        assert_eq!(report.warnings.len(), about.len(), "{:?}", report.warnings);
        assert!(
            about.iter().zip(&report.warnings).all(|(about, message)| message.contains(about)),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn an_empty_list_of_directives_is_none_given() {
        let mut given = least();
        given["security"]["cspHeaders"] = json!([]);
        assert_eq!(channel(&given).body["security"]["cspHeaders"], json!(csp::DEFAULT));
    }

    #[test]
    fn the_default_number_of_sessions_keeps_the_workers_bound() {
        let payload = serde_json::from_value(least()).unwrap();
        let channel = Channel::of(&JobId::parse("job-1").unwrap(), payload, 100);
        assert_eq!(channel.body["maxConcurrentSessions"], 100);
    }

    #[test]
    fn the_report_is_what_the_contract_says() {
        let channel = channel(&least());
        let sent = channel.body.clone();
        let report =
            serde_json::to_value(channel.report_created(&ChannelAnswer { status: 201, channel: object(&sent) }))
                .unwrap();
        let profile = json!({"cspEnforced": true, "xssPrevention": true, "domains": ["https://example.com"]});
        let expected = json!({"channelId": sent["id"], "name": sent["name"], "queueId": QUEUE, "status": 201,
            "securityProfile": profile, "adopted": false, "warnings": [], "complianceHash": hash::sha256(hash::canonical(&sent))});
        assert_eq!(report, expected);
    }

    #[test]
    fn a_channel_that_was_there_and_differs_is_adopted_with_a_warning() {
        let channel = channel(&least());
        let mut found = channel.body.clone();
        let same = channel.clone().report_found(&ChannelAnswer { status: 200, channel: object(&found) });
        assert_eq!((same.adopted, same.warnings.len(), same.status), (true, 0, 200));
        found["queueId"] = json!("another");
        found["security"]["version"] = json!(3);
        let report = channel.report_found(&ChannelAnswer { status: 200, channel: object(&found) });
        assert!(report.warnings[0].ends_with(": queueId"), "{:?}", report.warnings);
        assert_eq!((report.queue_id.as_str(), report.warnings.len()), ("another", 1));
    }

    #[test]
    fn an_adopted_channel_is_told_with_the_protection_that_it_has() {
        let mut payload = least();
        payload["security"]["allowedDomains"] = json!(["a.example", "b.example"]);
        let channel = channel(&payload);
        let adopted = |security: &Value| {
            let mut found = channel.body.clone();
            found["security"] = security.clone();
            channel.clone().report_found(&ChannelAnswer { status: 200, channel: object(&found) })
        };
        let differing = json!({"cspHeaders": [], "xssPrevention": false, "sanitizeHtml": false,
            "allowedDomains": ["https://other.example"]});
        let report = adopted(&differing);
        let profile = serde_json::to_value(&report.security_profile).unwrap();
        let domains = json!(["https://other.example"]);
        assert_eq!(profile, json!({"cspEnforced": false, "xssPrevention": false, "domains": domains}));
        let members: Vec<_> = report.warnings.iter().map(|message| message.rsplit(": ").next().unwrap()).collect();
        let expected = ["cspHeaders", "xssPrevention", "sanitizeHtml", "allowedDomains"];
        assert_eq!(members, expected.map(|member| format!("security.{member}")));

        let ours = adopted(&json!({"allowedDomains": ["https://b.example", "https://a.example"], "more": 1}));
        assert!(ours.warnings.is_empty(), "order, and what is not shown, is no difference: {:?}", ours.warnings);
        assert_eq!(ours.security_profile.domains, ["https://b.example", "https://a.example"]);
        let silent = adopted(&Value::Null);
        assert_eq!(silent.security_profile.domains, ["https://a.example", "https://b.example"], "as it was sent");
        assert!(silent.security_profile.csp_enforced && silent.security_profile.xss_prevention);
    }

    #[test]
    fn an_id_that_is_not_ours_is_told() {
        let report =
            channel(&least()).report_created(&ChannelAnswer { status: 201, channel: object(&json!({"id": "theirs"})) });
        assert_eq!((report.channel_id.as_str(), report.warnings.len()), ("theirs", 1));
    }
}
