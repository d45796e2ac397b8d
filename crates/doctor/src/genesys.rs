//! Genesys Cloud: whether the region is known, whether a token is given for our credentials, and whether the API takes
//! it. What the answers mean is [`super::token`]'s.

use std::sync::Arc;

use genfleet_core::{
    clock::SystemClock,
    genesys::{ApiCheck, GenesysClient, TokenCheckOutcome},
};

use super::{
    clock,
    finding::Finding,
    options::{DoctorOptions, KindNeeds},
    token,
};

/// Every check of the API.
pub(crate) async fn check(options: &DoctorOptions, kinds: &[KindNeeds], is_simulated: bool) -> Vec<Finding> {
    if is_simulated {
        let remedy = "leave --simulate (GENFLEET_SIMULATE) away to check the real one";
        return vec![Finding::skipped(
            "genesys.token",
            "Genesys Cloud",
            "the built-in simulator stands in for it",
            remedy,
        )];
    }
    let calling: Vec<KindNeeds> = kinds.iter().filter(|needs| needs.calls_genesys).copied().collect();
    if calling.is_empty() {
        let why = "no kind that is worked calls it with these settings";
        return vec![Finding::skipped("genesys.token", "Genesys Cloud", why, "nothing, unless other kinds are meant")];
    }
    let mut findings = Vec::new();
    let addresses = match options.genesys.addresses() {
        Ok(addresses) => addresses,
        Err(error) => {
            return vec![Finding::failed("genesys.region", "the API's address", error, "correct the setting it names")];
        }
    };
    let region = region(options, &addresses.environment);
    findings.push(region);
    for url in [&addresses.token, &addresses.api] {
        findings.extend(unencrypted(url.scheme(), url.host_str().unwrap_or_default(), url.as_str()));
    }
    findings.extend(operations(options, &calling));
    let client = GenesysClient::new(
        &options.genesys,
        calling.iter().map(|needs| (needs.kind, needs.rights)).collect(),
        Arc::new(SystemClock),
    );
    match client {
        Ok(client) => findings.extend(trial(&client, options.genesys.requests_per_minute).await),
        Err(error) => {
            let remedy = "set GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET (or …_FILE), and what it names";
            findings.push(Finding::failed("genesys.credentials", "the OAuth client", error, remedy));
        }
    }
    findings
}

fn region(options: &DoctorOptions, environment: &str) -> Finding {
    const CHECK: &str = "genesys.region";
    match options.genesys.warnings().first() {
        Some(warning) => Finding::warning(
            CHECK,
            "the region",
            warning,
            "correct GENESYS_ENVIRONMENT, unless the region is newer than this version",
        ),
        None => Finding::ok(CHECK, "the region", environment),
    }
}

/// Says of each kind of the tutorials that it cannot work with a real organisation.
fn operations(options: &DoctorOptions, kinds: &[KindNeeds]) -> Vec<Finding> {
    let found = "the public API of Genesys Cloud has none of its operations, so that its jobs fail";
    let kinds = kinds.iter().filter(|_| options.genesys.is_of_the_vendor());
    let replaced = kinds.filter_map(|needs| Some((needs.kind, needs.kind.replacement()?)));
    replaced.map(|(kind, remedy)| Finding::warning("genesys.operations", kind, found, remedy)).collect()
}

/// Client id, secret and token would go over the network for all to read.
fn unencrypted(scheme: &str, host: &str, url: &str) -> Option<Finding> {
    let here = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    (scheme == "http" && !here).then(|| {
        Finding::warning(
            "genesys.tls",
            url,
            "without TLS: the secret and the token can be read on the way",
            "use https://",
        )
    })
}

async fn trial(client: &GenesysClient, wanted: u32) -> Vec<Finding> {
    let (token_url, api_url) = client.addresses();
    let asked = client.check_token().await;
    let mut findings = vec![token::judge(token_url, &asked.outcome)];
    let mut clocks = asked.clock;
    if let TokenCheckOutcome::Granted { grant, .. } = &asked.outcome {
        let ApiCheck { outcome, clock } = client.check_api(grant).await;
        findings.push(token::judge_api(api_url, &outcome, wanted));
        clocks = clock.or(clocks);
    }
    findings.extend(clocks.map(|clocks| clock::judge("genesys.clock", "the API's", clocks)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_this_machine_is_spoken_to_silently() {
        assert!(unencrypted("http", "127.0.0.1", "http://127.0.0.1:8480/").is_none());
        assert!(unencrypted("https", "api.mypurecloud.ie", "https://api.mypurecloud.ie/").is_none());
        assert!(unencrypted("http", "gateway.example", "http://gateway.example/").is_some());
    }
}
