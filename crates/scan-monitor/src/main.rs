//! The `scan-monitor` process: works `file.scan` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<genfleet_scan_monitor::ScanMonitor>()
}
