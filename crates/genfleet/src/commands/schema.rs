//! `genfleet schema`: prints the contract for other systems, as in `deploy/contract/`.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use genfleet_core::{
    contract::{Document, KindContract, documents, write_json},
    file,
    options::ConfigError,
    queue::topology::check_prefix,
    webhook::Deliverer,
};
use serde_json::{Map, Value};

use crate::{registry::contracts, terminal};

/// The selection of documents.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The document: KIND, KIND.report, event, event.KIND or asyncapi, e.g. cdn.purge.report [default: all documents, as
    /// one object]
    #[arg(value_name = "KIND", conflicts_with = "out")]
    name: Option<String>,

    /// Write all documents into this folder, a file for each
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// First part of the name of every exchange and queue
    #[arg(long, env = "GENFLEET_QUEUE_PREFIX", default_value = "genfleet", value_name = "NAME")]
    queue_prefix: String,

    /// Print JSON; the output is JSON in any case
    #[arg(long)]
    json: bool,
}

/// Prints or writes the documents.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    check_prefix(&options.queue_prefix).map_err(|error| ConfigError::new(error.to_string()))?;
    let all = all_documents(&options.queue_prefix);
    match (&options.out, &options.name) {
        (Some(folder), _) => {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            for document in &all {
                let path = folder.join(&document.file);
                let options = File::options().write(true).create(true).truncate(true).clone();
                file::open(&path, &options, file::Mode::Public)
                    .and_then(|mut file| file.write_all(write_json(&document.body).as_bytes()))
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        (None, Some(name)) => {
            terminal::print_escaped(write_json(&find(name, all)?))?;
        }
        (None, None) => {
            terminal::print_escaped(write_json(&together(all)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the documents of all kinds, including webhook deliveries, which every worker publishes.
fn all_documents(prefix: &str) -> Vec<Document> {
    let kinds: Vec<KindContract> = contracts().into_iter().chain([KindContract::of::<Deliverer>()]).collect();
    documents(&kinds, prefix)
}

fn find(name: &str, all: Vec<Document>) -> anyhow::Result<Value> {
    let names: Vec<String> = all.iter().map(|document| document.name.clone()).collect();
    let found = all.into_iter().find(|document| document.name == name);
    let unknown = || ConfigError::new(format!("there is no {name:?}; there are {}", names.join(", ")));
    Ok(found.ok_or_else(unknown)?.body)
}

fn together(all: Vec<Document>) -> Value {
    Value::Object(all.into_iter().map(|document| (document.name, document.body)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests;
