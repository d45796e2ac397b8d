//! The payload of a job, and its rules. Pure: the API decides whether the queue exists.
//!
//! Required members are `Option`s, and required by the schema, so that a missing one does not hide other violations.

use std::collections::HashSet;

use genfleet_core::job::{Violation, whole_number};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{csp, domain, email};

/// Number of invalid sources after which no further directive is checked.
const MOST_VIOLATIONS: usize = 10_000;

/// A web messaging channel to create.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Name of the channel. Default: `WebMessaging-` and the first 8 characters of the channel's id.
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
    /// The routing queue for conversations, a UUID.
    #[schemars(required)]
    pub queue_id: Option<String>,
    /// Mail address, an addr-spec of RFC 5322 without a display name.
    #[schemars(required)]
    pub routing_email: Option<String>,
    /// Number of concurrent sessions. Default 150; the worker's `--max-concurrent-sessions` is the maximum, 500 by
    /// default.
    #[serde(default, deserialize_with = "whole_number")]
    #[schemars(range(min = 1))]
    pub max_concurrent_sessions: Option<i64>,
    /// Default true.
    pub enabled: Option<bool>,
    /// Protection of the page in which the channel is embedded.
    #[schemars(required)]
    pub(crate) security: Option<Security>,
}

/// Protection of the page.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Security {
    /// Directives of a Content Security Policy, one per entry; without any, https only.
    #[schemars(length(max = 10_000))]
    pub csp_headers: Option<Vec<String>>,
    /// Must be true, which is also the default.
    pub xss_prevention: Option<bool>,
    /// Always true, whatever the job contains.
    pub sanitize_html: Option<bool>,
    /// Hosts that may embed the channel: `host`, `host:port` or the same with `https://`.
    #[schemars(required, length(min = 1, max = 10_000))]
    pub allowed_domains: Option<Vec<String>>,
}

impl Payload {
    /// Returns all violations, each at its place.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if self.queue_id.as_deref().is_some_and(|id| !is_uuid(id)) {
            violations.push(Violation::new(
                "/payload/queueId",
                "must be a UUID, in 36 characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            ));
        }
        if let Some(Err(wrong)) = self.routing_email.as_deref().map(email::addr_spec) {
            violations.push(Violation::new("/payload/routingEmail", wrong));
        }
        if let Some(security) = &self.security {
            violations.extend(security.violations());
        }
        violations
    }

    /// Returns the violations of the worker's limit on sessions.
    pub(crate) fn over(&self, most_sessions: u32) -> Vec<Violation> {
        let over = self.max_concurrent_sessions.filter(|asked| *asked > most_sessions.into());
        let message = |asked| format!("must be at most {most_sessions}, found {asked}");
        over.map(|asked| Violation::new("/payload/maxConcurrentSessions", message(asked))).into_iter().collect()
    }
}

impl Security {
    fn violations(&self) -> Vec<Violation> {
        let mut violations = self.csp_violations();
        if self.xss_prevention == Some(false) {
            let message = "must not be false: a channel without it is not created";
            violations.push(Violation::new("/payload/security/xssPrevention", message));
        }
        for (index, given) in self.allowed_domains.iter().flatten().enumerate() {
            if let Err(wrong) = domain::normalise(given) {
                violations.push(Violation::new(format!("/payload/security/allowedDomains/{index}"), wrong));
            }
        }
        violations
    }

    fn csp_violations(&self) -> Vec<Violation> {
        let (mut violations, mut seen) = (Vec::new(), HashSet::new());
        for (index, entry) in self.csp_headers.iter().flatten().enumerate() {
            if violations.len() >= MOST_VIOLATIONS {
                break;
            }
            let mut wrong = csp::directive(entry).err().unwrap_or_default();
            if let Some(name) = csp::name(entry).filter(|name| !seen.insert(name.clone())) {
                wrong.push(format!("{name} is there twice: one entry for each directive"));
            }
            let at = format!("/payload/security/cspHeaders/{index}");
            violations.extend(wrong.into_iter().map(|wrong| Violation::new(at.clone(), wrong)));
        }
        violations
    }
}

/// Returns true if `id` is a UUID in the form that the platform writes.
fn is_uuid(id: &str) -> bool {
    id.len() == 36 && Uuid::try_parse(id).is_ok()
}
