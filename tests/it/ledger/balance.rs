//! The checks after the faults: each job has ended once, its effect exists once, and all queues are empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use genfleet_simulator::Simulator;
use harness::{Amqp, eventually, seconds};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    books::{Books, Ends},
    crew::{Crew, IN_FLIGHT},
    diagnosis,
    jobs::{self, Job},
};

/// Maximum time from the last fault until every job has ended and every queue is empty.
const AFTER_THE_LAST_FAULT: Duration = Duration::from_secs(60);
/// Number of rounds of an interface's job: after it is recorded, and while its organisation is busy.
const STEPS_OF_AN_INTERFACE: usize = 10;
/// Number of scans that may be started again after a lost session, because AMQP does not confirm acknowledgements, and the
/// broker may have received this number of a channel.
const ORDERED_AGAIN: usize = 32;
/// So often a scan may be ordered. Only one in [`UNLUCKY`] more often: a message whose session was lost is the first to be
/// ordered again, so on a slow machine the next fault may hit the same order.
const ORDERS: u64 = 3;
const UNLUCKY: usize = 50;

/// The faults of the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub name: &'static str,
    pub count: usize,
    /// Number of processes whose session or life each fault ended.
    pub processes: usize,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} times", self.name, self.count)
    }
}

/// Waits until everything has ended, stops the workers and checks the results. Panics with all errors.
pub(super) async fn balance(
    books: &mut Books<'_>,
    crew: &Crew<'_>,
    simulator: &Simulator,
    amqp: &Amqp,
    faults: Faults,
) {
    let last_fault = Instant::now();
    let deadline = last_fault + AFTER_THE_LAST_FAULT;
    let quiet = eventually(AFTER_THE_LAST_FAULT + seconds(60), "the books are read", async || {
        books.enter(amqp).await;
        // A job that has ended may run again: its second message is in a queue, or with a process.
        let has_ended = books.ends.missing().is_empty() && books.depths(amqp).await.is_empty();
        if has_ended && crew.held().await == 0 && books.depths(amqp).await.is_empty() {
            return Some(true);
        }
        (Instant::now() > deadline).then_some(false)
    })
    .await;
    let took = last_fault.elapsed();
    let mut wrong = Vec::new();
    if quiet {
        wrong.extend(crew.stop().await);
    } else {
        wrong.push(format!("{AFTER_THE_LAST_FAULT:?} after the last fault: {:?}", books.depths(amqp).await));
        wrong.push(diagnosis::of_missing(books, crew, simulator, amqp).await);
    }
    books.enter(amqp).await;
    let left = books.depths(amqp).await;
    if !left.is_empty() {
        wrong.push(format!("left when no process runs any more: {left:?}"));
    }
    let mut figures = Vec::new();
    judge(books, simulator, faults, &mut wrong, &mut figures);
    println!("ledger: {faults}, quiet after {took:?}: {}", figures.join("; "));
    wrong.retain(|one| !one.is_empty());
    assert!(
        wrong.is_empty(),
        "{faults}\n{}\n{}\nlogs in {}",
        wrong.join("\n"),
        figures.join("\n"),
        crew.keep_logs().display()
    );
}

fn judge(books: &Books<'_>, simulator: &Simulator, faults: Faults, wrong: &mut Vec<String>, figures: &mut Vec<String>) {
    let steps = judge_ends(&books.ends, simulator, faults, wrong, figures);
    judge_travels(books, faults.count, steps, wrong, figures);
}

/// Checks the events and the effects of jobs. Returns how often scans were started and polled.
pub(super) fn judge_ends(
    ends: &Ends,
    simulator: &Simulator,
    faults: Faults,
    wrong: &mut Vec<String>,
    figures: &mut Vec<String>,
) -> usize {
    judge_outcomes(ends, faults.count, wrong, figures);
    let state = simulator.state();
    let jobs: Vec<&Job> = ends.jobs.values().filter(|job| ends.events.contains_key(&job.id)).collect();
    judge_effects(&jobs, simulator, &state, wrong, figures);
    judge_scans(&jobs, &state, faults.count * faults.processes, wrong, figures)
}

/// Checks that each job has succeeded, and that repeated events have the same id.
fn judge_outcomes(ends: &Ends, faults: usize, wrong: &mut Vec<String>, figures: &mut Vec<String>) {
    let mut repeated: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, events) in &ends.events {
        let Some(job) = ends.jobs.get(id) else {
            wrong.push(format!("an event of {id}, which nobody published"));
            continue;
        };
        let ids: BTreeSet<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
        let failed = events.iter().find(|event| event["data"]["outcome"] != "succeeded");
        if let Some(event) = failed {
            wrong.push(format!("{id} did not succeed: {}", event["data"]["error"]));
        }
        if ids.len() != 1 {
            wrong.push(format!("{id} has {} outcomes", ids.len()));
        }
        if events.len() > 1 {
            *repeated.entry(job.kind).or_default() += events.len() - 1;
        }
    }
    let sum: usize = repeated.values().sum();
    // Each fault may repeat the ends of jobs in flight, because the broker may have lost their acknowledgements.
    let most = faults * IN_FLIGHT;
    figures.push(format!("{} jobs; {sum} events repeated (at most {most}): {repeated:?}", ends.jobs.len()));
    if sum > most {
        wrong.push(format!("{sum} events were repeated, more than {most}"));
    }
}

/// Checks that the effect of each job exists, and exists once if it must be unique.
fn judge_effects(
    jobs: &[&Job],
    simulator: &Simulator,
    state: &Value,
    wrong: &mut Vec<String>,
    figures: &mut Vec<String>,
) {
    let of = |kind: &str| jobs.iter().filter(|job| job.kind == kind).map(|job| job.id.as_str()).collect::<Vec<_>>();
    let purged = simulator.purge_counts();
    let unpurged: Vec<String> =
        of("cdn.purge").iter().flat_map(|id| jobs::paths(id)).filter(|path| !purged.contains_key(path)).collect();
    let again: u64 = purged.values().map(|times| times - 1).sum();
    let streams = &state["eventStreams"]["definitions"];
    let unregistered: Vec<_> = of("stream.configure").into_iter().filter(|id| streams[*id].is_null()).collect();
    let changes = |id: &&str| streams[*id]["changes"].as_u64().unwrap_or(1) - 1;
    let registered_again: u64 = of("stream.configure").iter().map(changes).sum();
    let listed = |list: &Value| list.as_array().map(Vec::len).unwrap_or_default();
    let (channels, network) = (&state["webMessaging"]["channels"], &state["network"]);
    let (made, connections) = (listed(channels), listed(&network["connections"]));
    let (ordered_channels, ordered_interfaces) = (of("channel.provision").len(), of("vni.provision").len());
    figures.push(format!("{again} paths purged again, {registered_again} streams registered again"));
    if !unpurged.is_empty() || !unregistered.is_empty() {
        wrong.push(format!("not purged: {unpurged:?}; not registered: {unregistered:?}"));
    }
    let names: BTreeSet<_> = channels.as_array().unwrap().iter().map(|channel| channel["name"].to_string()).collect();
    if made < ordered_channels || names.len() != made {
        wrong.push(format!("{made} channels with {} names for {ordered_channels} jobs", names.len()));
    }
    let interfaces = (&network["created"], &network["deleted"], connections);
    if interfaces != (&json!(connections), &json!(0), connections) || connections < ordered_interfaces {
        wrong.push(format!("{interfaces:?} interfaces made, deleted and there for {ordered_interfaces} jobs"));
    }
}

/// Checks scans. A lost session or process may lose one start that was sent and not recorded. Returns starts and polls.
fn judge_scans(
    jobs: &[&Job],
    state: &Value,
    losses: usize,
    wrong: &mut Vec<String>,
    figures: &mut Vec<String>,
) -> usize {
    let ordered = &state["files"]["ordered"];
    let (mut scans, mut again, mut often) = (0, 0, Vec::new());
    for job in jobs.iter().filter(|job| job.kind == "file.scan") {
        let times = ordered[&job.mark].as_u64().unwrap_or(0);
        // Each fault causes at most one more attempt of a message.
        if !(1..=ORDERS.max(1 + losses as u64)).contains(&times) {
            wrong.push(format!("{} was ordered {times} times", job.id));
        }
        if times > ORDERS {
            often.push(format!("{} {times} times", job.id));
        }
        scans += 1;
        again += times.saturating_sub(1);
    }
    if often.len() > scans / UNLUCKY {
        wrong.push(format!("of {scans} scans too many were ordered more than {ORDERS} times: {often:?}"));
    }
    // For each lost session, the messages whose acknowledgement was in transit and that went to the other process.
    let most = losses * ORDERED_AGAIN;
    figures.push(format!("{again} scans ordered again (at most {most})"));
    if again > most as u64 {
        wrong.push(format!("{again} scans were ordered again, and {losses} sessions were lost"));
    }
    let count = |member: &str| usize::try_from(state["files"][member].as_u64().unwrap_or(0)).unwrap();
    count("scansTotal") + count("pollsTotal")
}

/// What goes through the resume queues is what jobs need, and at each fault what is in flight. One job comes back once a
/// second at most (waits are of whole seconds), but for a step that is recorded at once.
fn judge_travels(books: &Books<'_>, faults: usize, polls: usize, wrong: &mut Vec<String>, figures: &mut Vec<String>) {
    let by_kind = |lane: &str| -> BTreeMap<&str, usize> {
        jobs::KINDS.iter().map(|kind| (*kind, books.travelled(lane, kind))).filter(|(_, count)| *count > 0).collect()
    };
    let interfaces = books.ends.jobs.values().filter(|job| job.kind == "vni.provision").count();
    let resumed = by_kind("resume");
    let (sum, most) =
        (resumed.values().sum::<usize>(), polls + interfaces * STEPS_OF_AN_INTERFACE + faults * IN_FLIGHT);
    figures.push(format!("{sum} publications through resume (at most {most}): {resumed:?}"));
    figures.push(format!("back to jobs {:?}, suspects {:?}", by_kind("jobs"), by_kind("suspect")));
    if sum > most {
        wrong.push(format!("{sum} publications through resume, more than {most}: {resumed:?}"));
    }
    let ways = books.travels.iter().map(|(job, travels)| (travels.lanes.get("resume").copied().unwrap_or(0), job));
    let Some((times, job)) = ways.max() else { return };
    let most = usize::try_from(books.opened.elapsed().as_secs()).unwrap() + 2 * (faults + 1);
    figures.push(format!("{times} of them of one job (at most {most})"));
    if times > most {
        wrong.push(format!("{job} went through resume {times} times, more than {most}"));
    }
}
