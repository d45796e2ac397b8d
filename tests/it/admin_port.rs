//! The admin port with malicious clients, and with requests for other hosts.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use harness::{Process, seconds};

fn purger(admin_addr: &str) -> Process {
    Process::binary("purger")
        .args(["--admin-addr", admin_addr])
        .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .start()
}

fn sent(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    let ended = stream.read_to_end(&mut read);
    let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection stays open");
    String::from_utf8(read).unwrap()
}

fn asked(address: &str, path: &str, host: &str) -> String {
    rest(sent(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_another_host_are_refused_on_every_path() {
    let purger = purger("localhost:0");
    let address = purger.admin_addr(seconds(20)).await;
    for path in ["/", "/failures", "/fleet", "/metrics", "/livez", "/readyz", "/nothing"] {
        for host in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example"] {
            let answer = asked(&address, path, host);
            assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("--admin-addr"), "{path} {host}: {answer}");
        }
    }
    for host in [&*address, "127.0.0.1", "[::1]:80", "localhost", "localhost:1"] {
        let answer = asked(&address, "/livez", host);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    // The request line and a second header can name a host as well.
    for request in [
        "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
    ] {
        let answer = rest(sent(&address, &format!("{request}\r\n\r\n")));
        assert!(answer.starts_with("HTTP/1.1 4"), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_never_finished_hold_neither_the_port_nor_its_descriptors() {
    let purger = purger("127.0.0.1:0");
    let address = purger.admin_addr(seconds(20)).await;
    let before = purger.metrics().await.count("process_open_fds", &[]);
    let held: Vec<TcpStream> = (0..300).map(|_| sent(&address, "GET /livez HTTP/1.1\r\nHost: local")).collect();
    assert!(asked(&address, "/livez", "localhost").starts_with("HTTP/1.1 200 "));
    let after = purger.metrics().await.count("process_open_fds", &[]);
    // 64 connections, and other files that the process has opened.
    assert!(after <= before + 80, "{before} descriptors before, {after} after");
    for stream in held {
        assert_eq!(rest(stream), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_set_and_taken_ends_the_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let by_flag = purger(&address);
    assert_eq!(by_flag.wait(seconds(20)).await, 64);
    let up = Process::binary("genfleet").args(["up", "--simulate", "--queue-url", "sqlite:taken.db"]);
    let by_variable = up.env("GENFLEET_ADMIN_ADDR", &address).start();
    assert_eq!(by_variable.wait(seconds(20)).await, 64);
    for output in [by_flag.stderr(), by_variable.stderr()] {
        assert!(output.contains(&format!("--admin-addr {address}: another process listens there")), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_runs_only_its_own_script() {
    let purger = purger("127.0.0.1:0");
    let address = purger.admin_addr(seconds(20)).await;
    let answer = asked(&address, "/", "localhost");
    let policy = answer.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}
