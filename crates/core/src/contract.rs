//! The contract as upstream systems read it: JSON Schemas of jobs, reports and events, and an `AsyncAPI` document,
//! made of the types that workers read and write, and of what each worker says of its own rules ([`Terms`]).
//!
//! Judges no job: that is `worker::validate`. The schemas state as many of its rules as JSON Schema can; what a
//! schema refuses it refuses, too, and what it refuses beyond that is listed ([`Unstated`]) and published.

use std::iter;

use schemars::{JsonSchema, generate::SchemaSettings, transform::RestrictFormats};
use serde_json::{Map, Value};

use crate::handler::JobHandler;
use genfleet_job::{Kind, schema::JobSchema};

pub mod asyncapi;
pub mod code;
pub mod event;
pub mod job;
mod named;
pub mod pattern;
pub mod text;

use self::code::Code;

/// What a worker says of its jobs beyond the shape of their types.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Jobs that keep every rule, the plainest first.
    pub examples: Vec<Value>,
    /// The rules of its own that JSON Schema can state: laid over the payload's schema, member by member.
    pub rules: Value,
    /// The rules that it cannot.
    pub unstated: Vec<Unstated>,
    /// What its jobs fail with, beside what every job can fail with.
    pub codes: Vec<Code>,
    /// JSON Schemas of the members it adds to an event's `error`, by name.
    pub error_members: Map<String, Value>,
}

/// A rule that no JSON Schema can state: a job may break it although the schema accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unstated {
    /// Where it is told: a JSON pointer, `*` for any entry of a list.
    pub at: &'static str,
    /// The rule, for people.
    pub rule: &'static str,
    /// What the violation's message has in it.
    pub told: &'static str,
}

/// What one kind of job is held to, and what it tells.
#[derive(Debug)]
pub struct KindContract {
    /// Which kind.
    pub kind: Kind,
    /// `action` of its successful events.
    pub action: &'static str,
    /// The shape of a job, as its worker checks it.
    pub job: Value,
    /// The shape of its report.
    pub report: Value,
    /// See [`Terms`].
    pub terms: Terms,
}

impl KindContract {
    /// The contract of `H`.
    pub fn of<H: JobHandler>() -> Self {
        Self {
            kind: H::KIND,
            action: H::ACTION,
            job: JobSchema::new::<H::Payload>(H::KIND).document().clone(),
            report: written::<H::Report>(),
            terms: H::terms(),
        }
    }
}

/// One published document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it is asked for by; its file has `.schema.json` or `.json` after it.
    pub name: String,
    /// Its file in `deploy/contract/`.
    pub file: String,
    /// What it says.
    pub body: Value,
}

/// All documents of these kinds, for queues under `prefix`.
pub fn documents(kinds: &[KindContract], prefix: &str) -> Vec<Document> {
    let schema = |name: String, body| Document { file: format!("{name}.schema.json"), name, body };
    let upstream = || kinds.iter().filter(|one| one.kind != Kind::WebhookDeliver);
    let jobs = upstream().map(|one| schema(one.kind.to_string(), job::schema(one)));
    let reports = upstream().map(|one| schema(format!("{}.report", one.kind), report(one)));
    let events = iter::once(schema("event".to_owned(), event::schema(kinds)))
        .chain(event::schemas(kinds).map(|(kind, body)| schema(format!("event.{kind}"), body)));
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
    named::named(headed(&format!("{}:report", contract.kind), &title, contract.report.clone()), &prefix)
}

/// The schema of what is written as `T`.
fn written<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RestrictFormats::default());
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// `schema` with its own name at its head: no address, since nobody serves it at one.
fn headed(name: &str, title: &str, mut schema: Value) -> Value {
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

/// Lays `over` over `base`: objects member by member, lists one after the other, all else replaced; null is nothing.
fn lay(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (member, value) in over {
                lay(base.entry(member.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => base.extend(over.iter().cloned()),
        (base, over) => *base = over.clone(),
    }
}
