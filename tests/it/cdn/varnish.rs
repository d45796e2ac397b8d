//! A real Varnish with a real origin behind it, and the VCL of the examples.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use harness::{Amqp, Broker, Prefix, eventually, fresh_directory, json_properties, seconds, skip};
use serde_json::json;

use super::{
    job, purger, run,
    stand_in::{Reply, StandIn},
};
use crate::stack::purge_job;

const HOST: &str = "www.example.com";

/// Dropped: ended, by its process.
struct Varnish {
    child: Child,
    port: u16,
    folder: std::path::PathBuf,
}

impl Varnish {
    /// Starts it before `origin`, with the example's VCL and this change to it; `None`, told, if it is not installed.
    async fn before(origin: &StandIn, change: (&str, &str)) -> Option<Self> {
        let is_installed = |program: &str| Command::new(program).arg("-V").output().is_ok();
        if !is_installed("varnishd") && !is_installed("/usr/sbin/varnishd") {
            skip("it needs Varnish, which is not installed here");
            return None;
        }
        let program = if is_installed("varnishd") { "varnishd" } else { "/usr/sbin/varnishd" };
        let folder = fresh_directory("varnish");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/varnish.vcl");
        let backend = origin.url().rsplit_once(':').unwrap().1.to_owned();
        let vcl = fs::read_to_string(example).unwrap().replace("\"8080\"", &format!("\"{backend}\""));
        assert!(vcl.contains(change.0), "{}", change.0);
        fs::write(folder.join("site.vcl"), vcl.replace(change.0, change.1)).unwrap();
        let port = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program)
            .args(["-F", "-j", "none", "-s", "malloc,16m", "-a", &format!("127.0.0.1:{port}")])
            .arg("-f")
            .arg(folder.join("site.vcl"))
            .arg("-n")
            .arg(folder.join("work"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut varnish = Self { child, port, folder };
        eventually(seconds(60), "Varnish answers", async || {
            if let Some(code) = varnish.child.try_wait().unwrap() {
                panic!("{code}: {}", fs::read_to_string(varnish.folder.join("log")).unwrap_or_default());
            }
            let answered = get(port, "/started").await;
            answered.map(drop)
        })
        .await;
        Some(varnish)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a visitor of the site gets.
    async fn get(&self, path: &str) -> String {
        get(self.port, path).await.unwrap()
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        // Its child ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn get(port: u16, path: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().no_proxy().timeout(seconds(20)).build().unwrap();
    let request = client.get(format!("http://127.0.0.1:{port}{path}")).header("host", HOST);
    let answer = request.send().await.map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => answer.text().await.map_err(|error| error.to_string()),
        status => Err(format!("{status}")),
    }
}

/// An origin whose every answer is another one and may be cached.
async fn origin() -> StandIn {
    let count = Arc::new(AtomicUsize::new(0));
    StandIn::judging(move |request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Reply::new(200, format!("{} {number}", request.path)).header("cache-control", "max-age=600")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_fetched_again_and_nothing_else() {
    let origin = origin().await;
    let Some(varnish) = Varnish::before(&origin, ("\"127.0.0.1\"", "\"127.0.0.1\"")).await else { return };
    let paths = ["/a.b/x", "/a.b/y", "/acb/x", "/%C3%A9"];
    let mut before = Vec::new();
    for path in paths {
        let first = varnish.get(path).await;
        assert_eq!(varnish.get(path).await, first, "{path} is cached");
        before.push(first);
    }
    let url = varnish.url();
    let arguments = ["--cdn", "varnish", "--cdn-servers", url.as_str(), "--cdn-hosts", HOST];
    let events = run(&[job("paths", &["/a.b/x", "/é"])], |launch| launch.args(arguments)).await;
    let report = &events[0]["data"]["report"];
    assert_eq!((&events[0]["data"]["outcome"], &report["status"]), (&json!("succeeded"), &json!(200)), "{events:?}");
    assert_eq!(report["requestIds"].as_array().map(Vec::len), Some(2), "{report}");
    let mut after = Vec::new();
    for path in paths {
        after.push(varnish.get(path).await);
    }
    let changed: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
    assert_eq!(changed, [true, false, false, true]);

    let events = run(&[job("wildcard", &["/a.b/*"])], |launch| launch.args(arguments)).await;
    assert_eq!(events[0]["data"]["outcome"], "succeeded", "{events:?}");
    let mut banned = Vec::new();
    for path in paths {
        banned.push(varnish.get(path).await);
    }
    let changed: Vec<bool> = after.iter().zip(&banned).map(|(before, after)| before != after).collect();
    assert_eq!(changed, [true, true, false, false]);

    let events = run(&[job("everything", &["/*"])], |launch| launch.args(arguments)).await;
    assert_eq!(events[0]["data"]["outcome"], "succeeded", "{events:?}");
    for (path, before) in paths.iter().zip(&banned) {
        assert_ne!(varnish.get(path).await, *before, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acl_that_does_not_know_the_worker_holds_and_no_job_dies() {
    let origin = origin().await;
    let Some(varnish) = Varnish::before(&origin, ("\"127.0.0.1\";\n}", "\"192.0.2.1\";\n}")).await else { return };
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let url = varnish.url();
    let purger = purger(broker, &prefix, &["--cdn", "varnish", "--cdn-servers", &url, "--cdn-hosts", HOST]).start();
    purger.wait_ready(seconds(60)).await;
    let amqp = Amqp::connect(broker.url()).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("refused", &["/x"]), json_properties()).await;
    eventually(seconds(60), "/readyz names the hold and the ACL", async || {
        let (status, said) = purger.ready().await;
        let said = said.to_string();
        let is_told = status == 503 && said.contains("cdn_forbidden") && said.contains("405") && said.contains("ACL");
        if is_told { Ok(()) } else { Err(format!("{status} {said}")) }
    })
    .await;
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
}
