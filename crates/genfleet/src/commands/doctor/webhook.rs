//! Webhooks: whether deliveries can be signed, and whether what is configured can be delivered at all.

use genfleet_core::webhook::{
    Webhooks,
    options::WebhookOptions,
    signature::{Secrets, VARIABLE},
};

use super::finding::Finding;

const CHECK: &str = "webhooks.secret";

/// Every check of them.
pub fn check(options: &WebhookOptions) -> Vec<Finding> {
    let secrets = match Secrets::from_environment() {
        Ok(secrets) => secrets,
        Err(error) => {
            let remedy =
                format!("set {VARIABLE} to whsec_ and 24 random bytes or more in base64 (openssl rand -base64 32)");
            return vec![Finding::failed(CHECK, VARIABLE, error, remedy)];
        }
    };
    let mut findings = vec![signing(secrets.as_ref().map(Secrets::short))];
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
        Ok(_) => findings.push(Finding::ok("webhooks.urls", "--webhook-url", format!("{configured} configured"))),
    }
    findings
}

/// How many of the secrets are short, where there are any.
fn signing(short: Option<usize>) -> Finding {
    match short {
        None => Finding::ok(
            CHECK,
            VARIABLE,
            "not set: jobs that name a webhook of their own fail, and none is configured without it",
        ),
        Some(0) => Finding::ok(CHECK, VARIABLE, "set, and long enough"),
        Some(short) => {
            let found = format!("{short} of its secrets are shorter than 24 bytes, and too easy to guess");
            Finding::warning(CHECK, VARIABLE, found, "exchange them: openssl rand -base64 32, with whsec_ before it")
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
