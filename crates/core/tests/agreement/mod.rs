//! That the published schema of a kind and its worker agree on every job, but for the rules that are published as
//! unstated. Each worker's `tests/contract.rs` includes this file, and says of what its jobs are made and what breaks
//! the unstated rules.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "no worker needs all strategies; a test's helpers panic"
)]

use std::{cell::Cell, collections::BTreeSet, slice};

use boon::{Compiler, SchemaIndex, Schemas};
use clap::{Args, Command, FromArgMatches};
use genfleet_core::{
    contract::{ENVELOPE_UNSTATED, KindContract, UnstatedRule, documents},
    handler::JobHandler,
    job::{Kind, Violation},
    webhook::{JobWebhooks, WebhookRules},
    worker::{JobRules, validate_job},
};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

/// Enough to find each of the known ways to disagree in a second or two; `PROPTEST_CASES` makes it more.
const CASES: u32 = 600;

/// What schema and worker make of a job.
#[derive(Debug)]
enum Judgement {
    BothTake,
    BothRefuse,
    /// The schema takes it; the worker refuses it by these rules, which no schema can state.
    Unstated(Vec<UnstatedRule>),
    /// The two contradict each other.
    Contradiction(String),
}

/// One kind's jobs, as the schema and as the worker with its defaults judge them.
struct Judges<H: JobHandler> {
    contract: KindContract,
    schemas: Schemas,
    schema: SchemaIndex,
    rules: JobRules,
    options: H::Options,
}

impl<H: JobHandler> Judges<H> {
    fn new() -> Self {
        let contract = KindContract::of::<H>();
        let mut schemas = Schemas::new();
        let schema = compile(&mut schemas, &documents(slice::from_ref(&contract), "genfleet")[0].body);
        let matches = H::Options::augment_args(Command::new("unset").no_binary_name(true));
        let matches = matches.try_get_matches_from([""; 0]).unwrap();
        let webhooks = WebhookRules::of_workers(&[], &[], JobWebhooks::On);
        let rules = JobRules::new::<H::Payload>(H::KIND, move |url| webhooks.violations(url));
        Self { contract, schemas, schema, rules, options: H::Options::from_arg_matches(&matches).unwrap() }
    }

    fn judge(&self, job: &Value) -> Judgement {
        let by_schema = self.schemas.validate(job, self.schema).map_err(|error| format!("{error:#}"));
        let by_worker = validate_job::<H>(&self.rules, &self.options, job.to_string().as_bytes(), None, None);
        match (by_schema, by_worker) {
            (Ok(()), Ok(_)) => Judgement::BothTake,
            (Err(_), Err(_)) => Judgement::BothRefuse,
            (Err(why), Ok(_)) => Judgement::Contradiction(format!("the worker takes what the schema refuses: {why}")),
            (Ok(()), Err(rejection)) => {
                let rules: Option<Vec<UnstatedRule>> = rejection.violations.iter().map(|one| self.rule(one)).collect();
                match rules.filter(|rules| !rules.is_empty()) {
                    Some(rules) => Judgement::Unstated(rules),
                    None => {
                        Judgement::Contradiction(format!("the schema takes what the worker refuses: {rejection:?}"))
                    }
                }
            }
        }
    }

    fn unstated(&self) -> impl Iterator<Item = &UnstatedRule> {
        ENVELOPE_UNSTATED.iter().chain(&self.contract.terms.unstated)
    }

    fn rule(&self, violation: &Violation) -> Option<UnstatedRule> {
        let same = |(part, pattern): (&str, &str)| pattern == "*" || part == pattern;
        let lies_at = |at: &str| {
            let (parts, patterns) = (violation.pointer.split('/'), at.split('/'));
            parts.clone().count() == patterns.clone().count() && parts.zip(patterns).all(same)
        };
        self.unstated().find(|rule| lies_at(rule.at) && violation.message.contains(rule.message)).copied()
    }
}

fn compile(schemas: &mut Schemas, schema: &Value) -> SchemaIndex {
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    let name = schema["$id"].as_str().unwrap().to_owned();
    compiler.add_resource(&name, schema.clone()).unwrap();
    compiler.compile(&name, schemas).unwrap_or_else(|error| panic!("{name} does not compile: {error:#}"))
}

/// Generates jobs, and fails if schema and worker disagree. `places` are the payload's members with texts that are
/// nearly right there.
pub(crate) fn agree<H: JobHandler>(places: Places) {
    let judges = Judges::<H>::new();
    let examples = &judges.contract.terms.examples;
    assert!(examples.len() >= 2, "{}: the plainest, and one with everything", H::KIND);
    for example in examples {
        for job in [example, &with_fractions(example)] {
            assert!(matches!(judges.judge(job), Judgement::BothTake), "{job}: {:?}", judges.judge(job));
        }
    }
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { CASES };
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..default });
    let taken = Cell::new(0);
    let ran = runner.run(&jobs(&judges.contract, places), |job| {
        let judgement = judges.judge(&job);
        taken.set(taken.get() + u32::from(matches!(judgement, Judgement::BothTake)));
        match judgement {
            Judgement::Contradiction(why) => Err(TestCaseError::fail(format!("{why}\n{job}"))),
            Judgement::BothTake | Judgement::BothRefuse | Judgement::Unstated(_) => Ok(()),
        }
    });
    ran.unwrap_or_else(|error| panic!("{}: {error}", H::KIND));
    let shares = cases / 20..cases - cases / 20;
    assert!(shares.contains(&taken.get()), "{} of {cases} jobs taken: so one-sided they prove little", taken.get());
}

/// Fails unless each unstated rule is broken, alone, by one of `witnesses`: changes of the richest example, by pointer.
/// A list of exceptions that nobody checks only grows.
pub(crate) fn unstated_rules_can_be_broken<H: JobHandler>(witnesses: Vec<Value>) {
    let judges = Judges::<H>::new();
    let of_envelope = [
        json!({ "/notBefore": "2026-01-02T00:00:00Z", "/deadline": "2026-01-01T00:00:00Z" }),
        json!({ "/webhook": { "url": "http://hooks.example/a" } }),
    ];
    let mut broken = BTreeSet::new();
    for change in of_envelope.into_iter().chain(witnesses) {
        let mut job = judges.contract.terms.examples.last().unwrap().clone();
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, member) = pointer.rsplit_once('/').unwrap();
            job.pointer_mut(parent).unwrap()[member] = value.clone();
        }
        match judges.judge(&job) {
            Judgement::Unstated(rules) => broken.extend(rules.iter().map(|rule| rule.rule)),
            other => panic!("{other:?}: {job}"),
        }
    }
    let unstated: BTreeSet<_> = judges.unstated().map(|rule| rule.rule).collect();
    assert_eq!(broken, unstated, "{}", H::KIND);
}

/// A list of `count` entries.
pub(crate) fn entries(count: usize, entry: &dyn Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(entry).collect()
}

/// Characters at which rules begin and end.
const EDGES: &str = "\0\t\n\r \u{7f}\u{85}\u{a0}\u{ad}\u{2028}\u{3000}\u{feff}éß１。😀.*/?#%@:;,\"'\\-_0aZ[](){}$^|+";

/// A job's places, each with texts that are nearly right there.
pub(crate) type Places = Vec<(&'static str, BoxedStrategy<Value>)>;

/// What is done to an example.
#[derive(Clone, Debug)]
enum Edit {
    /// Something nearly right, where it belongs.
    Put(&'static str, Value),
    /// Anything, anywhere.
    Change(Index, SampleChange),
}

#[derive(Clone, Debug)]
enum SampleChange {
    /// Something else.
    Replace(Value),
    /// A member or an entry is gone.
    Remove(Index),
    /// Another member, or another entry.
    Add(String, Value),
    /// A character more in a text.
    Insert(Index, char),
    /// One less.
    Delete(Index),
}

/// Jobs: the examples with parts of them replaced, by what is nearly right for the place and by anything.
fn jobs(contract: &KindContract, own: Places) -> impl Strategy<Value = Value> + use<> {
    let places = envelope(contract.kind).into_iter().chain(own);
    let put = places.map(|(at, values)| values.prop_map(move |value| Edit::Put(at, value)).boxed()).collect::<Vec<_>>();
    let edit = prop_oneof![6 => proptest::strategy::Union::new(put), 3 => anywhere()];
    let examples = contract.terms.examples.clone();
    (select(examples), prop::collection::vec(edit, 0..5)).prop_map(|(mut job, edits)| {
        for edit in edits {
            edit.make(&mut job);
        }
        job
    })
}

fn anywhere() -> impl Strategy<Value = Edit> {
    let edges: Vec<char> = EDGES.chars().collect();
    let names = select(vec!["id", "kind", "payload", "etag", "x", "", "a/b", "null"]).prop_map(str::to_owned);
    let change = prop_oneof![
        anything().prop_map(SampleChange::Replace),
        any::<Index>().prop_map(SampleChange::Remove),
        (names, anything()).prop_map(|(name, value)| SampleChange::Add(name, value)),
        (any::<Index>(), select(edges)).prop_map(|(place, edge)| SampleChange::Insert(place, edge)),
        any::<Index>().prop_map(SampleChange::Delete),
    ];
    (any::<Index>(), change).prop_map(|(at, change)| Edit::Change(at, change))
}

impl Edit {
    fn make(self, job: &mut Value) {
        match self {
            Self::Put(pointer, value) => {
                let (parent, member) = pointer.rsplit_once('/').unwrap();
                if let Some(Value::Object(members)) = job.pointer_mut(parent) {
                    members.insert(member.to_owned(), value);
                }
            }
            Self::Change(index, change) => {
                let mut all = vec![];
                pointers(job, String::new(), &mut all);
                change.make(job.pointer_mut(&all[index.index(all.len())]).unwrap());
            }
        }
    }
}

impl SampleChange {
    fn make(self, place: &mut Value) {
        match (self, place) {
            (Self::Replace(value), place) => *place = value,
            (Self::Remove(index), Value::Object(members)) if !members.is_empty() => {
                let name = members.keys().nth(index.index(members.len())).unwrap().clone();
                members.shift_remove(&name);
            }
            (Self::Remove(_), Value::Array(entries)) => drop(entries.pop()),
            (Self::Add(name, value), Value::Object(members)) => drop(members.insert(name, value)),
            (Self::Add(_, value), Value::Array(entries)) => entries.push(value),
            (Self::Insert(at, edge), Value::String(text)) => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.insert(at.index(letters.len() + 1), edge);
                *text = letters.into_iter().collect();
            }
            (Self::Delete(at), Value::String(text)) if !text.is_empty() => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.remove(at.index(letters.len()));
                *text = letters.into_iter().collect();
            }
            _ => {}
        }
    }
}

/// Writes the same integers with a fraction, as `8.0`: in JSON Schema they are still integers.
fn with_fractions(job: &Value) -> Value {
    match job {
        Value::Object(members) => members.iter().map(|(name, inner)| (name.clone(), with_fractions(inner))).collect(),
        Value::Array(entries) => entries.iter().map(with_fractions).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| pointers(inner, below(name), found)),
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(index, inner)| pointers(inner, below(&index.to_string()), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(at);
}

pub(crate) fn anything() -> impl Strategy<Value = Value> {
    let numbers = select(vec![
        json!(0),
        json!(1),
        json!(-1),
        json!(50),
        json!(51),
        json!(1.0),
        json!(8.0),
        json!(1.5),
        json!(65_535),
        json!(65_536),
        json!(443.0),
        json!(1e30),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(-0.0),
        json!(0.1),
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers,
        any::<String>().prop_map(Value::from),
        select(vec!["", ".", "..", "/*", "in", "gte", "extract", "0", "true", "\u{feff}"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

pub(crate) fn texts(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    strategy.prop_map(Value::from).boxed()
}

pub(crate) fn some(values: &[&str]) -> BoxedStrategy<String> {
    select(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()).boxed()
}

pub(crate) fn lists(entry: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(entry, 0..=most).prop_map(Value::from).boxed()
}

pub(crate) fn time() -> BoxedStrategy<String> {
    prop_oneof![
        "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
        some(&[
            "2026-11-20T12:00:00Z", "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00Z", "0000-01-01T00:00:00+23:59", "2016-12-31T23:59:60Z",
            "2026-11-20T12:00:60Z", "2026-11-20T24:00:00Z", "2026-11-20T12:00:00+24:00", "2026-11-20T12:00:00+23:60",
            "2026-11-20T12:00:00", "2026-11-20", "2026-11-20T12:00:00Z\n", " 2026-11-20T12:00:00Z",
            "2026-11-20T12:00:00.Z", "2026-11-20T12:00:00,5Z", "2026-11-20T12:00:00-00:00", "+002026-11-20T12:00:00Z",
            "2016-12-31T15:59:60-08:00", "2026-11-20T12:00:00[UTC]",
        ]),
    ]
    .boxed()
}

pub(crate) fn uuid() -> BoxedStrategy<String> {
    prop_oneof![
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9A-F]{4}-[0-9a-f]{12}",
        "[0-9a-g]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{11,13}",
        some(&["{3f2504e0-4f89-11d3-9a0c-0305e82c3301}", "urn:uuid:3f2504e0-4f89-11d3-9a0c-0305e82c3301", ""]),
    ]
    .boxed()
}

fn envelope(kind: Kind) -> Places {
    let kinds = some(&[kind.as_str(), "cdn.purge", "file.scan", "webhook.deliver", ""]);
    vec![
        ("/id", texts("[A-Za-z0-9._:-]{0,6}[ é\n]?|[a-z]{127,130}")),
        ("/kind", texts(kinds)),
        ("/notBefore", texts(time())),
        ("/deadline", texts(time())),
        ("/webhook", prop_oneof![Just(json!({})), Just(json!({ "url": "" })), Just(Value::Null), anything()].boxed()),
        ("/maxAttempts", anything().boxed()),
    ]
}
