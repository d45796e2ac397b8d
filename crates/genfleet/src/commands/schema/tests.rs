//! That the contract in `deploy/contract/` is the one this build keeps.

use std::{fs, path::PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use genfleet_core::{
    contract::{Document, write_json},
    job::Kind,
};
use serde_json::Value;

use crate::registry::contracts;

mod errors;
mod published;

/// Rewrites them, from anywhere in the workspace.
const REMEDY: &str = "run: cargo run -p genfleet -- schema --out deploy/contract";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/contract")
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
