//! The rows of the benchmark. Their numbers, from 0, are their positions here.

use std::time::Duration;

use crate::{
    Scale,
    bench::{Load, Worker},
    jobs::Jobs,
};

/// Rows whose figures are in one table.
pub struct Section {
    pub title: String,
    pub rows: Vec<Row>,
    /// Labels of the axes, if the section is a curve with a chart.
    pub chart: Option<[&'static str; 2]>,
}

pub struct Row {
    pub name: String,
    /// The row in the same section that its first figure is compared with.
    pub beside: Option<usize>,
    pub measure: Measure,
}

pub enum Measure {
    Rate(Load),
    /// The same on three nodes.
    RateOnCluster(Load),
    Latency(Worker),
    /// The purger on the embedded queue.
    Embedded {
        arguments: &'static [&'static str],
        count: usize,
    },
    /// Scans that have no verdict.
    Polls {
        worker: Worker,
        scans: usize,
    },
    /// A rate for each value of a variable.
    Curve(Vec<(usize, Load)>),
}

const PURGES: Jobs = Jobs::Purges { paths: 1 };
const CEILING: Worker = Worker::Ceiling { together: 1 };
const CEILING_TOGETHER: Worker = Worker::Ceiling { together: 100 };
const APART: Worker = Worker::Genfleet(&["--batch-linger", "0ms"]);
const SHARED: Worker = Worker::Genfleet(&[]);
const MS_0: Duration = Duration::ZERO;
const MS_20: Duration = Duration::from_millis(20);
/// Number of jobs waiting in the row that the others are compared with.
const FEW: usize = 10_000;

pub fn sections(scale: Scale) -> Vec<Section> {
    vec![
        table("Purges, API 0 ms", purges(scale, MS_0, Measure::Rate)),
        table("Purges, API 20 ms", purges(scale, MS_20, Measure::Rate)),
        table("Latency at 50 jobs/s, API 0 ms", latency()),
        table("Purges on the embedded queue", embedded(scale)),
        table("The other kinds, API 20 ms", other_kinds(scale)),
        table("Jobs waiting", waiting(scale)),
        table("Scans without a verdict", polls(scale)),
        table("Purges on a cluster of three nodes", purges(scale, MS_0, Measure::RateOnCluster)),
        curve("Growth with jobs waiting", "jobs waiting", waiting_curve(scale)),
        curve("Growth with jobs in flight, one request a job, API 20 ms", "jobs in flight", in_flight_curve(scale)),
        curve("Growth with paths, shared requests, API 0 ms", "paths a job", paths_curve(scale)),
    ]
}

fn table(title: &str, rows: Vec<Row>) -> Section {
    Section { title: title.to_owned(), rows, chart: None }
}

fn curve(title: &str, variable: &'static str, points: Vec<(usize, Load)>) -> Section {
    let rows = vec![row("jobs/s", None, Measure::Curve(points))];
    Section { title: title.to_owned(), rows, chart: Some([variable, "jobs/s"]) }
}

fn row(name: &str, beside: Option<usize>, measure: Measure) -> Row {
    Row { name: name.to_owned(), beside, measure }
}

impl Scale {
    fn of(self, count: usize) -> usize {
        (count / self.divisor).max(50)
    }

    fn purges(self, worker: Worker, api: Duration, count: usize) -> Load {
        Load { jobs: PURGES, worker, api, count: self.of(count), waiting: 0 }
    }
}

fn purges(scale: Scale, api: Duration, measure: fn(Load) -> Measure) -> Vec<Row> {
    // Those that wait for the API are slower.
    let apart = if api.is_zero() { 1 } else { 2 };
    let rows = [
        ("ceiling, one request a job", CEILING, 30_000 / apart),
        ("Genfleet, one request a job", APART, 15_000 / apart),
        ("ceiling, 100 jobs a request", CEILING_TOGETHER, 60_000),
        ("Genfleet, shared requests", SHARED, 30_000),
    ];
    rows.map(|(name, worker, count)| row(name, Some(0), measure(scale.purges(worker, api, count)))).into()
}

fn latency() -> Vec<Row> {
    vec![row("ceiling", None, Measure::Latency(CEILING)), row("Genfleet", None, Measure::Latency(SHARED))]
}

fn embedded(scale: Scale) -> Vec<Row> {
    let rows: [(&str, &[&str], usize); 2] = [
        ("Genfleet, one request a job", &["--batch-linger", "0ms"], 40_000),
        ("Genfleet, shared requests", &[], 60_000),
    ];
    rows.map(|(name, arguments, count)| row(name, None, Measure::Embedded { arguments, count: scale.of(count) })).into()
}

fn other_kinds(scale: Scale) -> Vec<Row> {
    let kinds = [(Jobs::Streams, 8_000), (Jobs::Channels, 300), (Jobs::Interfaces, 400), (Jobs::Scans, 400)];
    let workers = [("ceiling", CEILING), ("Genfleet", SHARED)];
    let mut rows = Vec::new();
    for (jobs, count) in kinds {
        let ceiling = rows.len();
        rows.extend(workers.map(|(name, worker)| {
            let load = Load { jobs, worker, api: MS_20, count: scale.of(count), waiting: 0 };
            row(&format!("{}, {name}", jobs.kind()), Some(ceiling), Measure::Rate(load))
        }));
    }
    rows
}

fn waiting(scale: Scale) -> Vec<Row> {
    let rows = [FEW, scale.waiting].map(|waiting| {
        let load = Load { waiting, ..scale.purges(SHARED, MS_0, 20_000) };
        row(&format!("Genfleet, shared requests, {waiting} jobs waiting"), Some(0), Measure::Rate(load))
    });
    rows.into()
}

fn polls(scale: Scale) -> Vec<Row> {
    let workers = [("ceiling", CEILING), ("Genfleet", Worker::Genfleet(&["--unrecorded-orders", "64"]))];
    let scans = scale.of(10_000);
    let polls = |(name, worker)| row(&format!("{scans} scans, {name}"), Some(0), Measure::Polls { worker, scans });
    workers.map(polls).into()
}

fn waiting_curve(scale: Scale) -> Vec<(usize, Load)> {
    let values = [0, 10_000, 30_000, 100_000, 300_000, 1_000_000];
    let values = values.into_iter().filter(|waiting| *waiting <= scale.waiting);
    values.map(|waiting| (waiting, Load { waiting, ..scale.purges(SHARED, MS_0, 20_000) })).collect()
}

fn in_flight_curve(scale: Scale) -> Vec<(usize, Load)> {
    let values: [(usize, &[&str]); 6] = [
        (16, &["--batch-linger", "0ms", "--concurrency", "16"]),
        (64, &["--batch-linger", "0ms", "--concurrency", "64"]),
        (128, &["--batch-linger", "0ms", "--concurrency", "128"]),
        (256, &["--batch-linger", "0ms", "--concurrency", "256"]),
        (512, &["--batch-linger", "0ms", "--concurrency", "512"]),
        (1024, &["--batch-linger", "0ms", "--concurrency", "1024"]),
    ];
    values.map(|(jobs, arguments)| (jobs, scale.purges(Worker::Genfleet(arguments), MS_20, 40 * jobs.min(256)))).into()
}

/// Several times as many jobs as are in flight, so that the rate is not that of the last burst.
fn paths_curve(scale: Scale) -> Vec<(usize, Load)> {
    let load = |(paths, count)| (paths, Load { jobs: Jobs::Purges { paths }, ..scale.purges(SHARED, MS_0, count) });
    [(1, 20_000), (10, 20_000), (100, 5_000), (1_000, 3_000)].map(load).into()
}
