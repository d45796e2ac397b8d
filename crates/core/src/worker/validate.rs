//! Validation of a job: the rules of the schema and of the worker, all violations at once. The same for a worker that is
//! about to run it and for the tool that is about to enqueue it.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::handler::JobHandler;
use genfleet_audit::payload_sha256;
use genfleet_job::{
    Job, Kind, Rejection, Violation,
    decode::{self, DecodedJob},
    schema::JobSchema,
};

type WebhookRule = dyn Fn(&str) -> Vec<Violation> + Send + Sync;

/// Rules for the jobs of one kind.
pub struct JobRules {
    schema: JobSchema,
    webhook: Box<WebhookRule>,
}

impl JobRules {
    /// Compiles the rules for jobs of `kind` with payload `P`; `webhook` checks the URL of the webhook that a job names.
    pub fn new<P: JsonSchema>(kind: Kind, webhook: impl Fn(&str) -> Vec<Violation> + Send + Sync + 'static) -> Self {
        Self { schema: JobSchema::new::<P>(kind), webhook: Box::new(webhook) }
    }

    /// The schema that a job must match.
    pub fn schema(&self) -> &JobSchema {
        &self.schema
    }
}

impl fmt::Debug for JobRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRules").field("kind", &self.schema.kind()).finish_non_exhaustive()
    }
}

/// Decodes and validates the job in `body`. Returns it with its payload, or a rejection with all violations.
pub fn validate_job<H: JobHandler>(
    rules: &JobRules,
    options: &H::Options,
    body: &[u8],
    message_id: Option<&str>,
    timestamp: Option<u64>,
) -> Result<(Job, H::Payload), Box<Rejection>> {
    let mut decoded = decode::decode(&rules.schema, body, message_id, timestamp)?;
    let sha256 = if decoded.violations.total() == 0 { payload_sha256(&decoded.payload) } else { String::new() };
    let payload = H::Payload::deserialize(decoded.payload.take());
    let mut found = match &payload {
        _ if !decoded.repaired => vec![],
        Ok(payload) => H::validate(payload, options),
        // Refused by the schema and not repaired: reported already.
        Err(_) if decoded.places.keys().any(|known| lies_in("/payload", known) || lies_in(known, "/payload")) => {
            vec![]
        }
        Err(error) => vec![Violation::new("/payload", error.to_string())],
    };
    if let Some(url) = &decoded.job.webhook {
        found.extend((rules.webhook)(url));
    }
    found.retain(|one| !is_hidden(&decoded, &one.pointer));
    decoded.violations.extend(found);
    let DecodedJob { mut job, violations, .. } = decoded;
    match payload {
        Ok(payload) if violations.total() == 0 => {
            job.payload_sha256 = sha256;
            Ok((job, payload))
        }
        Ok(_) | Err(_) => Err(Box::new(Rejection::invalid(job.id, violations))),
    }
}

/// Returns true if a violation at the place is reported already, or if it lies in a value that was not sent.
fn is_hidden(decoded: &DecodedJob, pointer: &str) -> bool {
    let ends = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]);
    decoded.places.contains_key(pointer)
        || ends.into_iter().any(|end| decoded.places.get(&pointer[..end]) == Some(&true))
}

/// Returns true if `inner` is the place `outer` or one inside it.
fn lies_in(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::handler::{JobContext, Progress, Services};
    use genfleet_job::{Kind, error::JobError, options::ConfigError};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Payload {
        #[schemars(length(max = 3))]
        paths: Vec<String>,
        owner: Option<Owner>,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    #[schemars(extend("required" = ["name"]))]
    struct Owner {
        // Made up where it is not there: what is wrong with a made-up value is not the job's fault.
        name: Name,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    struct Name {
        first: String,
    }

    struct Strict;

    impl JobHandler for Strict {
        const KIND: Kind = Kind::CdnPurge;
        const ACTION: &'static str = "nothing";
        const SCOPES: &'static [&'static str] = &[];
        const CONCURRENCY: usize = 1;
        type Options = ();
        type Payload = Payload;
        type State = ();
        type Report = ();

        fn new((): (), _: &Services) -> Result<Self, ConfigError> {
            Ok(Self)
        }

        fn validate(payload: &Payload, (): &()) -> Vec<Violation> {
            let bad = payload.paths.iter().enumerate().filter(|(_, path)| !path.starts_with('/'));
            let mut all: Vec<_> =
                bad.map(|(n, _)| Violation::new(format!("/payload/paths/{n}"), "begins with /")).collect();
            if payload.owner.as_ref().is_some_and(|owner| owner.name.first.is_empty()) {
                all.push(Violation::new("/payload/owner/name/first", "not empty"));
            }
            all
        }

        async fn handle(&self, _: &JobContext, _: Payload, (): ()) -> Result<Progress<Self>, JobError> {
            Ok(Progress::Done(()))
        }
    }

    fn pointers(body: &Value) -> Vec<String> {
        let rules = JobRules::new::<Payload>(Strict::KIND, |_| vec![]);
        let validated = validate_job::<Strict>(&rules, &(), body.to_string().as_bytes(), None, None);
        let mut found = validated.err().map_or_else(Vec::new, |rejection| rejection.violations.to_vec());
        found.sort_by(|one, other| one.pointer.cmp(&other.pointer));
        found.into_iter().map(|one| one.pointer).collect()
    }

    #[test]
    fn a_body_that_is_no_object_is_told_once() {
        for body in [json!(null), json!([1, 2]), json!("x"), json!(7), json!(true)] {
            assert_eq!(pointers(&body), [""], "{body}");
        }
        for payload in [json!(null), json!([1, 2]), json!("x")] {
            assert_eq!(pointers(&json!({ "payload": payload })), ["/payload"], "{payload}");
        }
    }

    #[test]
    fn of_a_list_that_is_too_long_what_is_beyond_is_not_looked_at() {
        let paths = ["bad", "/b", "/c", "bad"];
        let expected = ["/payload/paths", "/payload/paths/0"];
        assert_eq!(pointers(&json!({ "payload": { "paths": paths } })), expected);
    }

    #[test]
    fn mistakes_are_all_counted_and_a_hundred_kept() {
        let rules = JobRules::new::<Payload>(Strict::KIND, |_| vec![]);
        let many: Vec<String> = (0..650).map(|n| format!("\"m{n}\":1,\"m{n}\":2")).collect();
        let body = format!(r#"{{"payload":{{"paths":["bad",1],"paths":["bad",1],{}}}}}"#, many.join(","));
        let rejection = validate_job::<Strict>(&rules, &(), body.as_bytes(), None, None).unwrap_err();
        // Twice each, unknown each, and of the paths: twice, no path, no text.
        assert_eq!((rejection.violations.len(), rejection.violations.total()), (100, 650 + 650 + 3));
        assert!(rejection.message.starts_with("1303 violations; the first: /payload/paths: "), "{}", rejection.message);
    }

    #[test]
    fn null_for_what_may_be_left_out_is_nothing() {
        assert_eq!(pointers(&json!({ "id": null, "payload": { "paths": [], "owner": null } })), [""; 0]);
        assert_eq!(pointers(&json!({ "payload": { "paths": null } })), ["/payload/paths"]);
    }

    #[test]
    fn what_stands_in_for_a_refused_part_is_not_told() {
        for (payload, expected) in [
            (json!({ "paths": [5, "bad"] }), vec!["/payload/paths/0", "/payload/paths/1"]),
            (json!({ "paths": "/a" }), vec!["/payload/paths"]),
            (json!({ "paths": [], "owner": 7 }), vec!["/payload/owner"]),
            (json!({ "paths": [], "owner": {} }), vec!["/payload/owner/name"]),
            (json!({ "paths": [], "owner": { "name": 1 } }), vec!["/payload/owner/name"]),
            (json!({ "paths": [], "owner": { "name": { "first": "" } } }), vec!["/payload/owner/name/first"]),
            (json!({ "paths": [], "owner": { "name": { "first": 1 } } }), vec!["/payload/owner/name/first"]),
        ] {
            assert_eq!(pointers(&json!({ "payload": payload })), expected, "{payload}");
        }
    }
}
