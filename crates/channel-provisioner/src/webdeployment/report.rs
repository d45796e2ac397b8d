//! The report of a published deployment.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    api::{Object, text},
    plan::DeploymentPlan,
    state::{DeploymentState, Provided, WebDeploymentState},
};

/// The report of a web deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebDeploymentReport {
    /// The deployment's id.
    pub deployment_id: String,
    /// The id of its configuration.
    pub configuration_id: String,
    /// The published version of it that the deployment serves.
    pub configuration_version: String,
    /// The deployment's name.
    pub name: String,
    /// The deployment's status, as the platform reports it.
    pub status: String,
    /// The flow for conversations.
    pub flow_id: String,
    /// True if the flow uses the queue of the job; null without `queueId`.
    pub queue_verified: Option<bool>,
    /// The hosts that may embed it; empty if every page may.
    pub allowed_domains: Vec<String>,
    /// The script that a page embeds, as the platform reports it.
    pub snippet: Option<String>,
    /// True if this job's request created the deployment.
    pub created: bool,
    /// True if it was found: created by an earlier delivery of this job, or by a request whose answer was lost.
    pub adopted: bool,
    /// True if it already existed, and was changed.
    pub updated: bool,
    /// True if browsers get this version; null if that was not checked.
    pub edge_verified: Option<bool>,
    /// Entries that the Content Security Policy of the page must allow.
    pub csp: Vec<String>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// SHA-256 over the canonical JSON of the objects that this job requests.
    pub compliance_hash: String,
}

impl WebDeploymentReport {
    /// Creates the report of `plan` for the deployment in `read`.
    pub(crate) fn new(
        plan: &DeploymentPlan,
        state: &WebDeploymentState,
        deployment: &DeploymentState,
        read: &Object,
        edge_verified: Option<bool>,
        domain: &str,
    ) -> Self {
        let configuration = state.configuration.clone().unwrap_or_default();
        let read_text = |member: &str| text(read, member).map(str::to_owned);
        Self {
            deployment_id: deployment.id.clone(),
            configuration_id: configuration.id,
            configuration_version: configuration.version.unwrap_or_default(),
            name: read_text("name").unwrap_or_else(|| plan.name.clone()),
            status: read_text("status").unwrap_or_default(),
            flow_id: plan.flow_id.clone(),
            queue_verified: state.queue_verified,
            allowed_domains: plan.domains.clone().unwrap_or_default(),
            snippet: read_text("snippet"),
            created: deployment.how == Provided::Created,
            adopted: deployment.how == Provided::Adopted,
            updated: deployment.how == Provided::Updated,
            edge_verified,
            csp: csp(domain),
            warnings: state.warnings.clone(),
            compliance_hash: plan.compliance_hash(),
        }
    }
}

/// Returns the directives that the messenger needs, for an organisation in this region.
fn csp(domain: &str) -> Vec<String> {
    let loads = ["script-src", "img-src", "media-src", "child-src"].map(|name| format!("{name} https://*.{domain}"));
    [format!("connect-src https://*.{domain} wss://*.{domain}")].into_iter().chain(loads).collect()
}
