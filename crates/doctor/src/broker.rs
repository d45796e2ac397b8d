//! The broker: what AMQP tells of it, then what its management API does. Judges the topology; the rest is judged by the
//! module of its subject.

use genfleet_core::{
    job::MAX_BODY_BYTES,
    queue::{
        rabbit::{BrokerExaminer, HostConnection, MessageAcceptance, RabbitSettings, TopologyComparison, TopologyMode},
        topology::topology,
    },
};

use super::{
    consumer_timeout,
    finding::{Finding, some},
    former,
    management::{self, Seen},
    memory,
    options::{DoctorOptions, KindNeeds},
    version,
};

/// A message that no worker needs: sixteen times the largest job.
const TOO_LARGE: usize = 16 * MAX_BODY_BYTES + 1;

/// Every check of the broker.
pub(crate) async fn check(options: &DoctorOptions, kinds: &[KindNeeds]) -> Vec<Finding> {
    let settings = options.queue.check().and_then(|()| options.queue.rabbit("genfleet doctor"));
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return vec![Finding::failed("queue.url", "the queue's settings", error, "set them as it says")],
    };
    let mut findings = Vec::new();
    let dialled = BrokerExaminer::connect(&settings).await.unwrap_or_default();
    let (reached, examiner) = reached(dialled);
    findings.extend(reached);
    let seen = match &examiner {
        Some(examiner) => {
            let seen = management::look(options, &settings, &mut findings).await;
            over_amqp(examiner, &settings, seen.as_ref(), &mut findings).await;
            seen
        }
        None => None,
    };
    if let Some(examiner) = examiner {
        let largest = examiner.takes(MAX_BODY_BYTES).await;
        findings.push(largest_message(&largest));
        if largest == MessageAcceptance::Yes {
            findings.push(too_large_message(&examiner.takes(TOO_LARGE).await));
        }
        examiner.close().await;
    }
    match seen {
        Some(seen) => findings.extend(seen.judge(&settings.prefix, options.worker.attempt_timeout)),
        None => findings.push(consumer_timeout::judge(&settings.prefix, &[], &[], options.worker.attempt_timeout)),
    }
    findings.push(memory::check(&options.worker, kinds));
    findings
}

/// What came of dialling each host, and the first that answers.
fn reached(dialled: Vec<HostConnection>) -> (Vec<Finding>, Option<BrokerExaminer>) {
    const CHECK: &str = "broker.connection";
    let any = dialled.iter().any(|each| each.outcome.is_ok());
    let (mut findings, mut first) = (Vec::new(), None);
    for HostConnection { display_name: shown, outcome } in dialled {
        match outcome {
            Ok(examiner) => {
                findings.push(Finding::ok(CHECK, &shown, "answers, and lets this user in"));
                first.get_or_insert(examiner);
            }
            Err(why) => {
                let why = why.strip_prefix(&format!("{shown}: ")).unwrap_or(&why).to_owned();
                let remedy = remedy_of(&why);
                findings.push(if any {
                    Finding::warning(CHECK, &shown, &why, format!("{remedy}; the other hosts are used meanwhile"))
                } else {
                    Finding::failed(CHECK, &shown, &why, remedy)
                });
            }
        }
    }
    (findings, first)
}

fn remedy_of(why: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| why.to_ascii_lowercase().contains(word));
    if says(&["access is refused", "access_refused", "not_allowed"]) {
        "check user, password and virtual host in GENFLEET_QUEUE_URL, and the user's rights (rabbitmqctl list_permissions -p VHOST)"
    } else if says(&["certificate", "tls", "handshake"]) {
        "name the authority of the broker's certificate with --queue-ca-file, and use the host name it is for"
    } else if says(&["lookup", "dns", "resolve", "name or service"]) {
        "check the host name, and this machine's DNS"
    } else {
        "start the broker, or check host, port and what lies between (firewall, TLS port 5671 with amqps://)"
    }
}

async fn over_amqp(
    examiner: &BrokerExaminer,
    settings: &RabbitSettings,
    seen: Option<&Seen>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(examiner.identity().map(version::judge));
    match examiner.compare().await {
        Ok(compared) => findings.extend(topology_findings(&compared, settings, seen)),
        Err(error) => {
            findings.push(Finding::failed(
                "broker.topology",
                "exchanges and queues",
                error,
                "run genfleet doctor again",
            ));
        }
    }
}

/// Over AMQP where our user may compare, else by the management API where that answers.
fn topology_findings(compared: &TopologyComparison, settings: &RabbitSettings, seen: Option<&Seen>) -> Vec<Finding> {
    const CHECK: &str = "broker.topology";
    let looked_at = format!("{} exchanges and queues of prefix {}", compared.looked_for, settings.prefix);
    let mut findings = Vec::new();
    if !compared.missing.is_empty() {
        let found = format!("{} are missing: {}", compared.missing.len(), some(&compared.missing));
        findings.push(match settings.topology {
            TopologyMode::Declare if compared.missing.len() == compared.looked_for => {
                let remedy = "none, where this is the first start: the first worker declares them. Else check --queue-prefix";
                Finding::warning(CHECK, &looked_at, "none is there", remedy)
            }
            TopologyMode::Declare => {
                Finding::warning(CHECK, &looked_at, found, "start a worker with --topology declare: it makes them")
            }
            TopologyMode::Verify | TopologyMode::Skip => {
                let remedy = "start one worker with --topology declare, or POST what genfleet topology prints to the management API, /api/definitions/VHOST";
                Finding::failed(CHECK, &looked_at, found, remedy)
            }
        });
    }
    let refused = compared.incomparable.as_deref().filter(|_| settings.topology == TopologyMode::Declare);
    if let Some(refused) = refused {
        let found = format!("this user may not declare, which workers do: {refused}");
        let remedy =
            "start workers with --topology verify (GENFLEET_TOPOLOGY), or give the user the right to configure";
        findings.push(Finding::failed(CHECK, &looked_at, found, remedy));
    }
    let former = match compared.incomparable {
        Some(_) => seen.and_then(|seen| seen.former(&topology(&settings.prefix))).unwrap_or_default(),
        None => compared.former.clone(),
    };
    findings.extend(former::judge(&former, settings, |name| seen.is_some_and(|seen| seen.has_alternate(name))));
    let by_management = || seen.and_then(|seen| seen.differences(&topology(&settings.prefix)));
    let different = if compared.incomparable.is_some() { by_management() } else { Some(compared.different.clone()) };
    match different {
        Some(different) if different.is_empty() && compared.missing.is_empty() => {
            findings.push(Finding::ok(CHECK, &looked_at, "all there, with the arguments they should have"));
        }
        Some(different) => findings.extend(different.iter().map(|details| {
            let remedy = "drain and delete it once it is empty, then start a worker with --topology declare: an argument cannot be changed";
            Finding::failed(CHECK, &looked_at, details, remedy)
        })),
        None => {
            let why = compared.incomparable.as_deref().unwrap_or_default();
            let found = format!("their arguments could not be compared: {why}");
            findings.push(Finding::skipped(CHECK, &looked_at, found, "give --management-url, or a user that may configure"));
        }
    }
    findings
}

fn largest_message(takes: &MessageAcceptance) -> Finding {
    const CHECK: &str = "broker.message_size";
    let looked_at = "a message of 1 MiB, the largest job, published to nowhere";
    match takes {
        MessageAcceptance::Yes => Finding::ok(CHECK, looked_at, "taken"),
        MessageAcceptance::No(details) => Finding::failed(
            CHECK,
            looked_at,
            details,
            "set max_message_size in rabbitmq.conf to 1048576 or more (its default)",
        ),
        MessageAcceptance::Unknown(why) => {
            let remedy = "look at max_message_size with rabbitmqctl environment: it has to be 1048576 or more";
            Finding::skipped(CHECK, looked_at, why, remedy)
        }
    }
}

/// Whether the broker keeps from the workers what none of them can use.
fn too_large_message(takes: &MessageAcceptance) -> Finding {
    const CHECK: &str = "broker.message_bound";
    let looked_at = "a message of more than 16 MiB, published to nowhere";
    let remedy = "set max_message_size in rabbitmq.conf to 1310720, as deploy/rabbitmq/rabbitmq.conf does";
    match takes {
        MessageAcceptance::No(_) => Finding::ok(CHECK, looked_at, "refused"),
        MessageAcceptance::Yes => {
            let found = "taken: a producer can fill the memory of workers, which refuse a job of more than 1 MiB only \
                         after they have it";
            Finding::warning(CHECK, looked_at, found, remedy)
        }
        MessageAcceptance::Unknown(why) => Finding::skipped(CHECK, looked_at, why, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_broker_that_takes_what_is_no_job_is_warned_of() {
        let level = |takes| too_large_message(&takes).level;
        assert_eq!(level(MessageAcceptance::No("too large".to_owned())), Level::Ok);
        assert_eq!(level(MessageAcceptance::Yes), Level::Warning);
        assert_eq!(level(MessageAcceptance::Unknown("an alarm".to_owned())), Level::Skipped);
    }

    fn settings(mode: TopologyMode) -> RabbitSettings {
        RabbitSettings {
            urls: Vec::new(),
            prefix: "genfleet".to_owned(),
            topology: mode,
            ca_file: None,
            client_identity: None,
            name: String::new(),
            watchdog: std::time::Duration::from_secs(60),
        }
    }

    fn levels(compared: &TopologyComparison, mode: TopologyMode) -> Vec<Level> {
        topology_findings(compared, &settings(mode), None).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn what_is_missing_or_cannot_be_compared_is_judged_by_what_the_workers_do_about_it() {
        let whole = TopologyComparison { looked_for: 3, ..TopologyComparison::default() };
        assert_eq!(levels(&whole, TopologyMode::Verify), [Level::Ok]);
        let part = TopologyComparison { missing: vec!["queue a".to_owned()], ..whole.clone() };
        assert_eq!(levels(&part, TopologyMode::Declare), [Level::Warning]);
        assert_eq!(levels(&part, TopologyMode::Verify), [Level::Failed]);
        let none = TopologyComparison { missing: vec!["a".into(), "b".into(), "c".into()], ..whole.clone() };
        assert_eq!(levels(&none, TopologyMode::Declare), [Level::Warning]);
        let different = TopologyComparison { different: vec!["queue a: inequivalent arg".to_owned()], ..whole.clone() };
        assert_eq!(levels(&different, TopologyMode::Declare), [Level::Failed]);
        let unseen = TopologyComparison { incomparable: Some("access refused".to_owned()), ..whole };
        assert_eq!(levels(&unseen, TopologyMode::Verify), [Level::Skipped]);
        assert_eq!(levels(&unseen, TopologyMode::Declare), [Level::Failed, Level::Skipped]);
    }

    #[test]
    fn what_to_do_fits_what_went_wrong() {
        for (why, remedy) in [
            ("amqp://h: access is refused; check user: ACCESS_REFUSED", "rights"),
            ("amqps://h: invalid peer certificate: UnknownIssuer", "--queue-ca-file"),
            ("amqp://h: failed to lookup address information", "DNS"),
            ("amqp://h: Connection refused (os error 111)", "start the broker"),
        ] {
            assert!(remedy_of(why).contains(remedy), "{why}");
        }
    }
}
