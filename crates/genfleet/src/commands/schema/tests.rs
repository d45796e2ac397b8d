//! That the contract in `deploy/contract/` is the one this build keeps.

use std::{fs, path::PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use genfleet_core::{
    contract::{Document, ENVELOPE_UNSTATED, KindContract, UnstatedRule, write_json},
    job::{Kind, Violation},
};
use serde_json::Value;

use crate::registry::{CheckOptions, Checker, contracts};

mod agreement;
mod errors;
mod published;
mod samples;

/// Rewrites them, from anywhere in the workspace.
const REMEDY: &str = "run: cargo run -p genfleet -- schema --out deploy/contract";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/contract")
}

/// One kind's jobs, as the published schema and as the worker judge them.
struct Judges {
    kind: Kind,
    schemas: Schemas,
    schema: SchemaIndex,
    checker: Checker,
    unstated: Vec<UnstatedRule>,
}

/// What the two make of a job.
#[derive(Debug, PartialEq)]
enum Judgement {
    BothTake,
    BothRefuse,
    /// The schema takes it; the worker refuses it by these rules, which no schema can state.
    UnstatedRule(Vec<UnstatedRule>),
    /// The two contradict each other.
    Contradiction(String),
}

impl Judges {
    /// Of the schema that is published in the file.
    fn of(contract: &KindContract) -> Self {
        let file = folder().join(format!("{}.schema.json", contract.kind));
        let published =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}; {REMEDY}", file.display()));
        let mut schemas = Schemas::new();
        let schema = compiled(&mut schemas, &serde_json::from_str(&published).unwrap());
        let unstated = ENVELOPE_UNSTATED.iter().chain(&contract.terms.unstated).copied().collect();
        Self {
            kind: contract.kind,
            schemas,
            schema,
            checker: Checker::new(&CheckOptions::default()).unwrap(),
            unstated,
        }
    }

    fn judge(&self, job: &Value) -> Judgement {
        let by_schema = self.schemas.validate(job, self.schema).map_err(|error| format!("{error:#}"));
        let by_worker = self.checker.check(self.kind, job.to_string().as_bytes(), None).unwrap();
        match (by_schema, by_worker) {
            (Ok(()), Ok(_)) => Judgement::BothTake,
            (Err(_), Err(_)) => Judgement::BothRefuse,
            (Err(why), Ok(_)) => Judgement::Contradiction(format!("the worker takes what the schema refuses: {why}")),
            (Ok(()), Err(rejection)) => {
                let rules: Option<Vec<UnstatedRule>> = rejection.violations.iter().map(|one| self.rule(one)).collect();
                match rules.filter(|rules| !rules.is_empty()) {
                    Some(rules) => Judgement::UnstatedRule(rules),
                    None => {
                        Judgement::Contradiction(format!("the schema takes what the worker refuses: {rejection:?}"))
                    }
                }
            }
        }
    }

    fn rule(&self, violation: &Violation) -> Option<UnstatedRule> {
        let same = |(part, pattern): (&str, &str)| pattern == "*" || part == pattern;
        let lies_at = |at: &str| {
            let (parts, patterns) = (violation.pointer.split('/'), at.split('/'));
            parts.clone().count() == patterns.clone().count() && parts.zip(patterns).all(same)
        };
        let breaks = |rule: &&UnstatedRule| lies_at(rule.at) && violation.message.contains(rule.message);
        self.unstated.iter().find(breaks).copied()
    }
}

fn compiled(schemas: &mut Schemas, schema: &Value) -> SchemaIndex {
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    let name = schema["$id"].as_str().unwrap().to_owned();
    compiler.add_resource(&name, schema.clone()).unwrap();
    compiler.compile(&name, schemas).unwrap_or_else(|error| panic!("{name} does not compile: {error:#}"))
}

fn all() -> Vec<Document> {
    super::all_documents("genfleet")
}
