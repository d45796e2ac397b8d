//! Checks whether a worker with the given settings could work on this machine, and says what to do if it could not.
//!
//! There is one module for each subject; each returns [`Finding`]s. The checks only read: they declare nothing, leave
//! no file and take no job. They request one token, as a worker would.

use genfleet_core::audit::default_file;

mod admin_port;
mod audit_file;
mod bindings;
mod broker;
mod clock;
mod consumer_timeout;
mod delays;
mod disk;
mod exchanges;
mod feature_flags;
mod finding;
mod former;
mod genesys;
mod management;
mod memory;
mod nodes;
mod options;
mod plain_http;
mod policies;
mod queues;
mod store;
mod token;
mod version;
mod webhook;

use self::finding::Check;
pub use self::{
    finding::{Finding, Level},
    options::{DoctorOptions, KindNeeds},
    plain_http::{get, reachable},
};

/// Runs all checks for a worker of `kinds`. Genesys Cloud is not checked if the simulator is used instead.
pub async fn examine(options: &DoctorOptions, kinds: &[KindNeeds], is_simulated: bool) -> Vec<Finding> {
    let genesys = genesys::check(options, kinds, is_simulated);
    let (mut findings, genesys) = tokio::join!(queue(options, kinds), genesys);
    findings.extend(genesys);
    findings.extend(audit_file::check(&options.worker.audit, &default_file(binary(kinds))));
    findings.extend(webhook::check(&options.webhooks).await);
    findings.push(admin_port::check(options.worker.admin_addr.as_ref()).await);
    findings
}

async fn queue(options: &DoctorOptions, kinds: &[KindNeeds]) -> Vec<Finding> {
    match options.queue.sqlite_file() {
        Err(error) => {
            vec![Check::new("queue.url", "the queue's address").failed(error, "set it as the message says")]
        }
        Ok(Some(file)) => store::check(&file).await,
        Ok(None) => broker::check(options, kinds).await,
    }
}

/// The name of the program that works these kinds.
fn binary(kinds: &[KindNeeds]) -> &'static str {
    match kinds {
        [first, others @ ..] if others.iter().all(|other| other.kind.worker() == first.kind.worker()) => {
            first.kind.worker()
        }
        _ => "genfleet",
    }
}
