//! `genfleet health`, which replaces curl in the image.

use std::net::TcpListener;

use harness::{Process, seconds};

use crate::stack::simulator;

async fn asked(arguments: &[&str], admin_addr: &str) -> (i32, String) {
    let tool = Process::binary("genfleet").args(["health"]).args(arguments.iter().copied());
    let tool = tool.env("GENFLEET_ADMIN_ADDR", admin_addr).start();
    let code = tool.wait(seconds(20)).await;
    (code, tool.stdout_lines().concat() + &tool.stderr())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_whether_a_process_is_ready_and_whether_it_lives() {
    let purger = Process::binary("purger")
        .args(["--admin-addr", "0.0.0.0:0"])
        .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .start();
    let address = purger.admin_addr(seconds(20)).await;
    let (code, output) = asked(&[], &address).await;
    assert!(code == 1 && output.contains("not connected to the broker"), "{code}: {output}");
    assert_eq!(asked(&["/livez"], &address).await, (0, r#"{"live":true,"reasons":[]}"#.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_the_simulator_too() {
    let url = simulator().await;
    let (code, output) = asked(&[&format!("{}/_sim/", url.base_url())], "127.0.0.1:1").await;
    assert_eq!(code, 0, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_nonsense_are_reported() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let (code, output) = asked(&["--timeout", "100ms"], &silent).await;
    assert!(code == 1 && output.contains("no answer from http://127.0.0.1:"), "{code}: {output}");
    let (code, output) = asked(&["readyz"], "127.0.0.1:1").await;
    assert!(code == 64 && output.contains("write a path"), "{code}: {output}");
}
