//! The budget of the fleet: several processes of one client, with a broker and an API that counts requests.

use std::{collections::BTreeMap, time::Duration};

use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Launch, Prefix, Process, eventually, json_properties, seconds};
use lapin::{
    options::{ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};

use crate::stack::{assert_all_succeeded, outcomes, publish_one_path_jobs, simulator, simulator_with, worker};

const PROCESSES: &str = "genfleet_fleet_processes";
const HEARD: &str = "genfleet_fleet_heard";

/// Launches a purger that sends a request for each job, a few at a time.
fn eager(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    worker("purger", broker, prefix, simulator).args(["--batch-linger", "0ms", "--concurrency", "8"])
}

/// Waits until the processes know of each other.
async fn fleet<const N: usize>(start: impl Fn() -> Launch) -> [Process; N] {
    let processes = std::array::from_fn(|_| start().start());
    for process in &processes {
        process.wait_ready(seconds(30)).await;
        knows(process, N, 20).await;
    }
    processes
}

async fn knows(process: &Process, processes: usize, within: u64) {
    eventually(seconds(within), format!("it knows of {processes} processes"), async || {
        match process.metrics().await.count(PROCESSES, &[]) {
            known if known == processes as u64 => Ok(()),
            other => Err(format!("{other}: {}", process.get("/fleet").await.unwrap().1)),
        }
    })
    .await;
}

/// Number of purge requests by token. Each process has its own token.
fn by_token(simulator: &Simulator) -> BTreeMap<String, Vec<RecordedRequest>> {
    let mut by_token = BTreeMap::<String, Vec<RecordedRequest>>::new();
    for request in simulator.requests().into_iter().filter(|request| request.path.ends_with("/cdn/purge")) {
        by_token.entry(request.token.clone().unwrap()).or_default().push(request);
    }
    by_token
}

/// Returns true if all have sent this number.
async fn all_have_sent(simulator: &Simulator, processes: usize, least: usize) {
    eventually(seconds(60), format!("{processes} processes have sent {least} requests each"), async || {
        let sent: Vec<usize> = by_token(simulator).values().map(Vec::len).collect();
        if sent.len() == processes && sent.iter().all(|sent| *sent >= least) {
            Ok(())
        } else {
            Err(format!("{sent:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_of_the_clients_limit_that_one_meets_stops_the_other_too() {
    const SHUT_US: u64 = 8_000_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let latency = Duration::from_millis(100);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    let _fleet = fleet::<2>(|| eager(broker, &prefix, &simulator)).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "shared", 5_000).await;
    all_have_sent(&simulator, 2, 20).await;
    simulator.set_faults(vec!["status=429,limit=client,retry-after=8,times=1".parse().unwrap()]);

    let throttled = eventually(seconds(10), "one of them is throttled", async || {
        simulator.requests().into_iter().find(|request| request.status == Some(429))
    })
    .await;
    let opens = throttled.at_us + SHUT_US;
    eventually(seconds(40), "both go on after it", async || {
        by_token(&simulator)
            .values()
            .filter(|sent| sent.iter().filter(|request| request.at_us > opens).count() > 1)
            .count()
            == 2
    })
    .await;
    for (token, sent) in by_token(&simulator) {
        let own = Some(&token) == throttled.token.as_ref();
        // Requests that were in transit when the process, or the other one, learned of the limit.
        let on_its_way = if own { 200_000 } else { 1_000_000 };
        let shut = throttled.at_us + on_its_way..opens - 100_000;
        let early: Vec<u64> = sent.iter().map(|request| request.at_us).filter(|at| shut.contains(at)).collect();
        assert!(
            early.is_empty(),
            "sent while the client's limit was closed; met it itself: {own}; {early:?}, {throttled:?}"
        );
        let first: Vec<u64> = sent.iter().map(|request| request.at_us).filter(|at| *at > opens).take(2).collect();
        assert!(first.len() == 2 && first[1] - first[0] >= 50_000, "it starts slowly: {first:?}");
    }
    let throttled = simulator.requests().iter().filter(|request| request.status == Some(429)).count();
    assert_eq!(throttled, 1, "the other never met it");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_under_load_keep_to_the_clients_limit_together_and_each_has_its_half() {
    const LIMIT: u32 = 600;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let options = SimulatorOptions { client_requests_per_minute: LIMIT, ..SimulatorOptions::default() };
    let simulator = simulator_with(options).await;
    let limit = LIMIT.to_string();
    let start = || eager(broker, &prefix, &simulator).args(["--client-requests-per-minute", &limit]);
    let fleet = fleet::<2>(start).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "limited", 400).await;

    all_have_sent(&simulator, 2, 40).await;
    let sent = by_token(&simulator);
    assert!(sent.values().flatten().all(|request| request.status != Some(429)), "the limit was met");
    let times = || sent.values().flatten().map(|request| request.at_us);
    let seconds_taken = Duration::from_micros(times().max().unwrap() - times().min().unwrap()).as_secs_f64();
    for sent in sent.values() {
        // The first requests, the burst, and the requests of a process before it learns that the other one has work.
        let most = f64::from(LIMIT / 2) / 60.0 * seconds_taken + 20.0;
        let sent = u32::try_from(sent.len()).unwrap();
        assert!(f64::from(sent) <= most, "{sent} in {seconds_taken} s, of {most}");
    }
    for process in &fleet {
        eventually(seconds(10), "its part is the half", async || {
            match process.metrics().await.count("genfleet_fleet_share", &[]) {
                share if share <= u64::from(LIMIT / 2) => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_gone_at_once_and_who_dies_a_little_later() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let start = || worker("purger", broker, &prefix, &simulator);
    let [stays, leaves, dies] = fleet::<3>(start).await;
    let stranger = start().env("GENESYS_CLIENT_ID", "another").start();
    stranger.wait_ready(seconds(30)).await;
    knows(&stranger, 1, 10).await;
    leaves.terminate();
    assert_eq!(leaves.wait(seconds(30)).await, 0);
    // Sooner than by its silence.
    knows(&stays, 2, 5).await;
    dies.kill9();
    knows(&stays, 1, 30).await;
    assert_eq!(stays.metrics().await.count(HEARD, &[]), 1);
}

/// Declares a queue that receives all messages of the fleet's exchange from now on.
async fn record(amqp: &Amqp, control: &str) -> String {
    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = amqp.channel().queue_declare("".into(), own, FieldTable::default()).await.unwrap().name().clone();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    amqp.channel().queue_bind(queue.clone(), control.into(), "#".into(), options, arguments).await.unwrap();
    queue.to_string()
}

/// Messages of a user who may write to the exchange, to pause the fleet, use up its limit, and fill its memory.
fn forged(client: &str) -> Vec<String> {
    let worst = r#""working":true,"clientShutMs":86400000,"requestsLastMinute":4294967295,"tokenLimit":4294967295"#;
    let plain = |number| format!(r#"{{"v":1,"say":"here","process":"p{number}","client":"{client}",{worst}}}"#);
    let sealed = |number| {
        let said = format!(r#"{{"stamp":{{"from":{number},"n":1,"asks":1}},{}"#, &plain(number)[7..]);
        json!({"v": 2, "mac": "bm8=", "said": said}).to_string()
    };
    let deep = format!(r#"{{"v":2,"mac":"","said":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let huge = format!(r#"{{"v":2,"mac":"","said":"{}"}}"#, "x".repeat(200_000));
    let many = (0..1500).map(|number| if number % 2 == 0 { plain(number) } else { sealed(number) });
    many.chain([deep, huge]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_are_forged_or_played_again_change_nothing() {
    const REFUSED: &str = "genfleet_fleet_words_refused_total";
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, control) = (simulator().await, format!("{prefix}.control"));
    let start = || worker("purger", broker, &prefix, &simulator);
    let [one, other] = fleet::<2>(start).await;
    let amqp = Amqp::connect(broker.url()).await;
    let recorded = record(&amqp, &control).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let known: Value = serde_json::from_str(&one.get("/fleet").await.unwrap().1).unwrap();
    let client = known["own"]["client"].as_str().unwrap();
    let key = format!("here.{client}");
    let share = one.metrics().await.count("genfleet_fleet_share", &[]);

    let words = forged(client);
    for word in &words {
        amqp.publish_raw(&control, &key, word, json_properties()).await;
    }
    for process in [&one, &other] {
        eventually(seconds(20), "it has heard all of them", async || {
            let now = process.metrics().await;
            let refused = ["unsigned", "forged"].map(|reason| now.count(REFUSED, &[("reason", reason)]));
            if refused == [752, 750] { Ok(()) } else { Err(format!("{refused:?}")) }
        })
        .await;
        let now = process.metrics().await;
        assert_eq!(now.count("genfleet_gate_state", &[("reason", "throttled")]), 0);
        assert_eq!((now.count(PROCESSES, &[]), now.count("genfleet_fleet_share", &[])), (2, share));
        assert_eq!(process.stderr().matches("were rejected").count(), 1, "{}", process.stderr());
    }
    publish_one_path_jobs(&amqp, &prefix, "undisturbed", 20).await;
    assert_all_succeeded(&outcomes(&mut events, 20, seconds(20)).await);

    other.terminate();
    assert_eq!(other.wait(seconds(30)).await, 0);
    knows(&one, 1, 5).await;
    // It receives messages from before it started.
    let newcomer = start().start();
    newcomer.wait_ready(seconds(30)).await;
    knows(&newcomer, 2, 10).await;
    let signed = |word: &String| word.starts_with(r#"{"v":2"#) && !words.contains(word);
    let all = amqp.get_all(&recorded).await;
    let genuine: Vec<String> =
        all.iter().map(|message| String::from_utf8(message.body.clone()).unwrap()).filter(signed).collect();
    assert!(genuine.len() > 4, "{genuine:?}");
    for word in &genuine {
        amqp.publish_raw(&control, &key, word, json_properties()).await;
    }
    for process in [&one, &newcomer] {
        eventually(seconds(20), "it has heard them all again", async || {
            let now = process.metrics().await;
            let refused = ["replayed", "unproven"].map(|reason| now.count(REFUSED, &[("reason", reason)]));
            if refused.iter().sum::<u64>() >= genuine.len() as u64 { Ok(()) } else { Err(format!("{refused:?}")) }
        })
        .await;
        assert_eq!(process.metrics().await.count(PROCESSES, &[]), 2, "the one that left is not back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_that_is_garbage_or_gone_disturbs_no_work_and_comes_back() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let [one, other] = fleet::<2>(|| worker("purger", broker, &prefix, &simulator)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let known: Value = serde_json::from_str(&one.get("/fleet").await.unwrap().1).unwrap();
    let control = format!("{prefix}.control");
    let key = format!("here.{}", known["own"]["client"].as_str().unwrap());
    let strange = r#"{"v":1,"say":"here","process":"strange","client":"of nobody here","clientShutMs":99999999}"#;
    for body in ["", "{", "[1]", r#"{"v":1,"say":"here","process":7}"#, r#"{"v":9,"say":"here"}"#, strange] {
        amqp.publish_raw(&control, &key, body, json_properties()).await;
    }
    amqp.publish_raw(&control, "ask", "what?", json_properties()).await;
    knows(&one, 2, 5).await;

    amqp.channel().exchange_delete(control.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    eventually(seconds(40), "the fleet is not heard", async || one.metrics().await.count(HEARD, &[]) == 0).await;
    publish_one_path_jobs(&amqp, &prefix, "undisturbed", 200).await;
    assert_all_succeeded(&outcomes(&mut events, 200, seconds(60)).await);
    for process in [&one, &other] {
        let now = process.metrics().await;
        assert_eq!(now.count("genfleet_broker_reconnects_total", &[]), 0, "{}", process.stderr());
        assert_eq!(process.ready().await.0, 200);
        assert_eq!(now.count(PROCESSES, &[]), 2, "those last known");
    }
    // A process that declares the topology restores it.
    let third = worker("purger", broker, &prefix, &simulator).start();
    for process in [&one, &other, &third] {
        knows(process, 3, 30).await;
    }
}
