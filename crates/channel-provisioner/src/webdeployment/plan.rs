//! The objects that a job requests: the bodies to send, the marks of the job's own objects, and the comparison with
//! existing ones. Pure.

use genfleet_core::hash;
use serde_json::{Map, Value, json};

use super::payload::{Document, OnExisting, WantedStatus, WebDeploymentPayload, bare_host};

/// Prefix of a marker; 16 hexadecimal digits and a bracket follow.
const MARKER: &str = "[genfleet:";
const MARKER_DIGITS: usize = 16;

/// The plan of one job, which is the same for every delivery.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own, as in the payload")]
pub(crate) struct DeploymentPlan {
    /// The name of the deployment.
    pub name: String,
    /// The text that marks the job's own objects.
    pub marker: String,
    /// An inbound message flow.
    pub flow_id: String,
    /// A queue that the flow must use.
    pub queue_id: Option<String>,
    /// Hosts, in the form that is sent; `None` if every page may embed the deployment.
    pub domains: Option<Vec<String>>,
    /// The source of the configuration.
    pub configuration: ConfigurationSource,
    /// The status to wait for.
    pub(crate) status: WantedStatus,
    /// The deployment to update.
    pub deployment_id: Option<String>,
    /// True to update a deployment with the same name.
    pub updates_existing: bool,
    /// True to check the version that browsers get.
    pub verify_edge: bool,
    /// True to delete a configuration of this job if the job fails.
    pub rollback: bool,
    description: Option<String>,
    supported_content_id: Option<String>,
    gives_status: bool,
}

/// The source of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum ConfigurationSource {
    /// An existing configuration: this version, or the newest.
    There { id: String, version: Option<String> },
    /// An existing configuration that is changed first.
    Changed { id: String, document: Document },
    /// A new configuration.
    New(Document),
}

impl DeploymentPlan {
    /// Creates the plan of the job with this marker and a valid payload.
    pub(crate) fn of(marker: String, payload: WebDeploymentPayload) -> Self {
        let mut domains: Vec<String> = Vec::new();
        for domain in payload.allowed_domains.iter().flatten().filter_map(|given| bare_host(given).ok()) {
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let configuration = payload.configuration;
        let configuration = match (configuration.id, configuration.document) {
            (Some(id), Some(document)) => ConfigurationSource::Changed { id, document },
            (Some(id), None) => ConfigurationSource::There { id, version: configuration.version },
            (None, document) => ConfigurationSource::New(document.unwrap_or_default()),
        };
        Self {
            name: payload.name,
            marker,
            flow_id: payload.flow_id,
            queue_id: payload.queue_id,
            domains: (payload.allow_all_domains != Some(true)).then_some(domains),
            configuration,
            gives_status: payload.status.is_some(),
            status: payload.status.unwrap_or_default(),
            deployment_id: payload.deployment_id,
            updates_existing: payload.on_existing == OnExisting::Update,
            verify_edge: payload.verify_edge.unwrap_or(true),
            rollback: payload.rollback.unwrap_or(true),
            description: payload.description,
            supported_content_id: payload.supported_content_id,
        }
    }

    /// Returns true if the object with this description was created or last changed by this job.
    pub(crate) fn is_own(&self, object: &Map<String, Value>) -> bool {
        object.get("description").and_then(Value::as_str).is_some_and(|text| text.contains(&self.marker))
    }

    /// Returns true if another job created or last changed the object with this description.
    pub(crate) fn is_of_another_job(&self, object: &Map<String, Value>) -> bool {
        object.get("description").and_then(Value::as_str).is_some_and(|text| text.contains(MARKER))
            && !self.is_own(object)
    }

    /// Returns the name of a configuration that this job creates.
    pub(crate) fn configuration_name(&self) -> &str {
        match &self.configuration {
            ConfigurationSource::New(Document { name: Some(name), .. }) => name,
            _ => &self.name,
        }
    }

    /// Returns the body for creating a configuration.
    pub(crate) fn new_configuration(&self, document: &Document) -> Value {
        let mut body = json!(document);
        body["name"] = self.configuration_name().into();
        body["description"] = self.with_marker(document.description.as_deref()).into();
        body
    }

    /// Returns an existing draft with the members of `document` instead of its own.
    pub(crate) fn change_draft(&self, document: &Document, mut draft: Map<String, Value>) -> Map<String, Value> {
        let Value::Object(changes) = json!(document) else { return draft };
        draft.extend(changes);
        let described = draft.get("description").and_then(Value::as_str).map(str::to_owned);
        draft.insert("description".to_owned(), self.with_marker(described.as_deref()).into());
        draft
    }

    /// Returns the body for creating the deployment.
    pub(crate) fn new_deployment(&self, configuration_id: &str, version: &str) -> Map<String, Value> {
        let mut body = self.wishes(configuration_id, version);
        if !self.gives_status {
            body.remove("status");
        }
        body
    }

    /// Returns an existing deployment with the members of this plan instead of its own.
    pub(crate) fn change_deployment(
        &self,
        mut read: Map<String, Value>,
        configuration_id: &str,
        version: &str,
    ) -> Map<String, Value> {
        let described = read.get("description").and_then(Value::as_str).map(str::to_owned);
        read.extend(self.wishes(configuration_id, version));
        if self.description.is_none() {
            read.insert("description".to_owned(), self.with_marker(described.as_deref()).into());
        }
        read
    }

    fn wishes(&self, configuration_id: &str, version: &str) -> Map<String, Value> {
        let mut members = vec![
            ("name", json!(self.name)),
            ("description", json!(self.with_marker(self.description.as_deref()))),
            ("allowAllDomains", json!(self.domains.is_none())),
            ("allowedDomains", json!(self.domains.as_deref().unwrap_or_default())),
            ("configuration", json!({ "id": configuration_id, "version": version })),
            ("flow", json!({ "id": self.flow_id })),
            ("status", json!(self.status)),
        ];
        let content = self.supported_content_id.as_ref().map(|id| ("supportedContent", json!({ "id": id })));
        members.extend(content);
        members.into_iter().map(|(member, value)| (member.to_owned(), value)).collect()
    }

    /// Returns `description` with this job's marker instead of any other.
    fn with_marker(&self, description: Option<&str>) -> String {
        let text = without_markers(description.unwrap_or_default());
        if text.is_empty() { self.marker.clone() } else { format!("{text} {}", self.marker) }
    }

    /// Computes the SHA-256 of everything that this job sends, without ids of the platform.
    pub(crate) fn compliance_hash(&self) -> String {
        let configuration = match &self.configuration {
            ConfigurationSource::There { id, version } => json!({ "id": id, "version": version }),
            ConfigurationSource::Changed { id, document } => json!({ "id": id, "document": document }),
            ConfigurationSource::New(document) => self.new_configuration(document),
        };
        let mut deployment = self.wishes("", "");
        deployment.insert("configuration".to_owned(), configuration);
        hash::sha256(hash::canonical(&Value::Object(deployment)))
    }
}

/// Returns `text` without markers.
fn without_markers(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(MARKER) {
        let (before, marked) = rest.split_at(start);
        kept.push_str(before);
        let inside = marked.get(MARKER.len()..MARKER.len() + MARKER_DIGITS + 1);
        let is_marker = inside.is_some_and(|inside| {
            inside.ends_with(']') && inside[..MARKER_DIGITS].bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let taken = MARKER.len() + if is_marker { MARKER_DIGITS + 1 } else { 0 };
        if !is_marker {
            kept.push_str(MARKER);
        }
        rest = &marked[taken..];
    }
    kept.push_str(rest);
    kept.trim().to_owned()
}

/// Returns true if an object has this name.
pub(crate) fn is_named(object: &Map<String, Value>, name: &str) -> bool {
    object.get("name").and_then(Value::as_str) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

    fn plan(job: &str, more: &Value) -> DeploymentPlan {
        let mut payload = json!({
            "name": "Shop", "flowId": FLOW, "allowedDomains": ["Shop.example", "shop.example", "bücher.example"],
            "configuration": {"document": {"languages": ["en-us"], "defaultLanguage": "en-us"}},
        });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let payload: WebDeploymentPayload = serde_json::from_value(payload).unwrap();
        assert_eq!(payload.violations(), []);
        DeploymentPlan::of(format!("[genfleet:{job:0>16}]"), payload)
    }

    fn document(plan: &DeploymentPlan) -> &Document {
        match &plan.configuration {
            ConfigurationSource::New(document) | ConfigurationSource::Changed { document, .. } => document,
            ConfigurationSource::There { .. } => panic!("there"),
        }
    }

    #[test]
    fn a_marker_takes_the_place_of_any_other_and_nothing_else() {
        let plan = plan("a", &json!({}));
        let table = [
            ("", ""),
            ("Spring sale", "Spring sale "),
            ("Spring [genfleet:0123456789abcdef] sale [genfleet:00000000000000ff]", "Spring  sale "),
            ("[genfleet:short]", "[genfleet:short] "),
            ("[genfleet:0123456789abcdeg]", "[genfleet:0123456789abcdeg] "),
            ("ends [genfleet:", "ends [genfleet: "),
            ("é[genfleet:éééééééééééééééé]", "é[genfleet:éééééééééééééééé] "),
        ];
        for (given, kept) in table {
            assert_eq!(plan.with_marker(Some(given)), format!("{kept}{}", plan.marker), "{given}");
        }
        assert_eq!(plan.with_marker(Some(&plan.with_marker(Some("x")))), plan.with_marker(Some("x")));
    }

    #[test]
    fn a_new_deployment_is_what_the_platform_is_sent() {
        let shop = plan("a", &json!({"description": "Spring"}));
        let expected = json!({
            "name": "Shop", "description": format!("Spring {}", shop.marker), "allowAllDomains": false,
            "allowedDomains": ["shop.example", "xn--bcher-kva.example"],
            "configuration": {"id": "c", "version": "3"}, "flow": {"id": FLOW},
        });
        assert_eq!(Value::Object(shop.new_deployment("c", "3")), expected);
        let everywhere = plan(
            "a",
            &json!({"allowedDomains": null, "allowAllDomains": true, "status": "Inactive",
            "supportedContentId": FLOW}),
        );
        let sent = Value::Object(everywhere.new_deployment("c", "3"));
        assert_eq!((&sent["allowAllDomains"], &sent["allowedDomains"]), (&json!(true), &json!([])));
        assert_eq!((&sent["status"], &sent["supportedContent"]), (&json!("Inactive"), &json!({"id": FLOW})));
    }

    #[test]
    fn a_change_keeps_what_the_job_does_not_speak_of() {
        let shop = plan("a", &json!({}));
        let read = json!({"id": "d", "name": "Old", "description": "Kept [genfleet:0123456789abcdef]", "status": "Pending",
            "pushIntegrations": [{"id": "p"}], "supportedContent": {"id": "s"}, "configuration": {"id": "o", "version": "1"}});
        let changed = Value::Object(shop.change_deployment(read.as_object().unwrap().clone(), "c", "2"));
        assert_eq!(changed["description"], format!("Kept {}", shop.marker));
        assert_eq!(changed["pushIntegrations"], json!([{"id": "p"}]));
        assert_eq!(changed["supportedContent"], json!({"id": "s"}));
        assert_eq!(
            (&changed["id"], &changed["name"], &changed["status"]),
            (&json!("d"), &json!("Shop"), &json!("Active"))
        );
        assert_eq!(changed["configuration"], json!({"id": "c", "version": "2"}));
    }

    #[test]
    fn a_configuration_has_a_name_and_a_marker_and_only_what_is_given() {
        let shop = plan("a", &json!({}));
        let body = shop.new_configuration(document(&shop));
        let expected =
            json!({"name": "Shop", "description": shop.marker, "languages": ["en-us"], "defaultLanguage": "en-us"});
        assert_eq!(body, expected);
        let named = plan(
            "a",
            &json!({"configuration": {"document": {"name": "Looks", "customI18nLabels": [{"language": "en-us"}]}}}),
        );
        let body = named.new_configuration(document(&named));
        assert_eq!((&body["name"], &body["customI18nLabels"][0]["language"]), (&json!("Looks"), &json!("en-us")));
        let changed =
            plan("a", &json!({"configuration": {"id": FLOW, "document": {"position": {"alignment": "Left"}}}}));
        let draft = json!({"id": FLOW, "name": "Theirs", "version": "DRAFT", "description": "d", "position": {"alignment": "Auto"},
            "cobrowse": {"enabled": true}});
        let draft = Value::Object(changed.change_draft(document(&changed), draft.as_object().unwrap().clone()));
        assert_eq!((&draft["name"], &draft["version"]), (&json!("Theirs"), &json!("DRAFT")));
        assert_eq!(
            (&draft["position"], &draft["cobrowse"]),
            (&json!({"alignment": "Left"}), &json!({"enabled": true}))
        );
        assert_eq!(draft["description"], format!("d {}", changed.marker));
    }

    #[test]
    fn own_objects_are_known_by_their_marker() {
        let (one, other) = (plan("a", &json!({})), plan("b", &json!({})));
        let made = one.new_deployment("c", "1");
        assert!(one.is_own(&made) && !other.is_own(&made));
        assert!(!one.is_own(&Map::new()));
    }

    #[test]
    fn the_hash_does_not_depend_on_what_the_platform_names_things() {
        assert_eq!(plan("a", &json!({})).compliance_hash(), plan("a", &json!({})).compliance_hash());
        assert_ne!(plan("a", &json!({})).compliance_hash(), plan("a", &json!({"name": "Other"})).compliance_hash());
    }
}
