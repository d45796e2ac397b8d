//! The `scan-monitor` process: works `file.scan` and `media.scan` jobs.

fn main() -> std::process::ExitCode {
    genfleet_core::worker::main::<(genfleet_scan_monitor::ScanMonitor, genfleet_scan_monitor::MediaScan)>()
}
