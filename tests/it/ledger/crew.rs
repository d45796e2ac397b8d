//! Two processes of each worker. They are killed, restarted and suspended; their logs are kept.

use std::path::PathBuf;

use genfleet_simulator::Simulator;
use harness::{Broker, Launch, Prefix, Process, fresh_directory, seconds};

use crate::stack::worker;

/// The workers, in the order of their kinds in [`super::jobs::KINDS`].
pub(super) const WORKERS: [&str; 5] =
    ["purger", "stream-configurator", "channel-provisioner", "vni-provisioner", "scan-monitor"];

/// Maximum number of jobs that all processes hold together: see [`CONCURRENCY`].
pub(super) const IN_FLIGHT: usize = 2 * (3 * 32 + 2 * 8);

pub(super) const CONCURRENCY: &str = "32,channel.provision=8,vni.provision=8";
/// Settings with which jobs succeed on this machine and end within seconds.
pub(super) const SETTINGS: [&[&str]; 5] = [
    &[],
    &[],
    &["--license-limit", "100000"],
    &["--gateway-allow", "127.0.0.0/8", "--max-interfaces", "100000"],
    &["--poll-interval", "1s"],
];
/// The log settings with which the path of a job can be traced.
pub(super) const LOG: &str = "info,genfleet_core::worker=debug,genfleet_queue=debug";

/// The processes. Slots `2 * n` and `2 * n + 1` belong to worker `n`.
pub(super) struct Crew<'a> {
    prefix: &'a Prefix,
    simulator: &'a Simulator,
    urls: [String; 2],
    processes: Vec<Process>,
    /// The logs of killed processes.
    past: Vec<String>,
    /// The folders with their audit files, which are kept when they are restarted.
    folder: PathBuf,
}

impl<'a> Crew<'a> {
    /// Starts all processes, the first of each worker with the first URL and the second with the second, and waits until they
    /// are ready.
    pub(super) async fn start(
        broker: &Broker,
        urls: [String; 2],
        prefix: &'a Prefix,
        simulator: &'a Simulator,
    ) -> Self {
        let folder = fresh_directory("ledger");
        let mut crew = Self { prefix, simulator, urls, processes: Vec::new(), past: Vec::new(), folder };
        crew.processes = (0..2 * WORKERS.len()).map(|slot| crew.launch(broker, slot).start()).collect();
        for process in &crew.processes {
            process.wait_ready(seconds(60)).await;
        }
        crew
    }

    /// Kills (SIGKILL) the process of a slot and starts another in its place.
    pub(super) fn replace(&mut self, broker: &Broker, slot: usize) {
        self.processes[slot].kill9();
        let successor = self.launch(broker, slot).start();
        let dead = std::mem::replace(&mut self.processes[slot], successor);
        self.past.push(dead.stderr());
    }

    /// Returns the slot of a random process of each worker.
    pub(super) fn one_of_each(&self, random: &mut fastrand::Rng) -> Vec<&Process> {
        (0..WORKERS.len()).map(|worker| &self.processes[2 * worker + random.usize(..2)]).collect()
    }

    /// Returns a random slot.
    pub(super) fn any_slot(&self, random: &mut fastrand::Rng) -> usize {
        random.usize(..self.processes.len())
    }

    /// How many deliveries the processes have not acknowledged yet.
    pub(super) async fn held(&self) -> u64 {
        let mut held = 0;
        for process in self.processes.iter().filter(|process| process.is_running()) {
            held += process.metrics().await.count("genfleet_jobs_held", &[]);
        }
        held
    }

    /// Stops all processes, and returns those that did not end correctly.
    pub(super) async fn stop(&self) -> Vec<String> {
        let is_running = |process: &&Process| process.is_running();
        self.processes.iter().filter(is_running).for_each(Process::terminate);
        let mut wrong = Vec::new();
        for process in &self.processes {
            let code = process.wait(seconds(60)).await;
            if code != 0 {
                wrong.push(format!("{} ({}) ended with exit code {code}", process.name(), process.pid()));
            }
        }
        wrong
    }

    /// Kills all processes. The broker returns their messages to the queues.
    pub(super) fn kill(&self) {
        self.processes.iter().for_each(Process::kill9);
    }

    /// All logs, including those of killed processes.
    pub(super) fn logs(&self) -> Vec<String> {
        self.past.iter().cloned().chain(self.processes.iter().map(Process::stderr)).collect()
    }

    /// Writes all logs to a folder for diagnosis, and returns it.
    pub(super) fn keep_logs(&self) -> &std::path::Path {
        for (slot, process) in self.processes.iter().enumerate() {
            let file = self.folder.join(format!("{}-{}.{}.log", process.name(), slot % 2, process.pid()));
            let _ = std::fs::write(file, process.stderr());
        }
        for (n, log) in self.past.iter().enumerate() {
            let _ = std::fs::write(self.folder.join(format!("killed.{n:02}.log")), log);
        }
        &self.folder
    }

    fn launch(&self, broker: &Broker, slot: usize) -> Launch {
        let (name, settings) = (WORKERS[slot / 2], SETTINGS[slot / 2]);
        let folder = self.folder.join(format!("{name}-{}", slot % 2));
        std::fs::create_dir_all(&folder).unwrap();
        worker(name, broker, self.prefix, self.simulator)
            .args(["--concurrency", CONCURRENCY])
            .args(settings.iter().copied())
            .env("GENFLEET_LOG", LOG)
            .env("GENFLEET_ROUTING_POLL_INTERVAL", "100ms")
            .env("GENFLEET_QUEUE_URL", &self.urls[slot % 2])
            .directory(&folder)
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        self.processes.clear();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
