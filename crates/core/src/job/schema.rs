//! The shape of a job as JSON Schema (2020-12), generated from the types, and used as the validator: what the
//! contract accepts and what the worker accepts cannot differ.

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kind, Violation};

/// A job as sent. Unknown members are errors.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Job")]
pub struct Envelope<P> {
    /// Names the job; default: the AMQP `message_id`, else derived from the body.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,128}$"))]
    pub id: Option<String>,
    /// Must equal the routing key where given.
    pub kind: Option<String>,
    /// The worker's own part.
    pub payload: P,
    /// Where this job's events are also sent.
    pub webhook: Option<Webhook>,
    /// RFC 3339; the job is not started earlier.
    #[schemars(extend("format" = "date-time"))]
    pub not_before: Option<String>,
    /// RFC 3339; the job is not first started later.
    #[schemars(extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// Attempts before the job is given up.
    #[schemars(range(min = 1, max = 50))]
    pub max_attempts: Option<u32>,
}

/// The job's own webhook.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Must be `https`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// The compiled schema of one kind of job.
#[derive(Debug)]
pub struct JobSchema {
    kind: Kind,
    document: Value,
    validator: Validator,
}

impl JobSchema {
    /// The schema of jobs of `kind` with payload `P`.
    ///
    /// # Panics
    /// Where the payload type generates a schema that does not compile: a programming error every start shows.
    #[expect(clippy::panic, reason = "the schema is generated from a type; a test builds every one")]
    pub fn new<P: JsonSchema>(kind: Kind) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut document = settings.into_generator().into_root_schema_for::<Envelope<P>>().to_value();
        document["properties"]["kind"] = serde_json::json!({
            "const": kind.as_str(),
            "description": "Must equal the routing key where given.",
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&document)
            .unwrap_or_else(|error| panic!("the schema of {kind} does not compile: {error}"));
        Self { kind, document, validator }
    }

    /// The kind it describes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The schema itself.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Everything in `job` that the schema refuses.
    pub fn violations(&self, job: &Value) -> Vec<Violation> {
        self.validator.iter_errors(job).flat_map(|error| violations_of(&error)).collect()
    }
}

/// One violation a refused member: unknown members each at their own place, missing ones where they should be.
fn violations_of(error: &ValidationError<'_>) -> Vec<Violation> {
    let at = error.instance_path().to_string();
    let below = |member: &str| format!("{at}/{}", member.replace('~', "~0").replace('/', "~1"));
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = "unknown field: remove it or correct its name";
            return unexpected.iter().map(|member| Violation::new(below(member), unknown)).collect();
        }
        ValidationErrorKind::Required { property } => {
            return vec![Violation::new(below(property.as_str().unwrap_or_default()), "required, and missing")];
        }
        // An optional member is "this or null": what is wrong with it is what its own branch says.
        ValidationErrorKind::AnyOf { context } => {
            return context.first().into_iter().flatten().flat_map(violations_of).collect();
        }
        ValidationErrorKind::Type { kind } => {
            format!("must be {}, found {}", expected(kind), type_of(error.instance()))
        }
        ValidationErrorKind::Pattern { pattern } => format!("does not match {pattern}"),
        ValidationErrorKind::Format { format } => format!("must be an RFC 3339 {format}, e.g. 2026-11-20T12:00:00Z"),
        ValidationErrorKind::Constant { expected_value } => format!("must be {expected_value}"),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} entries"),
        ValidationErrorKind::MaxItems { limit } => {
            format!("must have at most {limit} entries, found {}", length(error.instance()))
        }
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        _ => error.masked().to_string().chars().take(300).collect(),
    };
    vec![Violation::new(at, message)]
}

fn expected(kind: &TypeKind) -> String {
    let names: Vec<String> = match kind {
        TypeKind::Single(single) => vec![single.to_string()],
        TypeKind::Multiple(set) => set.iter().map(|one| one.to_string()).collect(),
    };
    let told: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "null").collect();
    told.join(" or ")
}

fn length(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
