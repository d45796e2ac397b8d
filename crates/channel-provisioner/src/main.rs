//! The `channel-provisioner` process: works `channel.provision` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<genfleet_channel_provisioner::ChannelProvisioner>()
}
