//! The payload of a job, and its rules. Pure: the API decides whether flow, queue and configuration exist.
//!
//! A member that is missing or invalid by the schema is parsed as its default, so that all other violations are found,
//! too. Such a job is never worked.

use genfleet_core::{contract::pattern::UUID, job::Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::host;

/// The message for a text that is not a UUID.
const UUID_RULE: &str = "must be a UUID, in 36 characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301";

/// A web messaging deployment to publish.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct WebDeploymentPayload {
    /// Name of the deployment, and of a new configuration without its own name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The inbound message flow for conversations, a UUID.
    #[schemars(regex(pattern = UUID), extend("x-rule" = UUID_RULE))]
    pub flow_id: String,
    /// A routing queue that the flow must use, a UUID. It is only checked, because routing happens inside the flow.
    #[schemars(regex(pattern = UUID), extend("x-rule" = UUID_RULE))]
    pub queue_id: Option<String>,
    /// Hosts of the pages that may embed the deployment, without scheme, port and path.
    #[schemars(length(min = 1, max = 10_000))]
    pub allowed_domains: Option<Vec<String>>,
    /// True instead of `allowedDomains`: every page may embed it.
    pub allow_all_domains: Option<bool>,
    /// Look and behaviour of the messenger.
    pub(crate) configuration: Configuration,
    /// The description of the deployment.
    pub description: Option<String>,
    /// The supported content profile, a UUID.
    #[schemars(regex(pattern = UUID), extend("x-rule" = UUID_RULE))]
    pub supported_content_id: Option<String>,
    /// Status of the deployment. Default Active.
    pub(crate) status: Option<WantedStatus>,
    /// The deployment to update, a UUID, whatever its name is.
    #[schemars(regex(pattern = UUID), extend("x-rule" = UUID_RULE))]
    pub deployment_id: Option<String>,
    /// Action if a deployment with that name exists.
    #[serde(default)]
    pub(crate) on_existing: OnExisting,
    /// True to check the version that browsers get. Default true.
    pub verify_edge: Option<bool>,
    /// True to delete a configuration that this job created if the job fails before its deployment exists. Default
    /// true.
    pub rollback: Option<bool>,
}

/// The configuration of a deployment: an existing one (`id`, `version`), a new one (`document`), or an existing one
/// that is changed and published (`id` and `document`).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Configuration {
    /// An existing configuration, a UUID.
    #[schemars(regex(pattern = UUID), extend("x-rule" = UUID_RULE))]
    pub id: Option<String>,
    /// The published version to use. Default: the newest.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,8}$"), extend("x-rule" = "must be the number of a published version as a text, e.g. \"3\""))]
    pub version: Option<String>,
    /// The platform's `WebDeploymentConfigurationVersion`, without ids, dates and status.
    pub(crate) document: Option<Document>,
}

/// The members of a configuration. Their contents are defined by the platform, and sent unchanged.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Document {
    /// Name of the configuration. Default: the name of the deployment; an existing configuration keeps its name.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The description of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Language codes, e.g. `en-us`; required if the messenger is enabled.
    #[schemars(length(max = 1_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// Default language; required if the messenger is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_language: Option<String>,
    /// True if the page brings its own user interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headless_mode: Option<Map<String, Value>>,
    /// Custom texts.
    #[schemars(length(max = 1_000))]
    #[serde(rename = "customI18nLabels", skip_serializing_if = "Option::is_none")]
    pub custom_i18n_labels: Option<Vec<Map<String, Value>>>,
    /// The messenger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messenger: Option<Map<String, Value>>,
    /// Position on the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Map<String, Value>>,
    /// The support centre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support_center: Option<Map<String, Value>>,
    /// Co-browsing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cobrowse: Option<Map<String, Value>>,
    /// Events of the visitor's journey that are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey_events: Option<Map<String, Value>>,
    /// Sign-in of visitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_settings: Option<Map<String, Value>>,
    /// Video calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<Map<String, Value>>,
}

/// The requested status of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum WantedStatus {
    /// Pages can use it.
    #[default]
    Active,
    /// Pages cannot use it.
    Inactive,
    /// Refused by the schema.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The action if a deployment with that name exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnExisting {
    /// Fail.
    #[default]
    Fail,
    /// Update it.
    Update,
    /// Refused by the schema.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl WebDeploymentPayload {
    /// Returns the violations of the rules that the schema does not state, each at its place.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let allows_all = self.allow_all_domains == Some(true);
        match &self.allowed_domains {
            None if !allows_all => violations.push(Violation::new(
                "/payload/allowedDomains",
                "is missing: name the hosts that may embed the deployment, or set allowAllDomains to true",
            )),
            Some(_) if allows_all => violations.push(Violation::new(
                "/payload/allowAllDomains",
                "must not be true beside allowedDomains: give one of the two",
            )),
            _ => {}
        }
        for (index, given) in self.allowed_domains.iter().flatten().enumerate() {
            if let Err(wrong) = bare_host(given) {
                violations.push(Violation::new(format!("/payload/allowedDomains/{index}"), wrong));
            }
        }
        violations.extend(too_long("/payload/allowedDomains", &json!(self.allowed_domains)));
        violations.extend(self.configuration.violations());
        violations
    }
}

impl Configuration {
    fn violations(&self) -> Vec<Violation> {
        let at = |member: &str, message: &str| Violation::new(format!("/payload/configuration/{member}"), message);
        let mut violations = Vec::new();
        match (&self.id, &self.document) {
            (None, None) => violations.push(at(
                "document",
                "is missing: give the id of a configuration, the document of a new one, or both to change one",
            )),
            (_, Some(_)) if self.version.is_some() => violations.push(at(
                "document",
                "must not be given beside version: what is changed or new gets a version of its own",
            )),
            (None, Some(_)) | (Some(_), _) => {}
        }
        let Some(document) = &self.document else { return violations };
        if document.messenger_is_enabled() {
            let needed = "is missing: a messenger that is enabled needs it";
            if document.languages.as_ref().is_none_or(Vec::is_empty) {
                violations.push(at("document/languages", needed));
            }
            if document.default_language.is_none() {
                violations.push(at("document/defaultLanguage", needed));
            }
        }
        violations.extend(too_long("/payload/configuration/document", &json!(document)));
        violations
    }
}

impl Document {
    fn messenger_is_enabled(&self) -> bool {
        self.messenger.as_ref().is_some_and(|messenger| messenger.get("enabled") == Some(&Value::Bool(true)))
    }
}

/// Checks the length of the document and the domains; all other members are short.
fn too_long(at: &str, sent: &Value) -> Option<Violation> {
    /// Maximum length in bytes, of the 512,000 bytes of a request.
    const MOST: usize = 500_000;
    let bytes = sent.to_string().len();
    let message = || format!("has {bytes} bytes as JSON; the platform takes at most {MOST} of it: send less");
    (bytes > MOST).then(|| Violation::new(at, message()))
}

/// Returns `given` in lower case and IDNA-encoded, or the reason why it is not valid. The messenger compares its page's
/// host name, which has neither scheme nor port.
pub(crate) fn bare_host(given: &str) -> Result<String, String> {
    const WHY: &str = "the messenger compares the host name of its page, so that such an entry never matches: write only the host, e.g. shop.example";
    if given.is_empty() {
        return Err("a domain is empty".to_owned());
    }
    if given.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err("a domain has no white space and no control characters".to_owned());
    }
    if given.contains("://") {
        return Err(format!("a domain has no scheme here; {WHY}"));
    }
    if given.contains(['/', '\\', '?', '#']) {
        return Err(format!("a domain has no path, no query and no fragment; {WHY}"));
    }
    if given.contains('@') {
        return Err(format!("a domain has no user and no password; {WHY}"));
    }
    if given.contains([':', '[', ']']) {
        return Err(format!("a domain has no port here; {WHY}"));
    }
    host::ascii(given).map_err(|wrong| format!("{given:?}: {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_host_is_sent_in_one_form() {
        let table = [
            ("shop.example", "shop.example"),
            ("Shop.EXAMPLE", "shop.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ];
        for (given, sent) in table {
            assert_eq!(bare_host(given).as_deref(), Ok(sent), "{given}");
        }
    }

    #[test]
    fn what_is_no_bare_host_is_told_which_rule_it_breaks() {
        let table = [
            ("", "empty"),
            ("shop example", "white space"),
            ("https://shop.example", "scheme"),
            ("http://shop.example", "scheme"),
            ("shop.example:443", "port"),
            ("shop.example/", "path"),
            ("//shop.example", "path"),
            ("shop.example?a", "path"),
            ("me@shop.example", "user"),
            ("*", "wildcards"),
            ("*.shop.example", "wildcards"),
            ("192.0.2.1", "IP addresses"),
            ("[::1]", "port"),
            ("shop..example", "no valid host"),
            ("shop.example.", "no valid host"),
            ("-shop.example", "no valid host"),
            ("my_shop.example", "no valid host"),
            ("xn--a.example", "no valid host"),
        ];
        for (given, rule) in table {
            let wrong = bare_host(given).expect_err(given);
            assert!(wrong.contains(rule), "{given:?}: {wrong}");
        }
    }
}
