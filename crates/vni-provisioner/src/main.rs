//! The `vni-provisioner` process: works `vni.provision` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<genfleet_vni_provisioner::VniProvisioner>()
}
