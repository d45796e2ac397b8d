//! The broker's management API, for what AMQP does not show. Only reads. The module for each subject judges the
//! answers.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use genfleet_core::queue::{
    rabbit::RabbitSettings,
    topology::{ALTERNATE_EXCHANGE, Topology, topology},
};
use reqwest::{Certificate, Client, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use self::address::{decode, default_base, parse_base};
use super::{
    bindings::{self, ReportedBinding},
    clock, consumer_timeout, delays,
    exchanges::{self, ReportedExchange},
    feature_flags::{self, FeatureFlag},
    finding::{Check, Finding},
    nodes::{self, Node},
    options::DoctorOptions,
    policies::{self, Policy},
    queues::{self, ReportedQueue},
};

mod address;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The API's address, and the user for it.
struct Management {
    client: Client,
    base: Url,
    user: String,
    password: SecretString,
    virtual_host: String,
    /// True if the address was derived from the queue's, because none is configured.
    guessed: bool,
}

/// The answers of the API about each subject, or the reasons why they are missing.
pub(crate) struct BrokerReport {
    nodes: Result<Vec<Node>, String>,
    flags: Result<Vec<FeatureFlag>, String>,
    policies: Result<Vec<Policy>, String>,
    operator_policies: Result<Vec<Policy>, String>,
    queues: Result<Vec<ReportedQueue>, String>,
    exchanges: Result<Vec<ReportedExchange>, String>,
    bindings: Result<Vec<ReportedBinding>, String>,
}

/// Reads all subjects; `None` if the API cannot be used. Adds findings about the API itself to `findings`.
pub(crate) async fn read(
    options: &DoctorOptions,
    settings: &RabbitSettings,
    findings: &mut Vec<Finding>,
) -> Option<BrokerReport> {
    let check = Check::new("broker.management", "the management API");
    let management = match Management::new(options, settings) {
        Ok(management) => management,
        Err(error) => {
            let remedy = "set GENFLEET_MANAGEMENT_URL to http://user:password@host:15672";
            findings.push(check.failed(format!("{error:#}"), remedy));
            return None;
        }
    };
    match management.get::<serde_json::Value>(&["whoami"], None).await {
        Ok((_, date)) => {
            findings.push(check.ok(format!("answers at {}", management.base)));
            findings.extend(date.map(|clocks| clock::judge("broker.clock", "the broker's clock", clocks)));
            Some(management.report().await)
        }
        Err(error) => {
            let found = format!("no usable answer from {}: {error:#}", management.base);
            let remedy = "enable it (rabbitmq-plugins enable rabbitmq_management), give the user the tag monitoring, or set \
                          GENFLEET_MANAGEMENT_URL: AMQP does not show policies, replicas, feature flags and alarms";
            findings.push(if management.guessed { check.skipped(found, remedy) } else { check.failed(found, remedy) });
            None
        }
    }
}

impl Management {
    fn new(options: &DoctorOptions, settings: &RabbitSettings) -> anyhow::Result<Self> {
        let addresses = settings.addresses()?;
        let queue = addresses.first().context("the queue's address names no host")?;
        let given = options.management()?;
        let mut base = match &given {
            Some(given) => parse_base(given.expose_secret())?,
            None => default_base(queue)?,
        };
        // If the address names no user, that of the queue is used.
        let named = !base.username().is_empty();
        let user = if named { decode(base.username()) } else { queue.user.clone() };
        let password = if named { decode(base.password().unwrap_or_default()).into() } else { queue.password.clone() };
        // Without user and password the address can be shown.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        Ok(Self {
            client: client(options)?,
            base,
            user,
            password,
            virtual_host: queue.virtual_host.clone(),
            guessed: given.is_none(),
        })
    }

    async fn report(&self) -> BrokerReport {
        let host = self.virtual_host.as_str();
        let columns = "name,type,arguments,members,online,messages_dlx";
        BrokerReport {
            nodes: self.list(&["nodes"], None).await,
            flags: self.list(&["feature-flags"], None).await,
            policies: self.list(&["policies", host], None).await,
            operator_policies: self.list(&["operator-policies", host], None).await,
            queues: self.list(&["queues", host], Some(columns)).await,
            exchanges: self.list(&["exchanges", host], None).await,
            bindings: self.list(&["bindings", host], None).await,
        }
    }

    async fn list<T: DeserializeOwned>(&self, path: &[&str], columns: Option<&str>) -> Result<Vec<T>, String> {
        self.get(path, columns).await.map(|(list, _)| list).map_err(|error| format!("{error:#}"))
    }

    /// Sends a GET request for `/api/` and the parts of the path. Also reads the answer's date.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        columns: Option<&str>,
    ) -> anyhow::Result<(T, Option<clock::ClockReading>)> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| anyhow!("no address"))?.pop_if_empty().push("api").extend(path);
        if let Some(columns) = columns {
            url.query_pairs_mut().append_pair("columns", columns);
        }
        let sent = Instant::now();
        let request = self.client.get(url).basic_auth(&self.user, Some(self.password.expose_secret()));
        let answer = request.send().await.map_err(|error| anyhow!("{:#}", anyhow::Error::new(error.without_url())))?;
        let (status, date) = (answer.status(), clock::of(answer.headers(), sent.elapsed()));
        let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
        if status == StatusCode::UNAUTHORIZED {
            bail!("{}", refusal(&self.user, &body));
        }
        if !status.is_success() {
            bail!("it answered {}", status.as_u16());
        }
        Ok((serde_json::from_slice(&body).context("the answer does not have the form of the management API")?, date))
    }
}

impl BrokerReport {
    /// Describes what differs from `wanted`; `None` if queues or exchanges could not be read.
    pub(crate) fn differences(&self, wanted: &Topology) -> Option<Vec<String>> {
        let (queues, exchanges) = (self.queues.as_ref().ok()?, self.exchanges.as_ref().ok()?);
        Some([exchanges::differences(wanted, exchanges), queues::differences(wanted, queues)].concat())
    }

    /// Names of exchanges that exist as an earlier version declared them; `None` if exchanges could not be read.
    pub(crate) fn former(&self, wanted: &Topology) -> Option<Vec<String>> {
        Some(exchanges::former(wanted, self.exchanges.as_ref().ok()?))
    }

    /// Returns true if a policy gives `exchange` an alternate exchange.
    pub(crate) fn has_alternate(&self, exchange: &str) -> bool {
        let policies = self.policies.as_deref().unwrap_or_default();
        policies::of_exchange(policies, exchange, ALTERNATE_EXCHANGE).is_some()
    }

    /// Judges everything but the arguments of queues and exchanges.
    pub(crate) fn judge(&self, prefix: &str, attempt_timeout: Duration) -> Vec<Finding> {
        let wanted = topology(prefix);
        let nodes = self.nodes.as_deref().unwrap_or_default();
        let queues = self.queues.as_deref().unwrap_or_default();
        let user = self.policies.as_deref().unwrap_or_default();
        let operator = self.operator_policies.as_deref().unwrap_or_default();
        let mut findings = judge_reported("broker.nodes", "the nodes", &self.nodes, nodes::judge);
        findings.extend(judge_reported("broker.feature_flags", "the feature flags", &self.flags, |flags| {
            vec![feature_flags::judge(flags)]
        }));
        findings.extend(judge_reported("broker.bindings", "the bindings", &self.bindings, |reported| {
            vec![bindings::judge(&wanted, reported, &queues.iter().map(|queue| queue.name.as_str()).collect())]
        }));
        findings.extend(judge_reported("broker.policies", "the policies", &self.policies, |user| {
            policies::judge(&wanted, prefix, user, operator)
        }));
        findings.extend(judge_reported("broker.replicas", "the queues' replicas", &self.queues, |reported| {
            queues::replicas(&wanted, reported, nodes)
        }));
        findings.extend(delays::overdue(prefix, queues));
        findings.extend(delays::confirm_timeout(nodes.len()));
        findings.push(consumer_timeout::judge(prefix, user, operator, attempt_timeout));
        findings
    }
}

fn judge_reported<T>(
    check: &'static str,
    looked_at: &str,
    reported: &Result<Vec<T>, String>,
    judge: impl FnOnce(&[T]) -> Vec<Finding>,
) -> Vec<Finding> {
    match reported {
        Ok(reported) => judge(reported),
        Err(reason) => {
            let remedy = "give the user of the management API the tag monitoring (feature flags: administrator)";
            vec![Check::new(check, looked_at).skipped(reason, remedy)]
        }
    }
}

/// Describes a refusal with the API's reason: a wrong password, or a missing tag.
fn refusal(user: &str, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body["reason"].as_str().unwrap_or("it gives no reason");
    format!("user {user} is refused: {reason}")
}

/// Makes an HTTP client that uses no proxy, because AMQP uses none either.
fn client(options: &DoctorOptions) -> anyhow::Result<Client> {
    let mut builder = Client::builder().timeout(TIMEOUT).no_proxy();
    if let Some(file) = &options.queue.queue_ca_file {
        let pem = genfleet_core::job::text::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(&pem)?);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_user_and_the_reason() {
        let body = br#"{"error":"not_authorised","reason":"Not management user"}"#;
        assert_eq!(refusal("worker", body), "user worker is refused: Not management user");
        assert_eq!(refusal("worker", b"<html>"), "user worker is refused: it gives no reason");
    }
}
