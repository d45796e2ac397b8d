//! The payload of a job. The schema is generated from these types; the rules that no schema can state are in `rules`,
//! and the directives in [`directive`].
//!
//! A member that is missing or invalid by the schema is parsed as its default, so that all other violations are found,
//! too. Such a job is never worked.

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
    /// Name of the definition.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,128}$"), extend("x-rule" = "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ -, e.g. crm-conversations"))]
    pub source_id: String,
    /// Destination of the events.
    pub(crate) configuration: Configuration,
    /// Topics whose events are sent.
    #[schemars(length(min = 1, max = 10_000))]
    pub(crate) filters: Vec<Filter>,
    /// Transformations of event fields.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) transformations: Vec<Transformation>,
    /// Attributes to copy, with their new names.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) attribute_mappings: Vec<AttributeMapping>,
    /// The last known `ETag` of the definition, sent unchanged as `If-Match`. Without it any version is replaced.
    #[schemars(length(max = 1024), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"), extend("x-rule" = "must be printable ASCII without a space at either end, e.g. \"5d8c72a5\""))]
    pub etag: Option<String>,
    /// A sample event, to which transformations and mappings are applied before anything is sent. It is not sent.
    pub sample_event: Option<Value>,
    /// Action if somebody else has changed the definition.
    #[serde(default)]
    pub(crate) on_conflict: OnConflict,
}

/// The account, role and region that receive the events.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Configuration {
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
pub(crate) struct Filter {
    /// Type of the events, e.g. `conversation.created`.
    #[schemars(length(min = 1))]
    pub event_type: String,
    /// Conditions, which all must be met. May be empty.
    #[schemars(length(max = 10_000))]
    pub(crate) conditions: Vec<Condition>,
}

/// A condition for a field of an event.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Condition {
    /// Names separated by dots.
    pub field: String,
    /// Comparison operator.
    pub(crate) operator: Operator,
    /// Value to compare with: a list for `in`, a number or an RFC 3339 time for `gte` and `lte`.
    pub value: Value,
}

/// The comparison of a field with a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operator {
    /// Equals the value.
    Eq,
    /// Does not equal the value.
    Neq,
    /// Is one of the values.
    In,
    /// Is at least the value.
    Gte,
    /// Is at most the value.
    Lte,
    /// Refused by the schema.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Copies a field of an event, or its transformed value, to another name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Transformation {
    /// Names separated by dots.
    pub source_field: String,
    /// Names separated by dots, at most 32.
    pub target_field: String,
    /// Type of the transformation.
    #[serde(rename = "type")]
    pub(crate) kind: TransformationType,
    /// Path that `extract` takes from each entry, e.g. `[].id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Operation of `transform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
}

/// The type of a transformation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransformationType {
    /// Copies the field.
    Direct,
    /// Takes one field from each entry of a list; needs `path`.
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
pub(crate) enum Format {
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
pub(crate) struct AttributeMapping {
    /// Names separated by dots.
    pub source: String,
    /// Names separated by dots, at most 32.
    pub target: String,
}

/// The action if the definition is not the one that was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnConflict {
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
