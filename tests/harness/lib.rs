//! The tools of whole-product tests: a broker, the binaries as processes, and an AMQP client that acts as
//! producer and reads the results.
//!
//! A test is a function in a module of `tests/it/`; its name is a sentence:
//!
//! ```no_run
//! use harness::{Amqp, Broker, Prefix, Process, eventually, json_properties, seconds};
//!
//! # async fn a_purge_ends_in_an_event() {
//! let broker = Broker::shared().await;
//! let prefix = Prefix::on(broker); // first, so that it is dropped (and cleaned up) last
//! let purger = Process::binary("purger")
//!     .args(["--queue-prefix", &prefix, "--admin-addr", "127.0.0.1:0"])
//!     .env("GENFLEET_QUEUE_URL", broker.url())
//!     .start();
//! purger.wait_ready(seconds(20)).await;
//!
//! let amqp = Amqp::connect(broker.url()).await;
//! let mut events = amqp.declare_events_queue(&prefix).await;
//! amqp.publish_job(&prefix, "cdn.purge", r#"{"payload":{"paths":["/a"]}}"#, json_properties()).await;
//!
//! assert_eq!(events.next_event(seconds(10)).await["data"]["outcome"], "succeeded");
//! eventually(seconds(5), "the queue is empty", async || {
//!     amqp.count(&format!("{prefix}.jobs.cdn.purge")).await == 0
//! })
//! .await;
//! purger.terminate();
//! assert_eq!(purger.wait(seconds(30)).await, 0);
//! # }
//! ```
//!
//! - `tests/run` builds the binaries and starts one broker for all tests. `cargo test` alone starts a broker if one is
//!   installed, but does not build the binaries.
//! - Tests share that broker, each under a [`Prefix`] of its own. A test that stops, kills or alarms its broker takes a
//!   [`Broker::private`] one. It is `None` if none is installed; the test is then counted as skipped.
//! - The functions here return no errors. They panic with a reason if the test cannot continue. The output of processes is
//!   printed if their test fails.
//! - No test sleeps. It waits for the expected result with [`eventually`], which reports what did not happen.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "only tests call this: a panic with a good message is how a test fails"
)]

mod admin;
mod amqp;
mod broker;
mod captured;
mod clamd;
mod contract;
mod events;
mod eventually;
mod launch;
mod message;
mod metrics;
mod node;
mod prefix;
mod process;
mod prometheus;
mod proxy;
mod python;
mod raw;
mod receiver;
mod skip;
mod spans;
mod tls;

pub use amqp::{Amqp, headers, json_properties};
pub use broker::Broker;
pub use clamd::{Clamd, eicar};
pub use contract::assert_keeps_contract;
pub use events::Events;
pub use eventually::{Verdict, eventually, seconds};
pub use launch::Launch;
pub use message::Message;
pub use metrics::Metrics;
pub use node::fresh_directory;
pub use prefix::{KINDS, Prefix};
pub use process::Process;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use python::Python;
pub use raw::{hostile_properties, publish_unreadable, publish_with};
pub use receiver::{Delivery, Receiver};
pub use skip::skip;
pub use spans::{Collector, Span};
pub use tls::encrypt;
