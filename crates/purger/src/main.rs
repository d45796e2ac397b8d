//! The `purger` process: works `cdn.purge` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<genfleet_purger::Purger>()
}
