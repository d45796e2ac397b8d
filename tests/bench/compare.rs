//! Compares Genfleet with a minimal worker (`ceiling.rs`) and shows how rates grow: the same broker, API and jobs, in
//! rounds that alternate. Run it with `tests/bench/run`, which explains its arguments. Prints a JSON line for each
//! measurement, then tables of medians and the growth curves as charts, and makes no judgement.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: whatever goes wrong ends it")]
#![expect(unreachable_pub, reason = "nothing uses this but itself")]

use std::env;

use harness::Broker;
use tokio::sync::OnceCell;

use self::{
    bench::Bench,
    rows::{Measure, Row, sections},
};

mod bench;
mod embedded;
mod figures;
mod jobs;
mod latency;
mod polls;
mod recorded;
mod rows;
mod stub;
mod usage;

/// What to measure.
struct Arguments {
    rounds: usize,
    /// Numbers of the rows; empty for all.
    rows: Vec<usize>,
    scale: Scale,
}

/// The settings that make rows larger or smaller.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Maximum number of waiting jobs in the rows about waiting jobs.
    pub waiting: usize,
    /// All other numbers of jobs are divided by this.
    pub divisor: usize,
}

/// The places where rows are measured, each started when it is first needed.
struct Places {
    single: OnceCell<Bench>,
    /// The bench is dropped first, while its broker still runs.
    cluster: OnceCell<Option<(Bench, [Broker; 3])>>,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let sections = sections(arguments.scale);
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let wanted = |row: usize| arguments.rows.is_empty() || arguments.rows.contains(&row);
    let places = Places { single: OnceCell::new(), cluster: OnceCell::new() };
    let mut measured = vec![Vec::new(); rows().count()];
    for _ in 0..arguments.rounds {
        for (number, row) in rows().enumerate().filter(|(number, _)| wanted(*number)) {
            if let Some(figures) = places.measure(row).await {
                println!("{}", figures::line(number, &row.name, &figures));
                measured[number].push(figures);
            }
        }
    }
    figures::print_tables(&sections, &measured);
}

impl Arguments {
    /// Reads `[ROUNDS [ROW…]] [waiting=N] [divisor=N]`.
    fn read() -> Self {
        let mut scale = Scale { waiting: 100_000, divisor: 1 };
        let mut numbers = Vec::new();
        for argument in env::args().skip(1) {
            match argument.split_once('=') {
                Some(("waiting", number)) => scale.waiting = number.parse().unwrap(),
                Some(("divisor", number)) => scale.divisor = number.parse().unwrap(),
                _ => numbers.push(argument.parse().unwrap()),
            }
        }
        let mut numbers = numbers.into_iter();
        Self { rounds: numbers.next().unwrap_or(3), rows: numbers.collect(), scale }
    }
}

impl Places {
    async fn single(&self) -> &Bench {
        self.single.get_or_init(|| async { Bench::on(Broker::shared().await).await }).await
    }

    async fn cluster(&self) -> Option<&Bench> {
        let started = self.cluster.get_or_init(|| async {
            let nodes = Broker::cluster().await?;
            Some((Bench::on(&nodes[2]).await, nodes))
        });
        started.await.as_ref().map(|(bench, _)| bench)
    }

    /// Measures a row; `None` if it needs a cluster and no broker is installed.
    async fn measure(&self, row: &Row) -> Option<figures::Figures> {
        Some(match &row.measure {
            Measure::Rate(load) => self.single().await.rate(load).await,
            Measure::RateOnCluster(load) => self.cluster().await?.rate(load).await,
            Measure::Latency(worker) => self.single().await.latency(*worker).await,
            Measure::Embedded { arguments, count } => self.single().await.embedded(arguments, *count).await,
            Measure::Polls { worker, scans } => self.single().await.polls(*worker, *scans).await,
            Measure::Curve(points) => {
                let mut rates = Vec::new();
                for (at, load) in points {
                    let figures = self.single().await.rate(load).await;
                    rates.push((at.to_string(), figures[0].1));
                }
                rates
            }
        })
    }
}
