//! Webhooks: whether deliveries can be signed, whether the configured ones can be delivered, and whether their
//! receivers answer. Receivers get a HEAD request for `/`, and no event.

use genfleet_core::webhook::{
    Receiver, SECRET_VARIABLE, WebhookClient, WebhookOptions, WebhookSecrets, WebhookSendError, Webhooks,
};

use super::finding::{Check, Finding};

/// Runs all checks of the webhooks.
pub(crate) async fn check(options: &WebhookOptions) -> Vec<Finding> {
    let secret = Check::new("webhooks.secret", SECRET_VARIABLE);
    let secrets = match WebhookSecrets::from_environment() {
        Ok(secrets) => secrets,
        Err(error) => {
            let remedy = format!(
                "set {SECRET_VARIABLE} to whsec_ and at least 24 random bytes in base64 (openssl rand -base64 32)"
            );
            return vec![secret.failed(error, remedy)];
        }
    };
    let mut findings = vec![judge_secrets(&secret, secrets.as_ref().map(WebhookSecrets::short))];
    let urls = Check::new("webhooks.urls", "--webhook-url");
    let configured = options.routes().map_or(0, |routes| routes.len());
    match Webhooks::with_secrets(options, secrets) {
        Err(error) => {
            findings.push(urls.failed(error, "follow the message; a worker with this setting does not start"));
        }
        Ok(webhooks) if configured > 0 && webhooks.delivering().is_none() => findings.push(urls.warning(
            format!(
                "{configured} configured, and a worker with these settings delivers none (--webhook-concurrency 0)"
            ),
            "make sure that another worker of the fleet delivers",
        )),
        Ok(_) => {
            findings.push(urls.ok(format!("{configured} configured")));
            findings.extend(receivers(options).await);
        }
    }
    findings
}

/// Checks each receiver once.
async fn receivers(options: &WebhookOptions) -> Vec<Finding> {
    // The caller has already reported errors of these settings.
    let Ok(client) = WebhookClient::new(options) else { return vec![] };
    let mut all: Vec<Receiver> = Vec::new();
    for route in options.routes().unwrap_or_default() {
        if all.iter().all(|one| one.to_string() != route.receiver.to_string()) {
            all.push(route.receiver);
        }
    }
    let mut findings = Vec::new();
    for receiver in &all {
        findings.push(judge_receiver(receiver, client.reach(receiver).await));
    }
    findings
}

fn judge_receiver(receiver: &Receiver, answer: Result<(), WebhookSendError>) -> Finding {
    const RETRIED: &str = "deliveries are tried again for 18 hours";
    let check = Check::new("webhooks.receiver", format!("the receiver {receiver}"));
    match answer {
        Ok(()) => check.ok("answers"),
        Err(WebhookSendError::Refused(refused)) => check.failed(
            refused,
            "permit its host or network with --webhook-allow on every worker that delivers, or use its public address",
        ),
        Err(WebhookSendError::TimedOut) => {
            check.warning("no answer within 5 s", format!("inform its owner, or check the network; {RETRIED}"))
        }
        Err(WebhookSendError::Broken(reason)) => check.warning(
            format!("cannot be reached: {reason}"),
            format!("inform its owner, or check the network (for a certificate: --webhook-ca-file); {RETRIED}"),
        ),
    }
}

/// Judges the secrets: `short` is the number of those that are too short, `None` if there are no secrets.
fn judge_secrets(check: &Check, short: Option<usize>) -> Finding {
    match short {
        None => check.ok("not set: jobs that name a webhook fail, and --webhook-url cannot be used"),
        Some(0) => check.ok("set, and long enough"),
        Some(short) => check.warning(
            format!("{short} of its secrets are shorter than 24 bytes, and too easy to guess"),
            "replace them by the output of openssl rand -base64 32, with whsec_ before it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn no_secret_is_ok_and_a_short_one_is_reported() {
        let check = Check::new("x", "x");
        assert_eq!(
            [None, Some(0), Some(1)].map(|short| judge_secrets(&check, short).level),
            [Level::Ok, Level::Ok, Level::Warning]
        );
    }
}
