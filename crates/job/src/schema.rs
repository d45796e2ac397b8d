//! The shape of a job as JSON Schema (2020-12), generated from the types, and used as the validator: what the
//! contract accepts and what the worker accepts cannot differ.

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use schemars::{JsonSchema, generate::SchemaSettings, transform::RestrictFormats};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Kind, Violation,
    shape::{self, Shape},
};

/// A job as sent. Unknown members are errors; `null` for what may be left out is the same as nothing.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Job")]
pub struct Envelope<P> {
    /// Names the job; default: the AMQP `message_id`, else derived from the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9._:-]{1,128}$"))]
    pub id: Option<String>,
    /// Must equal the routing key where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// The worker's own part.
    pub payload: P,
    /// Where this job's events are also sent.
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
    /// Attempts before the job is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 50))]
    pub max_attempts: Option<u32>,
}

/// The job's own webhook.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https`, without credentials.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// The compiled schema of one kind of job.
#[derive(Debug)]
pub struct JobSchema {
    kind: Kind,
    document: Value,
    shape: Shape,
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
        // Such as uint32, which only its generator knows.
        let settings = settings.with_transform(RestrictFormats::default());
        let mut document = settings.into_generator().into_root_schema_for::<Envelope<P>>().to_value();
        document["properties"]["kind"] = serde_json::json!({
            "const": kind.as_str(),
            "description": "Must equal the routing key where given.",
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&document)
            .unwrap_or_else(|error| panic!("the schema of {kind} does not compile: {error}"));
        let shape = Shape::of(&document);
        shape::admit_null(&mut document);
        Self { kind, document, shape, validator }
    }

    /// The kind it describes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The schema itself, as it is published.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Takes out of `job` what counts as not there, and what its lists have too much of; a violation for each such list.
    pub fn trim(&self, job: &mut Value) -> Vec<Violation> {
        self.shape.trim(job)
    }

    /// Everything in `job`, which is trimmed, that the schema refuses.
    pub fn check(&self, job: &Value) -> Refused {
        if self.validator.is_valid(job) {
            return Refused::default();
        }
        let mut all = self.validator.iter_errors(job).flat_map(|error| refusals(&error));
        let refusals = all.by_ref().take(MOST_REFUSALS).collect();
        Refused { refusals, more: all.count() }
    }
}

/// So many are told apart; further ones are counted.
const MOST_REFUSALS: usize = 10_000;

/// What the schema refuses of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refused {
    /// Each refusal.
    pub refusals: Vec<Refusal>,
    /// How many there are beside these.
    pub more: usize,
}

/// One thing the schema refuses, and how to look past it for what else is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What to tell.
    pub violation: Violation,
    /// See [`Mend`].
    pub mend: Mend,
}

/// How a job is made to fit its types, only so that its other parts can be checked, too.
#[derive(Clone, Debug, PartialEq)]
pub enum Mend {
    /// The member is taken out.
    Remove,
    /// Another value takes its place; what is found wrong with that one is not told.
    Replace(Value),
    /// There is nothing; a type may know a default.
    Missing,
    /// It fits the types as it is, or cannot be made to.
    Leave,
}

impl Refusal {
    /// Changes `job` so that it fits its types at this place.
    pub fn mend(&self, job: &mut Value) {
        let pointer = self.violation.pointer.as_str();
        match &self.mend {
            Mend::Missing | Mend::Leave => {}
            Mend::Replace(value) => {
                if let Some(place) = job.pointer_mut(pointer) {
                    *place = value.clone();
                }
            }
            Mend::Remove => {
                let (parent, member) = pointer.rsplit_once('/').unwrap_or(("", pointer));
                if let Some(members) = job.pointer_mut(parent).and_then(Value::as_object_mut) {
                    members.remove(&member.replace("~1", "/").replace("~0", "~"));
                }
            }
        }
    }
}

/// One refusal a member: unknown members each at their own place, missing ones where they should be.
fn refusals(error: &ValidationError<'_>) -> Vec<Refusal> {
    let at = error.instance_path().to_string();
    let below = |member: &str| format!("{at}/{}", member.replace('~', "~0").replace('/', "~1"));
    let refusal = |pointer: String, message: &str, mend| Refusal { violation: Violation::new(pointer, message), mend };
    let mut mend = Mend::Leave;
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown =
                |member: &String| refusal(below(member), "unknown field: remove it or correct its name", Mend::Remove);
            return unexpected.iter().map(unknown).collect();
        }
        ValidationErrorKind::Required { property } => {
            return vec![refusal(below(property.as_str().unwrap_or_default()), "required, and missing", Mend::Missing)];
        }
        // An optional member is "this or null": what is wrong with it is what its own branch says.
        ValidationErrorKind::AnyOf { context } => {
            return context.first().into_iter().flatten().flat_map(refusals).collect();
        }
        ValidationErrorKind::Type { kind } => {
            let names = type_names(kind);
            mend = names.first().map_or(Mend::Leave, |name| Mend::Replace(neutral(name)));
            format!("must be {}, found {}", names.join(" or "), type_of(error.instance()))
        }
        ValidationErrorKind::Pattern { pattern } => format!("does not match {pattern}"),
        ValidationErrorKind::Format { format } => format!("must be an RFC 3339 {format}, e.g. 2026-11-20T12:00:00Z"),
        ValidationErrorKind::Constant { expected_value } => format!("must be {expected_value}"),
        // An enum whose values are described is one constant a branch.
        ValidationErrorKind::OneOfNotValid { context } if !constants(context).is_empty() => {
            let is_text = error.instance().is_string();
            mend = if is_text { Mend::Leave } else { Mend::Replace(neutral("string")) };
            format!("must be one of {}", constants(context).join(", "))
        }
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} entries"),
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        _ => error.masked().to_string().chars().take(300).collect(),
    };
    vec![refusal(at.clone(), &message, mend)]
}

/// The constants that branches of a `oneOf` ask for.
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

/// The types that are allowed; an optional member's `null` goes without saying.
fn type_names(kind: &TypeKind) -> Vec<String> {
    let names: Vec<String> = match kind {
        TypeKind::Single(single) => vec![single.to_string()],
        TypeKind::Multiple(set) => set.iter().map(|one| one.to_string()).collect(),
    };
    names.into_iter().filter(|name| name != "null").collect()
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
