//! Whole-product tests, with a module for each subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers panic like the test itself"
)]

mod admin_port;
mod alerts;
mod api_faults;
mod attacks;
mod audit;
mod bad_jobs;
mod batch;
mod cdn;
mod channel_provisioner;
mod command_line;
mod console;
mod crashes;
mod dead_letters;
mod delays;
mod deploy;
mod docs;
mod doctor;
mod embedded;
mod eventbridge;
mod fleet;
mod former;
mod harness_works;
mod health;
mod hostile_messages;
mod ledger;
mod limits;
mod load;
mod media_scan;
mod metrics;
mod minimal_worker;
mod monitoring;
mod observed;
mod producers;
mod purge_on_rabbit;
mod queue_wait;
mod rights;
mod runbook;
mod scan_monitor;
mod silent;
mod stack;
mod status;
mod stream_configurator;
mod traces;
mod troubles;
mod two_kinds;
mod vendors_client;
mod vni_provisioner;
mod web_deployments;
mod webhooks;
