//! The settings of webhooks, and the receivers of events.

use clap::Parser;

use super::*;
use genfleet_telemetry::http::install_tls;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    webhooks: WebhookOptions,
}

fn webhooks(arguments: &[&str]) -> Result<Webhooks, ConfigError> {
    let secrets =
        WebhookSecrets::parse(SECRET_VARIABLE, &"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into()).unwrap();
    with_secrets(arguments, Some(secrets))
}

fn with_secrets(arguments: &[&str], secrets: Option<WebhookSecrets>) -> Result<Webhooks, ConfigError> {
    install_tls();
    let options = Program::try_parse_from([&["program"], arguments].concat()).unwrap().webhooks;
    Webhooks::with_secrets(&options, secrets)
}

fn receivers(webhooks: &Webhooks, kind: &str, own: Option<&str>) -> Vec<String> {
    webhooks.receivers(kind, own).iter().map(|receiver| receiver.url().to_string()).collect()
}

#[test]
fn an_event_goes_to_the_urls_of_its_kind_and_to_its_jobs_own_each_once() {
    let routes = "https://all.example,cdn.purge=https://purges.example,https://all.example/#again";
    let webhooks = webhooks(&["--webhook-url", routes]).unwrap();
    let own = Some("https://own.example/");
    let (all, purges, own_url) = ("https://all.example/", "https://purges.example/", "https://own.example/");
    assert_eq!(receivers(&webhooks, "cdn.purge", None), [all, purges]);
    assert_eq!(receivers(&webhooks, "cdn.purge", own), [all, purges, own_url]);
    assert_eq!(receivers(&webhooks, "file.scan", own), [all, own_url]);
    assert_eq!(receivers(&webhooks, "unknown", None), [all]);
    assert_eq!(receivers(&webhooks, "cdn.purge", Some("https://purges.example")), [all, purges], "the same twice");
    assert_eq!(receivers(&webhooks, "cdn.purge", Some("http://own.example")), [all, purges], "no job may name it");
}

#[test]
fn the_end_of_a_delivery_is_delivered_to_nobody() {
    let webhooks = webhooks(&["--webhook-url", "https://all.example"]).unwrap();
    assert_eq!(webhooks.receivers("webhook.deliver", Some("https://own.example")), []);
}

#[test]
fn urls_without_a_secret_are_refused_with_what_to_do() {
    let error = with_secrets(&["--webhook-url", "https://a.example/hush"], None).unwrap_err().to_string();
    assert!(error.contains("GENFLEET_WEBHOOK_SECRET") && error.contains("openssl rand"), "{error}");
    assert!(!error.contains("hush"), "{error}");
    let silent = with_secrets(&[], None).unwrap();
    assert!(silent.delivering().is_none());
    assert_eq!(silent.receivers("cdn.purge", Some("https://own.example")), []);
}

#[test]
fn http_is_refused_unless_it_is_allowed() {
    let error = webhooks(&["--webhook-url", "http://a.internal/hush"]).unwrap_err().to_string();
    assert!(error.contains("http://a.internal") && error.contains("--webhook-allow"), "{error}");
    assert!(!error.contains("hush"), "{error}");
    webhooks(&["--webhook-url", "http://a.internal/", "--webhook-allow", "a.internal"]).unwrap();
}

#[test]
fn a_process_that_is_told_to_delivers_none_but_still_tells() {
    let webhooks = webhooks(&["--webhook-url", "https://a.example", "--webhook-concurrency", "0"]).unwrap();
    let clock: SharedClock = std::sync::Arc::new(genfleet_job::clock::SystemClock);
    assert!(webhooks.deliverer(&clock, &FailingReceivers::default()).is_none());
    assert_eq!(webhooks.receivers("cdn.purge", None).len(), 1);
}

#[test]
fn a_certificate_file_that_is_none_is_told() {
    let error = webhooks(&["--webhook-ca-file", "no-such-file"]).unwrap_err().to_string();
    assert!(error.contains("--webhook-ca-file") && error.contains("no-such-file"), "{error}");
}

#[test]
fn a_url_that_is_denied_is_refused_and_a_jobs_own_is_not_told() {
    let denied = &["--webhook-url", "https://evil.example/hush", "--webhook-deny", "evil.example"];
    let error = webhooks(denied).unwrap_err().to_string();
    assert!(error.contains("--webhook-deny") && !error.contains("hush"), "{error}");
    let webhooks = webhooks(&["--webhook-deny", "evil.example:443"]).unwrap();
    assert_eq!(receivers(&webhooks, "cdn.purge", Some("https://evil.example/")), [""; 0]);
    assert_eq!(receivers(&webhooks, "cdn.purge", Some("https://evil.example:8443/")).len(), 1);
}

#[test]
fn where_jobs_may_name_no_webhook_those_that_are_configured_are_told_all_the_same() {
    let webhooks = webhooks(&["--webhook-url", "https://a.example/", "--job-webhooks", "off"]).unwrap();
    assert_eq!(receivers(&webhooks, "cdn.purge", Some("https://own.example/")), ["https://a.example/"]);
    let violations = webhooks.rules().violations("https://own.example/");
    assert_eq!(violations.iter().map(|one| one.pointer.as_str()).collect::<Vec<_>>(), ["/webhook"]);
}
