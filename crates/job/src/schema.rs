//! The JSON Schema (2020-12) of a job, generated from the types and used as the validator, so that contract and worker
//! cannot differ.

use std::{collections::HashMap, sync::OnceLock};

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use schemars::{JsonSchema, generate::SchemaSettings, transform::RestrictFormats};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Kind, Violation,
    fit::{Fit, type_of},
    shape::{self, Shape},
};

/// A job as sent. Unknown members are errors; `null` for what may be left out is the same as nothing.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Job")]
pub(crate) struct Envelope<P> {
    /// Names the job; default: the AMQP `message_id`, else derived from the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9._:-]{1,128}$"), extend("x-rule" = "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : -, e.g. release-42"))]
    pub id: Option<String>,
    /// Must equal the routing key if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// The worker's own part.
    pub payload: P,
    /// The webhook that also gets this job's event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Webhook")]
    pub webhook: Option<Webhook>,
    /// RFC 3339; the job is not started earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub not_before: Option<String>,
    /// RFC 3339; the job is not first started later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// The highest number of attempts before the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 50), extend("default" = crate::DEFAULT_MAX_ATTEMPTS))]
    pub max_attempts: Option<u32>,
}

/// The job's own webhook.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// `https`, without credentials.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// The schema of one kind of job. It is compiled when the first job needs it.
#[derive(Debug)]
pub struct JobSchema {
    kind: Kind,
    document: Value,
    shape: Shape,
    fit: Fit,
    rules: PatternRules,
    /// The document that a trimmed job has to match.
    trimmed: Value,
    validator: OnceLock<Validator>,
}

impl JobSchema {
    /// The schema of jobs of `kind` with payload `P`.
    pub fn new<P: JsonSchema>(kind: Kind) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        // Formats such as uint32, which only the generator knows.
        let settings = settings.with_transform(RestrictFormats::default());
        let mut document = settings.into_generator().into_root_schema_for::<Envelope<P>>().to_value();
        document["properties"]["kind"] = serde_json::json!({
            "const": kind.as_str(),
            "description": "Must equal the routing key where given.",
        });
        let mut rules = PatternRules::new();
        take_rules(&mut document, "", &mut rules);
        let (shape, fit, trimmed) = (Shape::of(&document), Fit::of(&document), document.clone());
        shape::admit_null(&mut document);
        Self { kind, document, shape, fit, rules, trimmed, validator: OnceLock::new() }
    }

    #[expect(clippy::panic, reason = "the schema is generated from a type; a test compiles every one")]
    fn validator(&self) -> &Validator {
        self.validator.get_or_init(|| {
            let built = jsonschema::options().should_validate_formats(true).build(&self.trimmed);
            built.unwrap_or_else(|error| panic!("the schema of {} does not compile: {error}", self.kind))
        })
    }

    /// The kind of the jobs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The schema document, as it is published.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Removes optional members that are `null`, and the excess entries of lists; returns a violation for each such
    /// list.
    pub(crate) fn trim(&self, job: &mut Value) -> Vec<Violation> {
        self.shape.trim(job)
    }

    /// Validates a trimmed job.
    pub(crate) fn check(&self, job: &Value) -> SchemaErrors {
        let admitted = self.fit.admits(job);
        debug_assert!(!admitted || self.validator().is_valid(job), "{} is admitted and not valid", self.kind);
        if admitted || self.validator().is_valid(job) {
            return SchemaErrors::default();
        }
        let mut all = self.validator().iter_errors(job).flat_map(|error| schema_errors(&error, &self.rules));
        let errors = all.by_ref().take(MOST_ERRORS).collect();
        SchemaErrors { errors, more: all.count() }
    }
}

/// The number of errors that are kept; further ones are counted.
const MOST_ERRORS: usize = 10_000;

/// The errors that the schema finds in a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SchemaErrors {
    pub(crate) errors: Vec<SchemaError>,
    /// The number of further errors.
    pub(crate) more: usize,
}

/// One error, and the repair that lets the rest of the job be checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SchemaError {
    pub(crate) violation: Violation,
    pub(crate) repair: Repair,
}

/// The change that makes a job fit its types, so that its other parts can be checked, too.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Repair {
    Remove,
    /// Violations of the replacement are not reported.
    Replace(Value),
    /// The member is missing; its type may have a default.
    Missing,
    /// The value fits its type, or cannot be made to.
    Leave,
}

impl SchemaError {
    /// Changes `job` so that it fits its types at this place.
    pub(crate) fn repair(&self, job: &mut Value) {
        let pointer = self.violation.pointer.as_str();
        match &self.repair {
            Repair::Missing | Repair::Leave => {}
            Repair::Replace(value) => {
                if let Some(place) = job.pointer_mut(pointer) {
                    *place = value.clone();
                }
            }
            Repair::Remove => {
                let (parent, member) = pointer.rsplit_once('/').unwrap_or(("", pointer));
                if let Some(members) = job.pointer_mut(parent).and_then(Value::as_object_mut) {
                    members.remove(&member.replace("~1", "/").replace("~0", "~"));
                }
            }
        }
    }
}

/// Converts an error: unknown members each at their own place, missing ones where they should be.
fn schema_errors(error: &ValidationError<'_>, rules: &PatternRules) -> Vec<SchemaError> {
    let at = error.instance_path().to_string();
    let below = |member: &str| format!("{at}/{}", member.replace('~', "~0").replace('/', "~1"));
    let schema_error =
        |pointer: String, message: &str, repair| SchemaError { violation: Violation::new(pointer, message), repair };
    let mut repair = Repair::Leave;
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = |member: &String| {
                schema_error(below(member), "unknown field: remove it or correct its name", Repair::Remove)
            };
            return unexpected.iter().map(unknown).collect();
        }
        ValidationErrorKind::Required { property } => {
            return vec![schema_error(
                below(property.as_str().unwrap_or_default()),
                "required, and missing",
                Repair::Missing,
            )];
        }
        // An optional member is "this or null": its own branch names the error.
        ValidationErrorKind::AnyOf { context } => {
            return context.first().into_iter().flatten().flat_map(|error| schema_errors(error, rules)).collect();
        }
        ValidationErrorKind::Type { kind } => {
            let names = type_names(kind);
            repair = names.first().map_or(Repair::Leave, |name| Repair::Replace(neutral(name)));
            let names: Vec<&str> = names.iter().map(|name| with_article(name)).collect();
            format!("must be {}, found {}", names.join(" or "), with_article(type_of(error.instance())))
        }
        ValidationErrorKind::Pattern { pattern } => {
            let rule = rules.get(error.schema_path().as_str()).cloned();
            rule.unwrap_or_else(|| format!("must match the regular expression {pattern}"))
        }
        ValidationErrorKind::Format { format } => format!("must be an RFC 3339 {format}, e.g. 2026-11-20T12:00:00Z"),
        ValidationErrorKind::Constant { expected_value } => format!("must be {expected_value}"),
        // An enum with described values has one constant per branch.
        ValidationErrorKind::OneOfNotValid { context } if !constants(context).is_empty() => {
            let is_text = error.instance().is_string();
            repair = if is_text { Repair::Leave } else { Repair::Replace(neutral("string")) };
            format!("must be one of {}", constants(context).join(", "))
        }
        ValidationErrorKind::MinItems { limit } => {
            format!("must have at least {}", count_with_unit(*limit, "entry", "entries"))
        }
        ValidationErrorKind::MinLength { limit } => {
            format!("must have at least {}", count_with_unit(*limit, "character", "characters"))
        }
        ValidationErrorKind::MaxLength { limit } => {
            format!("must have at most {}", count_with_unit(*limit, "character", "characters"))
        }
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        _ => error.masked().to_string().chars().take(300).collect(),
    };
    vec![schema_error(at.clone(), &message, repair)]
}

/// `1 entry`, `2 entries`.
fn count_with_unit(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The name of a JSON type in a sentence.
fn with_article(type_name: &str) -> &str {
    match type_name {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "a boolean",
        "array" => "an array",
        "object" => "an object",
        other => other,
    }
}

/// The rule of each pattern in words, by the pattern's place in the schema.
type PatternRules = HashMap<String, String>;

/// The keyword next to `pattern` that says the rule in words, as a violation has it. It is not published.
const PATTERN_RULE: &str = "x-rule";

/// Takes the rules of patterns out of `schema`, which is at `place`.
fn take_rules(schema: &mut Value, place: &str, rules: &mut PatternRules) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(rule)) = members.remove(PATTERN_RULE) {
                rules.insert(format!("{place}/pattern"), rule);
            }
            members.iter_mut().for_each(|(name, value)| take_rules(value, &format!("{place}/{name}"), rules));
        }
        Value::Array(entries) => {
            let numbered = entries.iter_mut().enumerate();
            numbered.for_each(|(number, value)| take_rules(value, &format!("{place}/{number}"), rules));
        }
        _ => {}
    }
}

/// The constants in the branches of a `oneOf`.
fn constants(branches: &[Vec<ValidationError<'_>>]) -> Vec<String> {
    let expected = |error: &ValidationError<'_>| match error.kind() {
        ValidationErrorKind::Constant { expected_value } => Some(expected_value.to_string()),
        _ => None,
    };
    branches.iter().flatten().filter_map(expected).collect()
}

fn neutral(type_name: &str) -> Value {
    match type_name {
        "string" => "".into(),
        "integer" | "number" => 0.into(),
        "boolean" => false.into(),
        "array" => Value::Array(Vec::new()),
        "object" => Value::Object(serde_json::Map::new()),
        _ => Value::Null,
    }
}

/// The names of the allowed types, without `null`.
fn type_names(kind: &TypeKind) -> Vec<String> {
    let names: Vec<String> = match kind {
        TypeKind::Single(single) => vec![single.to_string()],
        TypeKind::Multiple(set) => set.iter().map(|one| one.to_string()).collect(),
    };
    names.into_iter().filter(|name| name != "null").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema counts")]
    struct Payload {
        #[schemars(length(min = 1, max = 3))]
        paths: Vec<String>,
        all: Option<bool>,
        retries: Option<u8>,
    }

    #[test]
    fn a_usual_job_is_admitted_without_the_validator() {
        let schema = JobSchema::new::<Payload>(Kind::CdnPurge);
        let id = "release-42";
        for (job, admitted) in [
            (json!({ "payload": { "paths": ["/a", "/b"] } }), true),
            (
                json!({ "id": id, "kind": "cdn.purge", "payload": { "paths": ["/a"], "all": true, "retries": 255 } }),
                true,
            ),
            (json!({ "id": id, "maxAttempts": 50, "payload": { "paths": ["/a"] }, "webhook": { "url": "u" } }), true),
            (json!({ "id": id, "kind": "file.scan", "payload": { "paths": ["/a"] } }), false),
            (json!({ "id": "no spaces", "payload": { "paths": ["/a"] } }), false),
            (json!({ "id": id, "payload": { "paths": [] } }), false),
            (json!({ "id": id, "payload": { "paths": ["/a"], "retries": 256 } }), false),
            (json!({ "id": id, "payload": { "paths": ["/a"] }, "maxAttempts": 51 }), false),
            (json!({ "id": id, "payload": { "paths": ["/a"] }, "colour": 1 }), false),
        ] {
            assert_eq!(schema.fit.admits(&job), admitted, "{job}");
            assert_eq!(schema.check(&job).errors.is_empty(), admitted, "{job}");
        }
    }
}
