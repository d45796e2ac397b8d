//! What the token endpoint and the API make of us, distinguished: wrong client, wrong region, too many tokens, a network in
//! between. Pure.

use genfleet_core::genesys::{RateLimitHeaders, TokenCheckOutcome, TransportFailure};

use super::finding::Finding;

const TOKEN: &str = "genesys.token";
const API: &str = "genesys.api";

/// Judges what came of asking for a token.
pub(crate) fn judge(url: &str, outcome: &TokenCheckOutcome) -> Finding {
    let looked_at = format!("one token from {url}");
    match outcome {
        TokenCheckOutcome::Granted { life, scoped, .. } => {
            let scopes = if *scoped { "with our scopes" } else { "without scopes: the roles of the client decide" };
            Finding::ok(TOKEN, looked_at, format!("given for {} s, {scopes}", life.as_secs()))
        }
        TokenCheckOutcome::Throttled { wait } => {
            let again = wait.map_or("some minutes".to_owned(), |wait| format!("{} s", wait.as_secs()));
            let remedy = format!(
                "try again in {again}: too many tokens were asked for, by this or by others with the same client"
            );
            Finding::warning(TOKEN, looked_at, "not now: the rate limit for tokens is reached", remedy)
        }
        TokenCheckOutcome::Refused { reported: details } => {
            Finding::failed(TOKEN, looked_at, format!("refused: {details}"), of_refusal(details))
        }
        TokenCheckOutcome::Away { reported: details } => {
            let remedy =
                "try again in a while; where it lasts, look at status.mypurecloud.com, and at what lies between";
            Finding::failed(TOKEN, looked_at, format!("it is in trouble: {details}"), remedy)
        }
        TokenCheckOutcome::NoAnswer { failure, message } => {
            Finding::failed(TOKEN, looked_at, format!("no answer: {message}"), of_silence(*failure, message))
        }
    }
}

fn of_refusal(details: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| details.to_ascii_lowercase().contains(word));
    if says(&["invalid_client", "unauthorized_client", "authentication failed", "401"]) {
        "check GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET, and GENESYS_ENVIRONMENT: a client of another region is refused \
         in the same words. Is the client active, and of the grant type client credentials?"
    } else if says(&["unsupported_grant", "invalid_grant", "403"]) {
        "make the OAuth client one of the grant type client credentials, and active"
    } else if says(&["invalid_scope"]) {
        "give the OAuth client the scopes or roles of its kinds (genfleet doctor KIND tries those of one)"
    } else {
        "is this the token endpoint? Check GENESYS_ENVIRONMENT, GENESYS_BASE_URL and GENESYS_TOKEN_URL"
    }
}

/// Describes best by the words of whoever failed what keeps answers away.
fn of_silence(why: TransportFailure, message: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| message.to_ascii_lowercase().contains(word));
    if says(&["dns", "lookup", "resolve", "name or service"]) {
        "check GENESYS_ENVIRONMENT (or the URL that overrides it), and this machine's DNS"
    } else if says(&["proxy", "tunnel"]) {
        "check HTTPS_PROXY and NO_PROXY, and whether the proxy lets this address through"
    } else if says(&["certificate", "tls", "handshake", "unknownissuer"]) {
        "a proxy that opens TLS needs its authority in GENESYS_CA_FILE; check this machine's clock and certificates, too"
    } else {
        match why {
            TransportFailure::TimedOut => {
                "something swallows it: check firewall and routes, and set HTTPS_PROXY where one is needed"
            }
            TransportFailure::NeverSent | TransportFailure::Broken | TransportFailure::TooLong => {
                "check the address, firewall and routes, and set HTTPS_PROXY where one is needed"
            }
        }
    }
}

/// Judges what the API made of the token; `wanted` requests a minute are set.
pub(crate) fn judge_api(
    url: &str,
    outcome: &Result<(u16, RateLimitHeaders), (TransportFailure, String)>,
    wanted: u32,
) -> Finding {
    let looked_at = format!("the API at {url}");
    let (status, rates) = match outcome {
        Ok((status, rates)) => (*status, rates),
        Err((why, message)) => {
            return Finding::failed(API, looked_at, format!("no answer: {message}"), of_silence(*why, message));
        }
    };
    let allows = match rates.allowed {
        Some(allowed) if allowed < wanted => {
            format!("; it allows {allowed} requests a minute, less than the {wanted} set, and is followed")
        }
        Some(allowed) => format!("; it allows {allowed} requests a minute"),
        None => String::new(),
    };
    match status {
        // A 404 is a stand-in that does not know what a token is: the token was looked at before that.
        200..=299 | 403 | 404 => Finding::ok(API, looked_at, format!("answers, and takes the token{allows}")),
        401 => Finding::failed(
            API,
            looked_at,
            "401: it does not take the token that was just given",
            "do GENESYS_BASE_URL and GENESYS_TOKEN_URL belong together?",
        ),
        429 => Finding::warning(
            API,
            looked_at,
            format!("429: the limit is reached{allows}"),
            "others use this client up: give genfleet one of its own, or lower --requests-per-minute",
        ),
        500..=599 => Finding::warning(
            API,
            looked_at,
            format!("{status}: it is in trouble"),
            "try again in a while; workers wait meanwhile",
        ),
        _ => {
            Finding::warning(API, looked_at, format!("{status}, which is not expected"), "is GENESYS_BASE_URL the API?")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::finding::Level, *};

    fn refused(details: &str) -> Finding {
        judge("https://login.x", &TokenCheckOutcome::Refused { reported: details.to_owned() })
    }

    #[test]
    fn refusals_are_told_apart_by_what_to_do() {
        for (details, remedy) in [
            ("400 invalid_client: authentication failed", "GENESYS_ENVIRONMENT: a client of another region"),
            ("401 it said nothing about it", "GENESYS_CLIENT_SECRET"),
            ("400 unsupported_grant_type: no", "grant type client credentials"),
            ("invalid_scope, also without any", "scopes or roles"),
            ("404 Not Found", "is this the token endpoint?"),
        ] {
            let finding = refused(details);
            assert!(finding.level == Level::Failed && finding.remedy.as_deref().unwrap().contains(remedy), "{details}");
        }
    }

    #[test]
    fn a_network_in_between_is_told_by_what_it_did() {
        for (message, why, remedy) in [
            ("error sending request: dns error: failed to lookup address", TransportFailure::NeverSent, "DNS"),
            ("tunnel error: unsuccessful", TransportFailure::NeverSent, "HTTPS_PROXY and NO_PROXY"),
            ("invalid peer certificate: UnknownIssuer", TransportFailure::NeverSent, "GENESYS_CA_FILE"),
            ("operation timed out", TransportFailure::TimedOut, "something swallows it"),
            ("Connection refused (os error 111)", TransportFailure::NeverSent, "firewall"),
        ] {
            let finding = judge("u", &TokenCheckOutcome::NoAnswer { failure: why, message: message.to_owned() });
            assert!(finding.remedy.as_deref().unwrap().contains(remedy), "{message}: {finding:?}");
        }
    }

    #[test]
    fn throttled_is_no_failure_and_says_when() {
        let finding = judge("u", &TokenCheckOutcome::Throttled { wait: Some(Duration::from_secs(42)) });
        assert!(finding.level == Level::Warning && finding.remedy.unwrap().contains("42 s"));
    }

    #[test]
    fn the_api_takes_the_token_or_says_why_not() {
        let level = |status| judge_api("u", &Ok((status, RateLimitHeaders::default())), 300).level;
        assert_eq!([200, 403, 404].map(level), [Level::Ok; 3]);
        assert_eq!([401].map(level), [Level::Failed]);
        assert_eq!([429, 503, 302].map(level), [Level::Warning; 3]);
        let few = RateLimitHeaders { allowed: Some(100), ..RateLimitHeaders::default() };
        assert!(judge_api("u", &Ok((200, few)), 300).found.contains("100 requests a minute, less than the 300"));
    }
}
