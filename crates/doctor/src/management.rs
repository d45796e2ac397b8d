//! The broker's management API: asked for what AMQP does not tell. Reads only. What it says is judged by the module of
//! its subject.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use genfleet_core::queue::{
    rabbit::RabbitSettings,
    topology::{ALTERNATE_EXCHANGE, Topology},
};
use reqwest::{Certificate, Client, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use self::address::{decoded, given_base, guessed_base};
use super::{
    bindings::{self, SeenBinding},
    clock, consumer_timeout, delays,
    exchanges::{self, SeenExchange},
    feature_flags::{self, FeatureFlag},
    finding::Finding,
    nodes::{self, Node},
    options::DoctorOptions,
    policies::{self, Policy},
    queues::{self, SeenQueue},
};

mod address;

const PATIENCE: Duration = Duration::from_secs(10);
const LOOKED_AT: &str = "the management API";

/// The API, and who asks.
struct Management {
    client: Client,
    base: Url,
    user: String,
    password: SecretString,
    virtual_host: String,
    /// Nobody said that there is one.
    guessed: bool,
}

/// What it said of each subject, or why it does not.
pub(crate) struct Seen {
    nodes: Result<Vec<Node>, String>,
    flags: Result<Vec<FeatureFlag>, String>,
    policies: Result<Vec<Policy>, String>,
    operator_policies: Result<Vec<Policy>, String>,
    queues: Result<Vec<SeenQueue>, String>,
    exchanges: Result<Vec<SeenExchange>, String>,
    bindings: Result<Vec<SeenBinding>, String>,
}

/// Asks for everything; what came of asking at all is put to `findings`.
pub(crate) async fn look(
    options: &DoctorOptions,
    settings: &RabbitSettings,
    findings: &mut Vec<Finding>,
) -> Option<Seen> {
    const CHECK: &str = "broker.management";
    let management = match Management::new(options, settings) {
        Ok(management) => management,
        Err(error) => {
            let remedy = "write http://user:password@host:15672 into GENFLEET_MANAGEMENT_URL";
            findings.push(Finding::failed(CHECK, LOOKED_AT, format!("{error:#}"), remedy));
            return None;
        }
    };
    match management.get::<serde_json::Value>(&["whoami"]).await {
        Ok((_, date)) => {
            findings.push(Finding::ok(CHECK, LOOKED_AT, format!("answers at {}", management.base)));
            findings.extend(date.map(|clocks| clock::judge("broker.clock", "the broker's clock", clocks)));
            Some(management.seen().await)
        }
        Err(error) => {
            findings.push(management.unanswered(CHECK, &error));
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
            Some(given) => given_base(given.expose_secret())?,
            None => guessed_base(queue)?,
        };
        // Without a user in it, the queue's is asked with.
        let named = !base.username().is_empty();
        let user = if named { decoded(base.username()) } else { queue.user.clone() };
        let password = if named { decoded(base.password().unwrap_or_default()).into() } else { queue.password.clone() };
        // From here on it can be shown.
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

    async fn seen(&self) -> Seen {
        let host = self.virtual_host.as_str();
        let columns = "name,type,arguments,members,online,messages_dlx";
        Seen {
            nodes: body_of(self.get(&["nodes"]).await),
            flags: body_of(self.get(&["feature-flags"]).await),
            policies: body_of(self.get(&["policies", host]).await),
            operator_policies: body_of(self.get(&["operator-policies", host]).await),
            queues: body_of(self.get(&["queues", host, columns]).await),
            exchanges: body_of(self.get(&["exchanges", host]).await),
            bindings: body_of(self.get(&["bindings", host]).await),
        }
    }

    /// `/api/` and the parts of the path; after a virtual host, the columns that are wanted. With the answer's date.
    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<(T, Option<clock::ClockReading>)> {
        let mut url = self.base.clone();
        let (path, columns) =
            if let [first, host, columns] = path { (&[*first, *host][..], *columns) } else { (path, "") };
        url.path_segments_mut().map_err(|()| anyhow!("no address"))?.pop_if_empty().push("api").extend(path);
        if !columns.is_empty() {
            url.query_pairs_mut().append_pair("columns", columns);
        }
        let asked = std::time::Instant::now();
        let request = self.client.get(url).basic_auth(&self.user, Some(self.password.expose_secret()));
        let answer = request.send().await.map_err(|error| anyhow!("{:#}", anyhow::Error::new(error.without_url())))?;
        let (status, date) = (answer.status(), clock::of(answer.headers(), asked.elapsed()));
        let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
        if status == StatusCode::UNAUTHORIZED {
            bail!("{}", refusal(&self.user, &body));
        }
        if !status.is_success() {
            bail!("it answered {}", status.as_u16());
        }
        Ok((serde_json::from_slice(&body).context("its answer is not what the management API says")?, date))
    }

    fn unanswered(&self, check: &'static str, error: &anyhow::Error) -> Finding {
        let found = format!("no answer to work with from {}: {error:#}", self.base);
        let remedy = "enable it (rabbitmq-plugins enable rabbitmq_management), give the user the tag monitoring, or set \
                      GENFLEET_MANAGEMENT_URL: policies, replicas, feature flags and alarms are not seen by AMQP";
        if self.guessed {
            Finding::skipped(check, LOOKED_AT, found, remedy)
        } else {
            Finding::failed(check, LOOKED_AT, found, remedy)
        }
    }
}

impl Seen {
    /// What differs from `wanted`; `None` where queues and exchanges could not be looked at.
    pub(crate) fn differences(&self, wanted: &Topology) -> Option<Vec<String>> {
        let (queues, exchanges) = (self.queues.as_ref().ok()?, self.exchanges.as_ref().ok()?);
        Some([exchanges::differences(wanted, exchanges), queues::differences(wanted, queues)].concat())
    }

    /// Exchanges that are there as an earlier version declared them; `None` where they could not be looked at.
    pub(crate) fn former(&self, wanted: &Topology) -> Option<Vec<String>> {
        Some(exchanges::former(wanted, self.exchanges.as_ref().ok()?))
    }

    /// Whether a policy says where what matches nothing in `exchange` goes.
    pub(crate) fn has_alternate(&self, exchange: &str) -> bool {
        let policies = self.policies.as_deref().unwrap_or_default();
        policies::of_exchange(policies, exchange, ALTERNATE_EXCHANGE).is_some()
    }

    /// Everything that is not the topology's arguments.
    pub(crate) fn judge(&self, prefix: &str, attempt_timeout: Duration) -> Vec<Finding> {
        let wanted = genfleet_core::queue::topology::topology(prefix);
        let mut findings = Vec::new();
        let nodes = self.nodes.as_deref().unwrap_or_default();
        findings.extend(judged("broker.nodes", "the nodes", &self.nodes, nodes::judge));
        findings.extend(judged("broker.feature_flags", "the feature flags", &self.flags, |flags| {
            vec![feature_flags::judge(flags)]
        }));
        findings.extend(judged("broker.bindings", "the bindings", &self.bindings, |seen| {
            let queues = self.queues.as_deref().unwrap_or_default();
            vec![bindings::judge(&wanted, seen, &queues.iter().map(SeenQueue::name).collect())]
        }));
        findings.extend(judged("broker.policies", "the policies", &self.policies, |user| {
            let operator = self.operator_policies.as_deref().unwrap_or_default();
            policies::judge(&wanted, prefix, user, operator)
        }));
        findings.extend(judged("broker.replicas", "the queues' replicas", &self.queues, |seen| {
            queues::replicas(&wanted, seen, nodes)
        }));
        let user = self.policies.as_deref().unwrap_or_default();
        let operator = self.operator_policies.as_deref().unwrap_or_default();
        findings.extend(delays::overdue(prefix, self.queues.as_deref().unwrap_or_default()));
        findings.extend(delays::confirm_timeout(nodes.len()));
        findings.push(consumer_timeout::judge(prefix, user, operator, attempt_timeout));
        findings
    }
}

fn judged<T>(
    check: &'static str,
    looked_at: &str,
    message: &Result<Vec<T>, String>,
    judge: impl FnOnce(&[T]) -> Vec<Finding>,
) -> Vec<Finding> {
    match message {
        Ok(message) => judge(message),
        Err(why) => {
            let remedy = "give the user of the management API the tag monitoring (feature flags: administrator)";
            vec![Finding::skipped(check, looked_at, why, remedy)]
        }
    }
}

fn body_of<T>(answer: anyhow::Result<(T, Option<clock::ClockReading>)>) -> Result<T, String> {
    answer.map(|(message, _)| message).map_err(|error| format!("{error:#}"))
}

/// It says which of the two is missing: the right password, or the tag.
fn refusal(user: &str, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body["reason"].as_str().unwrap_or("it says no more");
    format!("user {user} is refused: {reason}")
}

/// No proxy: AMQP takes none either.
fn client(options: &DoctorOptions) -> anyhow::Result<Client> {
    let mut builder = Client::builder().timeout(PATIENCE).no_proxy();
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
    fn a_refusal_tells_who_and_why() {
        let body = br#"{"error":"not_authorised","reason":"Not management user"}"#;
        assert_eq!(refusal("worker", body), "user worker is refused: Not management user");
        assert_eq!(refusal("worker", b"<html>"), "user worker is refused: it says no more");
    }
}
