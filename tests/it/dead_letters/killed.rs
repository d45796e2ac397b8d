//! A redrive that is killed, runs twice, or loses its connection to the broker.

use lapin::{Confirmation, options::BasicPublishOptions};
use tokio::time::sleep;

use super::*;

async fn redriven_with_kills(letters: usize, kills: usize, window: usize) {
    let (broker, prefix, amqp) = grounds().await;
    bury(&amqp, &prefix, "again", letters).await;
    let (dead, jobs) = (format!("{prefix}.dead.cdn.purge"), format!("{prefix}.jobs.cdn.purge"));
    let window_text = window.to_string();
    let redrive = || tool(broker.url(), &prefix, &["dead", "redrive", "--yes", "--json", "--window", &window_text]);
    for kill in 1..=kills {
        eventually(seconds(60), "what a dead process held is back", async || {
            (amqp.count(&dead).await + amqp.count(&jobs).await) as usize >= letters
        })
        .await;
        let process = redrive();
        let enough = u32::try_from(letters * kill / (kills + 1)).unwrap();
        eventually(seconds(120), "some are redriven", async || amqp.count(&jobs).await >= enough).await;
        assert!(process.is_running(), "killed in the middle: {}", process.stderr());
        process.kill9();
    }
    // A run handles the dead letters that exist when it starts.
    eventually(seconds(180), "all are redriven", async || {
        let process = redrive();
        assert_eq!(process.wait(seconds(180)).await, 0, "{}", process.stderr());
        amqp.count(&dead).await == 0 && amqp.count(&jobs).await as usize >= letters
    })
    .await;
    let doubled = doubled(&amqp, &jobs, "again", letters).await;
    println!("{letters} letters, {kills} kills, window {window}: {doubled} doubled");
    assert!(doubled <= kills * window, "{doubled} doubled by {kills} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_redriven_with_kills_in_the_middle_lose_none_and_double_one_a_kill_at_most() {
    redriven_with_kills(5_000, 6, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_window_doubles_no_more_than_itself() {
    redriven_with_kills(3_000, 4, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_redrives_at_once_double_none() {
    let (broker, prefix, amqp) = grounds().await;
    bury(&amqp, &prefix, "shared", 1_000).await;
    let (dead, jobs) = (format!("{prefix}.dead.cdn.purge"), format!("{prefix}.jobs.cdn.purge"));
    eventually(seconds(120), "both are done", async || {
        let both = [(); 2].map(|()| tool(broker.url(), &prefix, &["dead", "redrive", "--yes", "--window", "4"]));
        for process in &both {
            assert_eq!(process.wait(seconds(120)).await, 0, "{}", process.stderr());
        }
        amqp.count(&dead).await == 0
    })
    .await;
    assert_eq!(doubled(&amqp, &jobs, "shared", 1_000).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_in_the_middle_is_waited_for() {
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    declare(&broker, &prefix).await;
    let amqp = Amqp::connect(broker.url()).await;
    bury(&amqp, &prefix, "patient", 600).await;
    let jobs = format!("{prefix}.jobs.cdn.purge");
    let process = tool(broker.url(), &prefix, &["dead", "redrive", "--yes", "--json", "--rate", "150"]);
    eventually(seconds(60), "some are redriven", async || amqp.count(&jobs).await >= 100).await;
    broker.kill().await;
    broker.start().await;
    assert_eq!(process.wait(seconds(120)).await, 0, "{}", process.stderr());
    let amqp = Amqp::connect(broker.url()).await;
    eventually(seconds(30), "no letter is left", async || amqp.count(&format!("{prefix}.dead.cdn.purge")).await == 0)
        .await;
    let doubled = doubled(&amqp, &jobs, "patient", 600).await;
    assert!(doubled <= 1, "{doubled} doubled by one restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stays_away_is_reported_and_nothing_is_lost() {
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    declare(&broker, &prefix).await;
    let amqp = Amqp::connect(broker.url()).await;
    bury(&amqp, &prefix, "patient", 400).await;
    let jobs = format!("{prefix}.jobs.cdn.purge");
    let process = tool(broker.url(), &prefix, &["dead", "redrive", "--yes", "--rate", "100", "--timeout", "3s"]);
    eventually(seconds(60), "some are redriven", async || amqp.count(&jobs).await >= 50).await;
    broker.stop().await;
    assert_eq!(process.wait(seconds(60)).await, 1);
    assert!(process.stderr().contains("Nothing is lost"), "{}", process.stderr());
    broker.start().await;
    assert_eq!(tool(broker.url(), &prefix, &["dead", "redrive", "--yes"]).wait(seconds(60)).await, 0);
    let amqp = Amqp::connect(broker.url()).await;
    assert!(doubled(&amqp, &jobs, "patient", 400).await <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_stops_after_the_letter_in_hand() {
    let (broker, prefix, amqp) = grounds().await;
    bury(&amqp, &prefix, "stopped", 300).await;
    let (dead, jobs) = (format!("{prefix}.dead.cdn.purge"), format!("{prefix}.jobs.cdn.purge"));
    let process = tool(broker.url(), &prefix, &["dead", "redrive", "--yes", "--json", "--rate", "50"]);
    eventually(seconds(60), "some are redriven", async || amqp.count(&jobs).await >= 20).await;
    process.signal("INT");
    assert_eq!(process.wait(seconds(20)).await, 1);
    let output: Value = serde_json::from_str(&process.stdout_lines()[0]).unwrap();
    assert_eq!(output["complete"], false);
    let done = u32::try_from(output["done"].as_u64().unwrap()).unwrap();
    assert_eq!((amqp.count(&jobs).await, amqp.count(&dead).await), (done, 300 - done));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousands_are_listed_in_bounded_memory() {
    let (broker, prefix, amqp) = grounds().await;
    let padding = "x".repeat(4_000);
    let letter = |n: usize| {
        let job = json!({ "id": format!("heavy-{n}"), "payload": { "paths": ["/a"] }, "padding": padding }).to_string();
        (job, given_up("heavy", "invalid_job", "padding", "2026-11-20T10:00:00Z", "00112233aabbccdd"))
    };
    amqp.publish_many(&format!("{prefix}.dead"), "cdn.purge", (0..30_000).map(letter)).await;
    let began = std::time::Instant::now();
    let process = tool(broker.url(), &prefix, &["dead", "list", "--json"]);
    let mut most = 0;
    eventually(seconds(120), "it has ended", async || {
        let running = process.exit_code().is_none();
        if running {
            most = most.max(process.rss_kb_if_running().unwrap_or(0));
        }
        !running
    })
    .await;
    assert_eq!(process.wait(seconds(5)).await, 0, "{}", process.stderr());
    assert!(process.stdout_lines()[0].contains(r#""total":30000"#), "{:?}", process.stdout_lines());
    println!("120 MB of letters listed in {:?} with {most} kB in memory", began.elapsed());
    assert!(most < 100_000, "{most} kB");
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_slower_than_the_broker_lets_letters_be_held_goes_on() {
    let Some(broker) = Broker::private().await else { return };
    broker.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 2000)."]).await;
    broker.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 500)."]).await;
    let prefix = Prefix::on(&broker);
    declare(&broker, &prefix).await;
    let amqp = Amqp::connect(broker.url()).await;
    // The first ones are held for longer than the broker permits.
    bury(&amqp, &prefix, "held", 20).await;
    bury(&amqp, &prefix, "slow", 30).await;
    let meant: Vec<_> = (0..30).map(|n| format!("slow-{n}")).collect();
    let arguments = ["dead", "redrive", "--rate", "4", "--json", "--yes", "--id", &meant.join(",")];
    let process = tool(broker.url(), &prefix, &arguments);
    assert_eq!(process.wait(seconds(120)).await, 0, "{}", process.stderr());
    assert!(process.stderr().contains("going on"), "it lost its hold: {}", process.stderr());
    let output: Value = serde_json::from_str(&process.stdout_lines()[0]).unwrap();
    assert_eq!((&output["done"], &output["others"]), (&json!(30), &json!(20)));
    assert_eq!(doubled(&amqp, &format!("{prefix}.jobs.cdn.purge"), "slow", 30).await, 0);
    let left = amqp.get_all(&format!("{prefix}.dead.cdn.purge")).await;
    let ids: Vec<_> = left.iter().map(|letter| letter.properties.message_id().as_ref().unwrap().to_string()).collect();
    assert_eq!(ids, (0..20).map(|n| format!("held-{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_a_killed_broker_has_started_every_confirmed_letter_is_listed() {
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    declare(&broker, &prefix).await;
    let mut confirmed = 0;
    for _ in 0..2 {
        let amqp = Amqp::connect(broker.url()).await;
        let publishing = tokio::spawn(publish_until_the_broker_dies(amqp, format!("{prefix}.dead")));
        sleep(seconds(1)).await;
        broker.kill().await;
        confirmed += publishing.await.unwrap();
        broker.start().await;
        let process = tool(broker.url(), &prefix, &["dead", "list", "--json"]);
        assert_eq!(process.wait(seconds(60)).await, 0, "{}", process.stderr());
        let output: Value = serde_json::from_str(&process.stdout_lines()[0]).unwrap();
        let listed = output["total"].as_u64().unwrap();
        println!("{listed} listed, {confirmed} confirmed");
        assert!(confirmed > 100 && listed >= confirmed, "{listed} listed, {confirmed} confirmed");
    }
}

/// Returns the number of dead letters that the broker confirmed.
async fn publish_until_the_broker_dies(amqp: Amqp, exchange: String) -> u64 {
    let mut confirmed = 0;
    loop {
        let mut burst = Vec::new();
        for _ in 0..20 {
            let (exchange, options) = (exchange.as_str().into(), BasicPublishOptions::default());
            let body = br#"{"id":"many","payload":{"paths":["/a"]}}"#;
            let sent = amqp.channel().basic_publish(exchange, "cdn.purge".into(), options, body, json_properties());
            let Ok(confirm) = sent.await else { return confirmed };
            burst.push(confirm);
        }
        for confirm in burst {
            let Ok(Confirmation::Ack(_)) = confirm.await else { return confirmed };
            confirmed += 1;
        }
    }
}
