//! The contract for upstream systems: JSON Schemas of jobs, reports and events, and an `AsyncAPI` document, generated
//! from the types that workers read and write and from what each worker adds ([`ContractTerms`]).
//!
//! Does not validate jobs: that is `worker::validate_job`. The schemas state as many of its rules as JSON Schema can; a
//! job that a schema refuses is invalid, and the rules beyond the schemas are listed ([`UnstatedRule`]) and published.

use std::iter;

use schemars::{JsonSchema, generate::SchemaSettings, transform::RestrictFormats};
use serde_json::{Map, Value};

use crate::handler::JobHandler;
use genfleet_job::{Kind, schema::JobSchema};

mod asyncapi;
mod event;
mod job;
mod named;
pub mod pattern;
mod text;

pub use self::{job::ENVELOPE_UNSTATED, text::write_json};
pub use crate::{
    error_code::{COMMON_CODES, ErrorCode},
    terms::{ContractTerms, UnstatedRule},
};

/// The contract of one kind of job.
#[derive(Debug)]
pub struct KindContract {
    /// The kind.
    pub kind: Kind,
    /// The `action` of its successful events.
    pub action: &'static str,
    /// The schema of its jobs, as the worker validates them.
    pub job: Value,
    /// The schema of its report.
    pub report: Value,
    /// The additions of the worker.
    pub terms: ContractTerms,
}

impl KindContract {
    /// The contract of `H`.
    pub fn of<H: JobHandler>() -> Self {
        Self {
            kind: H::KIND,
            action: H::ACTION,
            job: JobSchema::new::<H::Payload>(H::KIND).document().clone(),
            report: schema_of_serialized::<H::Report>(),
            terms: H::terms(),
        }
    }
}

/// One published document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The name that `genfleet schema` takes.
    pub name: String,
    /// The file in `deploy/contract/`.
    pub file: String,
    /// The content.
    pub body: Value,
}

/// Returns all documents of these kinds, including internal ones, for queues under `prefix`.
pub fn documents(kinds: &[KindContract], prefix: &str) -> Vec<Document> {
    let schema = |name: String, body| Document { file: format!("{name}.schema.json"), name, body };
    let upstream = || kinds.iter().filter(|one| !one.kind.is_internal());
    let jobs = upstream().map(|one| schema(one.kind.to_string(), job::schema(one)));
    let reports = upstream().map(|one| schema(format!("{}.report", one.kind), report(one)));
    let events = iter::once(schema("event".to_owned(), event::schema(kinds)))
        .chain(kinds.iter().map(|one| schema(format!("event.{}", one.kind), event::schema_of(one))));
    let asyncapi = Document {
        name: "asyncapi".to_owned(),
        file: "asyncapi.json".to_owned(),
        body: asyncapi::document(kinds, prefix),
    };
    jobs.chain(reports).chain(events).chain([asyncapi]).collect()
}

fn report(contract: &KindContract) -> Value {
    let title = format!("{} report", contract.kind);
    let prefix = named::pascal(contract.kind.as_str());
    named::name_parts(with_head(&format!("{}:report", contract.kind), &title, contract.report.clone()), &prefix)
}

/// The schema of a serialized `T`.
fn schema_of_serialized<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RestrictFormats::default());
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// `schema` with a head that names it: a URN, because it is served at no address.
fn with_head(name: &str, title: &str, mut schema: Value) -> Value {
    let mut head = Map::new();
    head.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    head.insert("$id".to_owned(), format!("urn:genfleet:schema:{name}").into());
    head.insert("title".to_owned(), title.into());
    head.insert("description".to_owned(), schema["description"].clone());
    let members = schema.as_object_mut().map(std::mem::take).unwrap_or_default();
    for (member, value) in members {
        head.entry(member).or_insert(value);
    }
    Value::Object(head)
}

/// Merges `over` into `base`: objects member by member, lists by appending, all else by replacing; `null` changes
/// nothing.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (member, value) in over {
                merge(base.entry(member.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => base.extend(over.iter().cloned()),
        (base, over) => *base = over.clone(),
    }
}
