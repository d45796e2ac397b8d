//! The vendor's JavaScript client and the simulator: what jobs of the platform kinds do, done by the client that the vendor
//! publishes. The tests of the kinds have the vendor's Python client judge what the workers send.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use genfleet_simulator::SimulatorOptions;
use harness::skip;
use serde_json::json;

use crate::stack::simulator_with;

const PACKAGE: &str = "purecloud-platform-client-v2@262.0.0";
const FLOW: &str = "0b9a8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d";

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_javascript_client_works_with_the_simulator() {
    let Some(packages) = tokio::task::spawn_blocking(install).await.unwrap() else {
        return skip("the vendor's JavaScript client cannot be installed here");
    };
    let simulator = simulator_with(SimulatorOptions::default()).await;
    simulator.set("webDeployments", &json!({"pendingMs": 0})).unwrap();
    let url = simulator.base_url();
    let ended = tokio::process::Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/platform_client.cjs"))
        .args([url.rsplit_once(':').unwrap().1, FLOW])
        .env("NODE_PATH", packages)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}");
}

/// Installs the client next to the build; returns the folder of its packages.
fn install() -> Option<PathBuf> {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.ancestors().nth(3).unwrap().join("tmp/vendors-javascript-client");
    let packages = folder.join("node_modules");
    fs::create_dir_all(&folder).unwrap();
    let install = ["install", "--no-fund", "--no-audit", "--no-package-lock", "--ignore-scripts", PACKAGE];
    let run = |program: &str, arguments: &[&str]| {
        let command = &mut Command::new(program);
        let command = command.args(arguments).current_dir(&folder).env("NODE_PATH", &packages);
        command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    };
    let is_there = || run("node", &["-e", "require('purecloud-platform-client-v2')"]);
    (is_there() || run("npm", &install) && is_there()).then_some(packages)
}
