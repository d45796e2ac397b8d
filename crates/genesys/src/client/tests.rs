//! The client whole, over a scripted transport and under paused time: what follows from what the API does.

use std::{collections::VecDeque, time::Duration};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    admission::{Admission, ClosedReason},
    budget::share::LimitShare,
    credentials::Credentials,
    http_transport::{
        TransportFailure,
        testing::{ScriptedReply, ScriptedTransport},
    },
    options::ClientAuth,
};
use genfleet_job::{JobId, clock::Clock, error::JobError};

mod audited_changes;
mod client_limit;
mod credential_check;
mod failure_causes;
mod permission_hold;
mod sending;
mod service_limits;
mod throttling;
mod tokens;

const THINGS: &str = "/api/v2/things";
const TOKEN: &str = "/oauth/token";
const SCOPES: &[&str] = &["things:write", "things:read"];
const SECOND: Duration = Duration::from_secs(1);

/// The time of day, which goes with tokio's clock.
#[derive(Debug)]
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        start + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }
}

/// A client whose API does what a closure says; tokens are given.
struct Rig {
    client: GenesysClient,
    script: ScriptedTransport,
    stop: CancellationToken,
    credentials: Arc<Mutex<Credentials>>,
}

fn options() -> GenesysOptions {
    let text = |duration| Duration::from_secs(duration);
    GenesysOptions {
        genesys_environment: "mypurecloud.com".to_owned(),
        genesys_base_url: None,
        genesys_token_url: None,
        genesys_cdn_url: None,
        genesys_client_auth: ClientAuth::Basic,
        genesys_ca_file: None,
        requests_per_minute: 6000,
        client_requests_per_minute: 60_000,
        breaker_window: text(30),
        breaker_probe: text(5),
        credentials_probe: text(30),
        forbidden_probe: text(60),
    }
}

impl Rig {
    fn new(api: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static) -> Self {
        Self::with(&options(), ScriptedTransport::new(with_tokens(api)))
    }

    /// These answers, one after the other, then 200.
    fn answering(answers: impl IntoIterator<Item = ScriptedReply>) -> Self {
        let mut answers: VecDeque<ScriptedReply> = answers.into_iter().collect();
        Self::new(move |_| answers.pop_front().unwrap_or_else(|| ScriptedReply::status(200)))
    }

    fn with(options: &GenesysOptions, script: ScriptedTransport) -> Self {
        let rights = KindRights::new(vec![(Kind::CdnPurge, SCOPES), (Kind::FileScan, &["files:read"][..])]);
        let credentials = Credentials { id: "the-id".to_owned().into(), secret: "the-secret".to_owned().into() };
        let credentials = Arc::new(Mutex::new(credentials));
        let source = CredentialSource::Shared(Arc::clone(&credentials));
        let clock = Arc::new(TestClock(Instant::now()));
        let client =
            GenesysClient::over(HttpTransport::Scripted(script.clone()), options, rights, clock, source).unwrap();
        Self { client, script, stop: CancellationToken::new(), credentials }
    }

    fn caller<'a>(&'a self, jobs: &'a [JobId]) -> Caller<'a> {
        Caller { kind: Kind::CdnPurge, jobs, traces: &[], stop: &self.stop, lease: None }
    }

    async fn send_for(&self, number: usize, request: ApiRequest) -> Result<ApiAnswer, ApiError> {
        let jobs = [job(number)];
        self.client.send(request, &self.caller(&jobs)).await
    }

    async fn get(&self) -> Result<ApiAnswer, ApiError> {
        self.send_for(1, ApiRequest::get(THINGS)).await
    }

    async fn post(&self) -> Result<ApiAnswer, ApiError> {
        self.send_for(1, ApiRequest::post(THINGS).json(&"thing")).await
    }

    /// Requests to the API, tokens not counted.
    fn sent(&self) -> usize {
        self.script.times(THINGS).len()
    }

    fn tokens(&self) -> usize {
        self.script.times(TOKEN).len()
    }

    fn admission(&self) -> Admission {
        self.client.admission(Kind::CdnPurge)
    }

    fn reason(&self) -> Option<ClosedReason> {
        match self.admission() {
            Admission::Open => None,
            Admission::Closed { reason, .. } => Some(reason),
        }
    }
}

/// Gives `token-1`, `token-2` … and lets `api` answer the rest.
fn with_tokens(
    mut api: impl FnMut(&HttpRequest) -> ScriptedReply + Send,
) -> impl FnMut(&HttpRequest) -> ScriptedReply + Send {
    let mut tokens = 0;
    move |asked| {
        if asked.url.path() == TOKEN {
            tokens += 1;
            ScriptedReply::token(&format!("token-{tokens}"))
        } else {
            api(asked)
        }
    }
}

fn job(number: usize) -> JobId {
    JobId::parse(&format!("job-{number}")).unwrap()
}

fn bearer(asked: &HttpRequest) -> String {
    asked.headers["authorization"].to_str().unwrap().to_owned()
}

/// Returns what `genfleet_gate_state` shows for `reason`.
fn gate_is_shut(rig: &Rig, reason: ClosedReason) -> bool {
    let gauges = rig.client.shared.admission.control().gauges(Instant::now());
    gauges.holds.iter().any(|(each, is_held)| *each == reason && *is_held)
}

/// Seconds from now to what a held caller was told, rounded.
fn held_for(rig: &Rig, error: &ApiError) -> i64 {
    let ErrorClass::Held { until, .. } = error.class else { panic!("not held: {error:?}") };
    let millis = until.duration_since(rig.client.shared.clock.now()).as_millis();
    i64::try_from((millis + 999) / 1000).unwrap()
}
