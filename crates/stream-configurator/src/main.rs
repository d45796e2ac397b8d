//! The `stream-configurator` process: works `stream.configure` and `eventbridge.configure` jobs.

use genfleet_stream_configurator::{EventbridgeConfigurator, StreamConfigurator};

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<(StreamConfigurator, EventbridgeConfigurator)>()
}
