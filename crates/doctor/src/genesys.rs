//! Genesys Cloud: whether the region is known, whether the token endpoint grants a token for the configured client, and
//! whether the API accepts it. [`super::token`] judges the answers.

use std::sync::Arc;

use genfleet_core::{
    clock::SystemClock,
    genesys::{CredentialCheck, GenesysClient},
};

use super::{
    clock,
    finding::{Check, Finding},
    options::{DoctorOptions, KindNeeds},
    token,
};

/// Runs all checks of the API.
pub(crate) async fn check(options: &DoctorOptions, kinds: &[KindNeeds], is_simulated: bool) -> Vec<Finding> {
    if is_simulated {
        let check = Check::new("genesys.token", "Genesys Cloud");
        let remedy = "omit --simulate (GENFLEET_SIMULATE) to check Genesys Cloud";
        return vec![check.skipped("the built-in simulator is used instead", remedy)];
    }
    let calling: Vec<KindNeeds> = kinds.iter().filter(|needs| needs.calls_genesys).copied().collect();
    if calling.is_empty() {
        let check = Check::new("genesys.token", "Genesys Cloud");
        return vec![
            check.skipped("no worked kind calls it with these settings", "nothing, unless other kinds are intended"),
        ];
    }
    let region = Check::new("genesys.region", "the region");
    let addresses = match options.genesys.addresses() {
        Ok(addresses) => addresses,
        Err(error) => return vec![region.failed(error, "correct the setting that it names")],
    };
    let mut findings = vec![match options.genesys.warnings().first() {
        Some(warning) => {
            region.warning(warning, "correct GENESYS_ENVIRONMENT, unless the region is newer than this version")
        }
        None => region.ok(&addresses.environment),
    }];
    for url in [&addresses.token, &addresses.api] {
        findings.extend(check_encryption(url.scheme(), url.host_str().unwrap_or_default(), url.as_str()));
    }
    findings.extend(operations(options, &calling));
    let client = GenesysClient::new(
        &options.genesys,
        calling.iter().map(|needs| (needs.kind, needs.rights)).collect(),
        Arc::new(SystemClock),
    );
    match client {
        Ok(client) => findings.extend(check_token_and_api(&client, options.genesys.requests_per_minute).await),
        Err(error) => {
            let remedy = "set GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET (or …_FILE), and what the message names";
            findings.push(Check::new("genesys.credentials", "the OAuth client").failed(error, remedy));
        }
    }
    findings
}

/// Warns of each kind of the tutorials that it cannot work with a real organisation.
fn operations(options: &DoctorOptions, kinds: &[KindNeeds]) -> Vec<Finding> {
    let found = "the public API of Genesys Cloud has none of its operations, so that its jobs fail";
    let kinds = kinds.iter().filter(|_| options.genesys.is_of_the_vendor());
    let replaced = kinds.filter_map(|needs| Some((needs.kind, needs.kind.replacement()?)));
    replaced.map(|(kind, remedy)| Check::new("genesys.operations", kind).warning(found, remedy)).collect()
}

/// Warns if client id, secret and token would be sent over the network unencrypted.
fn check_encryption(scheme: &str, host: &str, url: &str) -> Option<Finding> {
    let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    (scheme == "http" && !local).then(|| {
        let found = "without TLS: the secret and the token can be read in the network";
        Check::new("genesys.tls", url).warning(found, "use https://")
    })
}

async fn check_token_and_api(client: &GenesysClient, wanted: u32) -> Vec<Finding> {
    let (token_url, api_url) = (client.addresses().token.as_str(), client.addresses().api.as_str());
    let CredentialCheck { token, api, clock } = client.check_credentials().await;
    let mut findings = vec![token::judge(token_url, &token)];
    findings.extend(api.map(|outcome| token::judge_api(api_url, &outcome, wanted)));
    findings.extend(clock.map(|clocks| clock::judge("genesys.clock", "the API's clock", clocks)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_every_other_machine_is_reported() {
        assert!(check_encryption("http", "127.0.0.1", "http://127.0.0.1:8480/").is_none());
        assert!(check_encryption("https", "api.mypurecloud.ie", "https://api.mypurecloud.ie/").is_none());
        assert!(check_encryption("http", "gateway.example", "http://gateway.example/").is_some());
    }
}
