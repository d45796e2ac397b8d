//! Judges the answers of the token endpoint and the API: wrong client, wrong region, too many tokens, or a problem in
//! the network. Pure functions.

use genfleet_core::genesys::{RateLimitHeaders, TokenCheckOutcome, TransportFailure};

use super::finding::{Check, Finding};

/// Judges the result of requesting a token.
pub(crate) fn judge(url: &str, outcome: &TokenCheckOutcome) -> Finding {
    let check = Check::new("genesys.token", format!("one token from {url}"));
    match outcome {
        TokenCheckOutcome::Granted { life, scoped } => {
            let scopes =
                if *scoped { "with the scopes of the kinds" } else { "without scopes: the client's roles decide" };
            check.ok(format!("granted for {} s, {scopes}", life.as_secs()))
        }
        TokenCheckOutcome::Throttled { wait } => {
            let again = wait.map_or("some minutes".to_owned(), |wait| format!("{} s", wait.as_secs()));
            check.warning(
                "refused for now: the rate limit for tokens is reached",
                format!("try again in {again}: too many tokens were requested with this OAuth client"),
            )
        }
        TokenCheckOutcome::Refused { reported } => {
            check.failed(format!("refused: {reported}"), remedy_of_refusal(reported))
        }
        TokenCheckOutcome::Away { reported } => {
            let remedy = "try again later; if it continues, check status.mypurecloud.com, and proxies in between";
            check.failed(format!("the endpoint has a problem: {reported}"), remedy)
        }
        TokenCheckOutcome::NoAnswer { failure, message } => {
            check.failed(format!("no answer: {message}"), remedy_of_failure(*failure, message))
        }
    }
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

fn remedy_of_refusal(reported: &str) -> &'static str {
    if contains_any(reported, &["invalid_client", "unauthorized_client", "authentication failed", "401"]) {
        "check GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET, and GENESYS_ENVIRONMENT: a client of another region is refused \
         in the same words. Is the client active, and is its grant type client credentials?"
    } else if contains_any(reported, &["unsupported_grant", "invalid_grant", "403"]) {
        "use an OAuth client that is active and has the grant type client credentials"
    } else if contains_any(reported, &["invalid_scope"]) {
        "give the OAuth client the scopes or roles of its kinds (genfleet doctor KIND tries those of one kind)"
    } else {
        "is this the token endpoint? Check GENESYS_ENVIRONMENT, GENESYS_BASE_URL and GENESYS_TOKEN_URL"
    }
}

/// Chooses a remedy by the message of the failure, because it says more than the kind of the failure.
fn remedy_of_failure(failure: TransportFailure, message: &str) -> &'static str {
    if contains_any(message, &["dns", "lookup", "resolve", "name or service"]) {
        "check GENESYS_ENVIRONMENT (or the URL that overrides it), and this machine's DNS"
    } else if contains_any(message, &["proxy", "tunnel"]) {
        "check HTTPS_PROXY and NO_PROXY, and whether the proxy permits this address"
    } else if contains_any(message, &["certificate", "tls", "handshake", "unknownissuer"]) {
        "if a proxy intercepts TLS, set its certificate authority in GENESYS_CA_FILE; also check this machine's clock and \
         certificates"
    } else {
        match failure {
            TransportFailure::TimedOut => {
                "nothing answers, so packets may be dropped: check firewall and routes, and set HTTPS_PROXY if one is needed"
            }
            TransportFailure::NeverSent | TransportFailure::Broken | TransportFailure::TooLong => {
                "check the address, firewall and routes, and set HTTPS_PROXY if one is needed"
            }
        }
    }
}

/// Judges the API's answer to a request with the token; `wanted` is the configured number of requests a minute.
pub(crate) fn judge_api(
    url: &str,
    outcome: &Result<(u16, RateLimitHeaders), (TransportFailure, String)>,
    wanted: u32,
) -> Finding {
    let check = Check::new("genesys.api", format!("the API at {url}"));
    let (status, rates) = match outcome {
        Ok((status, rates)) => (*status, rates),
        Err((failure, message)) => {
            return check.failed(format!("no answer: {message}"), remedy_of_failure(*failure, message));
        }
    };
    let allows = match rates.allowed {
        Some(allowed) if allowed < wanted => {
            format!("; it allows {allowed} requests a minute, less than the {wanted} configured; workers keep to it")
        }
        Some(allowed) => format!("; it allows {allowed} requests a minute"),
        None => String::new(),
    };
    match status {
        // The API checks the token before it looks for the path, so a 404 also means that it accepts the token.
        200..=299 | 403 | 404 => check.ok(format!("answers, and accepts the token{allows}")),
        401 => check.failed(
            "401: it refuses the token that the endpoint has just granted",
            "do GENESYS_BASE_URL and GENESYS_TOKEN_URL belong together?",
        ),
        429 => check.warning(
            format!("429: the limit is reached{allows}"),
            "other programs use this OAuth client: give genfleet its own, or lower --requests-per-minute",
        ),
        500..=599 => {
            check.warning(format!("{status}: the API has a problem"), "try again later; workers wait meanwhile")
        }
        _ => check.warning(format!("{status}, an unexpected status"), "is GENESYS_BASE_URL the API?"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::finding::Level, *};

    fn refused(reported: &str) -> Finding {
        judge("https://login.x", &TokenCheckOutcome::Refused { reported: reported.to_owned() })
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        for (reported, remedy) in [
            ("400 invalid_client: authentication failed", "GENESYS_ENVIRONMENT: a client of another region"),
            ("401 the answer has no error message", "GENESYS_CLIENT_SECRET"),
            ("400 unsupported_grant_type: no", "grant type client credentials"),
            ("invalid_scope, also without any", "scopes or roles"),
            ("404 Not Found", "is this the token endpoint?"),
        ] {
            let finding = refused(reported);
            assert!(
                finding.level == Level::Failed && finding.remedy.as_deref().unwrap().contains(remedy),
                "{reported}"
            );
        }
    }

    #[test]
    fn each_network_failure_has_its_remedy() {
        for (message, why, remedy) in [
            ("error sending request: dns error: failed to lookup address", TransportFailure::NeverSent, "DNS"),
            ("tunnel error: unsuccessful", TransportFailure::NeverSent, "HTTPS_PROXY and NO_PROXY"),
            ("invalid peer certificate: UnknownIssuer", TransportFailure::NeverSent, "GENESYS_CA_FILE"),
            ("operation timed out", TransportFailure::TimedOut, "packets may be dropped"),
            ("Connection refused (os error 111)", TransportFailure::NeverSent, "firewall"),
        ] {
            let finding = judge("u", &TokenCheckOutcome::NoAnswer { failure: why, message: message.to_owned() });
            assert!(finding.remedy.as_deref().unwrap().contains(remedy), "{message}: {finding:?}");
        }
    }

    #[test]
    fn a_throttled_token_is_a_warning_that_says_when_to_try_again() {
        let finding = judge("u", &TokenCheckOutcome::Throttled { wait: Some(Duration::from_secs(42)) });
        assert!(finding.level == Level::Warning && finding.remedy.unwrap().contains("42 s"));
    }

    #[test]
    fn each_status_of_the_api_has_its_level() {
        let level = |status| judge_api("u", &Ok((status, RateLimitHeaders::default())), 300).level;
        assert_eq!([200, 403, 404].map(level), [Level::Ok; 3]);
        assert_eq!([401].map(level), [Level::Failed]);
        assert_eq!([429, 503, 302].map(level), [Level::Warning; 3]);
        let few = RateLimitHeaders { allowed: Some(100), ..RateLimitHeaders::default() };
        assert!(judge_api("u", &Ok((200, few)), 300).found.contains("100 requests a minute, less than the 300"));
    }
}
