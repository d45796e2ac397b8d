//! Purges on the embedded queue: `genfleet run`, one process without a broker.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    bench::{Bench, LONG, Running, ratio},
    figures::{Figures, figures},
    jobs::Jobs,
    usage::{cpu_seconds, memory_mib},
};

impl Bench {
    /// Measures from a tenth of the events to the last, as for the other rows.
    pub async fn embedded(&self, arguments: &[&str], count: usize) -> Figures {
        // The process is killed after the last event, with its store left behind.
        let folder = self.folder.join("embedded");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let [jobs, events, store] = ["jobs.jsonl", "events.jsonl", "jobs.genfleet"].map(|name| folder.join(name));
        let purge = |number| Jobs::Purges { paths: 1 }.body(number, 0) + "\n";
        fs::write(&jobs, (0..count).map(purge).collect::<String>()).unwrap();
        File::create(&events).unwrap();
        self.stub.reset(Duration::ZERO);
        let mut command = self.command("genfleet");
        command.arg("run").arg(&jobs).arg("--events").arg(&events).arg("--store").arg(&store);
        command.args(["--admin-addr", "127.0.0.1:0", "--log", "info", "--audit-log"]);
        command.arg(folder.join("audit.jsonl")).args(arguments);
        let running = Running::of(command);
        let pid = running.pid();
        let mut written = Lines::of(&events);
        let (already, _) = timeout(LONG, written.wait_for(count / 10, pid)).await.unwrap();
        let (began, cpu) = (Instant::now(), cpu_seconds(pid));
        let (_, memory) = timeout(LONG, written.wait_for(count, pid)).await.unwrap();
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
        let requests = usize::try_from(self.stub.requests()).unwrap();
        let measured = count - already;
        figures([
            ("jobs/s", ratio(measured, seconds)),
            ("CPU s/1,000 jobs", cpu / ratio(measured, 1000.0)),
            ("requests/100 jobs", ratio(requests, ratio(count, 100.0))),
            ("most at once", ratio(usize::try_from(self.stub.most_under_way()).unwrap(), 1.0)),
            ("MiB", memory),
        ])
    }
}

/// The lines of a file that grows.
struct Lines {
    file: File,
    count: usize,
}

impl Lines {
    fn of(path: &Path) -> Self {
        Self { file: File::open(path).unwrap(), count: 0 }
    }

    /// Waits until there are so many lines. Returns their number, and the maximum memory of the process, which may end
    /// with the last line.
    async fn wait_for(&mut self, wanted: usize, pid: u32) -> (usize, f64) {
        let (mut bytes, mut memory) = (Vec::new(), 0.0_f64);
        while self.count < wanted {
            sleep(Duration::from_millis(10)).await;
            memory = memory.max(memory_mib(pid, "VmHWM"));
            self.file.read_to_end(&mut bytes).unwrap();
            self.count += bytes.split(|byte| *byte == b'\n').count() - 1;
            bytes.clear();
        }
        (self.count, memory)
    }
}
