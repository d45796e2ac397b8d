//! The `stream-configurator` process: works `stream.configure` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<genfleet_stream_configurator::StreamConfigurator>()
}
