//! Whether the jobs that a worker receives at the same time fit into its memory if each has the maximum size.

use std::fs;

use genfleet_core::{job::MAX_BODY_BYTES, message::MAX_HEADER_BYTES, worker::WorkerOptions};

use super::{
    finding::{Check, Finding, size},
    options::KindNeeds,
};

/// The lanes for new and for begun jobs; from each a worker receives as many jobs as the prefetch.
const LANES: u64 = 2;

/// Compares the settings with the memory of this machine or container.
pub(crate) fn check(worker: &WorkerOptions, kinds: &[KindNeeds]) -> Finding {
    let held: u64 = kinds.iter().map(|needs| worker.concurrency(needs.kind, needs.concurrency) as u64).sum();
    judge(held * LANES, available())
}

fn judge(jobs: u64, available: Option<u64>) -> Finding {
    let most = jobs * (MAX_BODY_BYTES + MAX_HEADER_BYTES) as u64;
    let looked_at = format!("prefetch against memory: {jobs} jobs at once, {} if each is 1 MiB", size(most));
    let check = Check::new("worker.memory", looked_at);
    let Some(available) = available else {
        return check.skipped("the size of the memory could not be read", "compare it yourself");
    };
    let found = format!("{} available", size(available));
    if most > available / 2 {
        return check.warning(found, "if jobs can be that large, lower --concurrency or give the worker more memory");
    }
    check.ok(found)
}

/// Returns the memory limit of the container, or the memory of the machine, in bytes.
fn available() -> Option<u64> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(number);
    limit.or_else(|| in_meminfo(&fs::read_to_string("/proc/meminfo").ok()?))
}

fn in_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn more_than_half_of_the_memory_is_a_warning() {
        const GIB: u64 = 1 << 30;
        assert_eq!(judge(512, Some(2 * GIB)).level, Level::Ok);
        assert_eq!(judge(512, Some(GIB)).level, Level::Warning);
        assert_eq!(judge(512, None).level, Level::Skipped);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(in_meminfo("MemTotal:        8040168 kB\nMemFree: 1 kB\n"), Some(8_040_168 * 1024));
        assert_eq!(in_meminfo("nothing"), None);
    }
}
