//! Webhooks: whether deliveries can be signed, whether what is configured can be delivered at all, and whether its
//! receivers are there. They are sent a HEAD for their root, and no event.

use genfleet_core::webhook::{
    Receiver, SECRET_VARIABLE, WebhookClient, WebhookOptions, WebhookSecrets, WebhookSendError, Webhooks,
};

use super::finding::Finding;

const CHECK: &str = "webhooks.secret";
const RECEIVER: &str = "webhooks.receiver";

/// Every check of them.
pub(crate) async fn check(options: &WebhookOptions) -> Vec<Finding> {
    let secrets = match WebhookSecrets::from_environment() {
        Ok(secrets) => secrets,
        Err(error) => {
            let remedy = format!(
                "set {SECRET_VARIABLE} to whsec_ and 24 random bytes or more in base64 (openssl rand -base64 32)"
            );
            return vec![Finding::failed(CHECK, SECRET_VARIABLE, error, remedy)];
        }
    };
    let mut findings = vec![signing(secrets.as_ref().map(WebhookSecrets::short))];
    let configured = options.routes().map_or(0, |routes| routes.len());
    match Webhooks::with_secrets(options, secrets) {
        Err(error) => findings.push(Finding::failed(
            "webhooks.urls",
            "--webhook-url",
            error,
            "do as it says; no worker starts like this",
        )),
        Ok(webhooks) if configured > 0 && webhooks.delivering().is_none() => {
            let found =
                format!("{configured} configured, and none delivered by such a worker (--webhook-concurrency 0)");
            findings.push(Finding::warning(
                "webhooks.urls",
                "--webhook-url",
                found,
                "see that another worker of the fleet delivers",
            ));
        }
        Ok(_) => {
            findings.push(Finding::ok("webhooks.urls", "--webhook-url", format!("{configured} configured")));
            findings.extend(receivers(options).await);
        }
    }
    findings
}

/// Each host once.
async fn receivers(options: &WebhookOptions) -> Vec<Finding> {
    // Both were good enough a moment ago.
    let Ok(client) = WebhookClient::new(options.addresses(), options.webhook_ca_file.as_deref()) else { return vec![] };
    let mut all: Vec<Receiver> = Vec::new();
    for route in options.routes().unwrap_or_default() {
        if all.iter().all(|one| one.to_string() != route.receiver.to_string()) {
            all.push(route.receiver);
        }
    }
    let mut findings = Vec::new();
    for receiver in &all {
        findings.push(reached(receiver, client.reach(receiver).await));
    }
    findings
}

fn reached(receiver: &Receiver, reached: Result<(), WebhookSendError>) -> Finding {
    const WAITS: &str = "deliveries are tried again for 18 hours";
    let looked_at = format!("the receiver {receiver}");
    match reached {
        Ok(()) => Finding::ok(RECEIVER, looked_at, "answers"),
        Err(WebhookSendError::Refused(refused)) => Finding::failed(
            RECEIVER,
            looked_at,
            refused,
            "name its host or network in --webhook-allow on every worker that delivers, or give its public address",
        ),
        Err(WebhookSendError::TimedOut) => {
            let remedy = format!("tell its owner, or see what lies between; {WAITS}");
            Finding::warning(RECEIVER, looked_at, "no answer within 5 s", remedy)
        }
        Err(WebhookSendError::Broken(why)) => {
            let remedy =
                format!("tell its owner, or see what lies between (for a certificate: --webhook-ca-file); {WAITS}");
            Finding::warning(RECEIVER, looked_at, format!("cannot be reached: {why}"), remedy)
        }
    }
}

/// How many of the secrets are short, where there are any.
fn signing(short: Option<usize>) -> Finding {
    match short {
        None => Finding::ok(
            CHECK,
            SECRET_VARIABLE,
            "not set: jobs that name a webhook of their own fail, and none is configured without it",
        ),
        Some(0) => Finding::ok(CHECK, SECRET_VARIABLE, "set, and long enough"),
        Some(short) => {
            let found = format!("{short} of its secrets are shorter than 24 bytes, and too easy to guess");
            Finding::warning(
                CHECK,
                SECRET_VARIABLE,
                found,
                "exchange them: openssl rand -base64 32, with whsec_ before it",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn no_secret_is_well_and_a_short_one_is_told() {
        assert_eq!([None, Some(0), Some(1)].map(|short| signing(short).level), [Level::Ok, Level::Ok, Level::Warning]);
    }
}
