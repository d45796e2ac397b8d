//! The `channel-provisioner` process: works `channel.provision` and `webdeployment.provision` jobs.

use genfleet_channel_provisioner::{ChannelProvisioner, WebDeploymentProvisioner};

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<(ChannelProvisioner, WebDeploymentProvisioner)>()
}
