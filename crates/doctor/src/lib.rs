//! Checks whether a worker with these settings could work here, and says what to do where it could not.
//!
//! One module for each subject; each gives [`Finding`]s. Looks at everything and changes nothing: declares nothing, makes no
//! file, takes no job. Asks for one token, as a worker would.

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

pub use self::{
    finding::{Finding, Level},
    options::{DoctorOptions, KindNeeds},
    plain_http::{get, reachable},
};

/// Checks everything for a worker of `kinds`; Genesys Cloud is left out where the simulator stands in for it.
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
        Err(error) => vec![Finding::failed("queue.url", "the queue's address", error, "set it as it says")],
        Ok(Some(file)) => store::check(&file).await,
        Ok(None) => broker::check(options, kinds).await,
    }
}

/// Which of our binaries would be started for these kinds.
fn binary(kinds: &[KindNeeds]) -> &'static str {
    match kinds {
        [first, others @ ..] if others.iter().all(|other| other.kind.worker() == first.kind.worker()) => {
            first.kind.worker()
        }
        _ => "genfleet",
    }
}
