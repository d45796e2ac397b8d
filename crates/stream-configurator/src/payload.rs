//! What upstream sends. Shapes are the schema's, made of these types; the rules that no schema can state are in
//! `rules`, what directives ask for in [`directive`].
//!
//! A member that the schema refuses, or misses, reads as its default here, so that all else that is wrong with a job
//! is found with it; no such job is ever worked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) mod directive;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

/// An `EventBridge` source definition to register.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Payload {
    /// Names the definition.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,128}$"), extend("x-rule" = "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ -, e.g. crm-conversations"))]
    pub source_id: String,
    /// Where the events go.
    pub configuration: Configuration,
    /// Which events go there.
    #[schemars(length(min = 1, max = 10_000))]
    pub filters: Vec<Filter>,
    /// How fields of an event become others.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub transformations: Vec<Transformation>,
    /// Which attributes are copied, and how they are named then.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub attribute_mappings: Vec<AttributeMapping>,
    /// The definition's `ETag` as it was last read, sent as `If-Match` as it is. Without it any version is replaced.
    #[schemars(length(max = 1024), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"), extend("x-rule" = "must be printable ASCII without a space at either end, e.g. \"5d8c72a5\""))]
    pub etag: Option<String>,
    /// An event to try transformations and mappings on, before anything is sent. Not sent itself.
    pub sample_event: Option<Value>,
    /// What to do if somebody else has changed the definition.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// The account, role and region that events are sent to.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Configuration {
    /// 12 digits.
    #[schemars(regex(pattern = r"^[0-9]{12}$"), extend("x-rule" = "must be the 12 digits of an AWS account, e.g. 123456789012"))]
    pub aws_account_id: String,
    /// A role of that account.
    #[schemars(regex(pattern = r"^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([!-~]+/)?[A-Za-z0-9_+=,.@-]{1,64}$"), extend("x-rule" = "must be the ARN of an IAM role, e.g. arn:aws:iam::123456789012:role/genesys-events"))]
    pub role_arn: String,
    /// The name of an AWS region, e.g. `us-east-1`.
    #[schemars(regex(
        pattern = r"^([a-z]{2}|eusc)(-[a-z]{2,4})?-(north|south|east|west|central|northeast|northwest|southeast|southwest)-[1-9][0-9]?$"
    ), extend("x-rule" = "must be the name of an AWS region, e.g. us-east-1"))]
    pub region: String,
}

/// Events of one type that meet all conditions.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Filter {
    /// E.g. `conversation.created`.
    #[schemars(length(min = 1))]
    pub event_type: String,
    /// May be empty.
    #[schemars(length(max = 10_000))]
    pub conditions: Vec<Condition>,
}

/// What a field of an event has to be.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Condition {
    /// Names separated by dots.
    pub field: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what: a list for `in`, a number or an RFC 3339 time for `gte` and `lte`.
    pub value: Value,
}

/// How a field is compared with a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// Is it.
    Eq,
    /// Is anything else.
    Neq,
    /// Is one of them.
    In,
    /// Is at least that.
    Gte,
    /// Is at most that.
    Lte,
    /// Refused by the schema.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A field of an event, or what is made of it, under another name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Transformation {
    /// Names separated by dots.
    pub source_field: String,
    /// Names separated by dots, at most 32.
    pub target_field: String,
    /// What is made of it.
    #[serde(rename = "type")]
    pub kind: TransformationType,
    /// What `extract` takes out of each entry, e.g. `[].id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What `transform` makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// What a transformation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransformationType {
    /// Copies the field.
    Direct,
    /// Takes one field out of each entry of a list; needs `path`.
    Extract,
    /// Writes the field in another format; needs `format`.
    Transform,
    /// Refused by the schema.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A way to write a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A time.
    Iso8601,
    /// Refused by the schema.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// An attribute that is copied.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct AttributeMapping {
    /// Names separated by dots.
    pub source: String,
    /// Names separated by dots, at most 32.
    pub target: String,
}

/// What to do if the definition is not the one that was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Replace it.
    #[default]
    Overwrite,
    /// Leave it as it is; the job fails.
    Fail,
    /// Refused by the schema.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
