//! The `stream-configurator` process: works `stream.configure` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::command::main::<genfleet_stream_configurator::StreamConfigurator>()
}
