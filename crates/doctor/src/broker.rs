//! The broker: first what AMQP shows, then what its management API shows. This module judges connections, topology and
//! message sizes; everything else is judged by the module for its subject.

use genfleet_core::{
    job::MAX_BODY_BYTES,
    queue::rabbit::{
        BrokerExaminer, HostConnection, MessageAcceptance, RabbitSettings, TopologyComparison, TopologyMode,
    },
};

use super::{
    consumer_timeout,
    finding::{Check, Finding, some},
    former,
    management::{self, BrokerReport},
    memory,
    options::{DoctorOptions, KindNeeds},
    version,
};

/// A size in bytes that no worker needs: sixteen times that of the largest job.
const TOO_LARGE: usize = 16 * MAX_BODY_BYTES + 1;

/// Runs all checks of the broker.
pub(crate) async fn check(options: &DoctorOptions, kinds: &[KindNeeds]) -> Vec<Finding> {
    let worked: Vec<_> = kinds.iter().map(|needs| needs.kind).collect();
    let settings = options.queue.check().and_then(|()| options.queue.rabbit("genfleet doctor", &worked));
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            return vec![
                Check::new("queue.url", "the queue's settings").failed(error, "correct the setting that it names"),
            ];
        }
    };
    let attempt_timeout = options.worker.attempt_timeout;
    let connections = BrokerExaminer::connect(&settings).await.unwrap_or_default();
    let (mut findings, examiner) = judge_connections(connections);
    let mut report = None;
    if let Some(examiner) = examiner {
        report = management::read(options, &settings, &mut findings).await;
        findings.extend(examiner.identity().map(version::judge));
        match examiner.compare().await {
            Ok(compared) => findings.extend(judge_topology(&compared, &settings, report.as_ref())),
            Err(error) => {
                let check = Check::new("broker.topology", "exchanges and queues");
                findings.push(check.failed(error, "run genfleet doctor again"));
            }
        }
        let wanted = !options.worker.reply_to_allow.is_empty();
        findings.push(judge_replies(&examiner.test_reply().await, wanted));
        let largest = examiner.test_message(MAX_BODY_BYTES).await;
        findings.push(judge_largest_message(&largest));
        if largest == MessageAcceptance::Yes {
            findings.push(judge_too_large_message(&examiner.test_message(TOO_LARGE).await));
        }
        examiner.close().await;
    }
    match report {
        Some(report) => findings.extend(report.judge(&settings.prefix, attempt_timeout)),
        None => findings.push(consumer_timeout::judge(&settings.prefix, &[], &[], attempt_timeout)),
    }
    findings.push(memory::check(&options.worker, kinds));
    findings
}

/// Judges the connection to each host, and returns the first one that is open.
fn judge_connections(connections: Vec<HostConnection>) -> (Vec<Finding>, Option<BrokerExaminer>) {
    let any = connections.iter().any(|each| each.outcome.is_ok());
    let (mut findings, mut first) = (Vec::new(), None);
    for HostConnection { display_name, outcome } in connections {
        let check = Check::new("broker.connection", &display_name);
        findings.push(match outcome {
            Ok(examiner) => {
                first.get_or_insert(examiner);
                check.ok("answers, and accepts this user")
            }
            Err(reason) => {
                let reason = reason.strip_prefix(&format!("{display_name}: ")).unwrap_or(&reason);
                let remedy = remedy_of(reason);
                if any {
                    check.warning(reason, format!("{remedy}; the other hosts are used meanwhile"))
                } else {
                    check.failed(reason, remedy)
                }
            }
        });
    }
    (findings, first)
}

fn remedy_of(reason: &str) -> &'static str {
    let contains = |words: &[&str]| words.iter().any(|word| reason.to_ascii_lowercase().contains(word));
    if contains(&["access is refused", "access_refused", "not_allowed"]) {
        "check user, password and virtual host in GENFLEET_QUEUE_URL, and the user's rights (rabbitmqctl list_permissions -p VHOST)"
    } else if contains(&["certificate", "tls", "handshake"]) {
        "set the authority of the broker's certificate with --queue-ca-file, and use the host name of the certificate"
    } else if contains(&["lookup", "dns", "resolve", "name or service"]) {
        "check the host name, and this machine's DNS"
    } else {
        "start the broker, or check host, port and firewall (with amqps:// the TLS port, 5671)"
    }
}

/// Judges the comparison over AMQP, or, if this user may not compare, that of the management API.
fn judge_topology(
    compared: &TopologyComparison,
    settings: &RabbitSettings,
    report: Option<&BrokerReport>,
) -> Vec<Finding> {
    let looked_at = format!("{} exchanges and queues of prefix {}", compared.looked_for, settings.prefix);
    let check = Check::new("broker.topology", looked_at);
    let mut findings = Vec::new();
    if !compared.missing.is_empty() {
        let found = format!("{} are missing: {}", compared.missing.len(), some(&compared.missing));
        findings.push(match settings.topology {
            TopologyMode::Declare if compared.missing.len() == compared.looked_for => {
                check.warning("none is there", "nothing before the first start: the first worker declares them. Else check --queue-prefix")
            }
            TopologyMode::Declare => {
                check.warning(found, "start a worker with --topology declare: it declares them")
            }
            TopologyMode::Verify | TopologyMode::Skip => {
                check.failed(found, "start one worker with --topology declare, or POST the output of genfleet topology to the management API, /api/definitions/VHOST")
            }
        });
    }
    if let Some(refused) = compared.incomparable.as_deref().filter(|_| settings.topology == TopologyMode::Declare) {
        findings.push(check.failed(
            format!("this user may not declare queues, as workers do with this setting: {refused}"),
            "start workers with --topology verify (GENFLEET_TOPOLOGY), or give the user the configure permission",
        ));
    }
    let wanted = settings.needed_topology();
    let (former, different) = if compared.incomparable.is_some() {
        let former = report.and_then(|report| report.former(&wanted)).unwrap_or_default();
        (former, report.and_then(|report| report.differences(&wanted)))
    } else {
        (compared.former.clone(), Some(compared.different.clone()))
    };
    findings.extend(former::judge(&former, settings, |name| report.is_some_and(|report| report.has_alternate(name))));
    match different {
        Some(different) if different.is_empty() && compared.missing.is_empty() => {
            findings.push(check.ok("all there, with the correct arguments"));
        }
        Some(different) => findings.extend(different.iter().map(|difference| {
            check.failed(difference, "drain it, delete it when it is empty, then start a worker with --topology declare: an argument cannot be changed")
        })),
        None => {
            let reason = compared.incomparable.as_deref().unwrap_or_default();
            let whole = if compared.missing.is_empty() { "all there; " } else { "" };
            let found = format!("{whole}their arguments are not compared, because this user may not declare them ({reason})");
            findings.push(check.skipped(found, "set --management-url, or use a user with the configure permission"));
        }
    }
    findings
}

/// Judges the right to send replies. They are certainly `wanted` where `--reply-to-allow` names queues for them; any
/// producer can ask for one.
fn judge_replies(acceptance: &MessageAcceptance, wanted: bool) -> Finding {
    const GRANT: &str = "give the user write permission on the default exchange, as deploy/rabbitmq/replies.json does";
    let check = Check::new("broker.replies", "a message to the default exchange, to which replies go");
    match acceptance {
        MessageAcceptance::Yes => check.ok("accepted: workers with this user send replies"),
        MessageAcceptance::No(reason) if wanted => {
            check.failed(format!("no reply is sent, although --reply-to-allow is set: {reason}"), GRANT)
        }
        MessageAcceptance::No(_) => check.skipped(
            "workers with this user send no replies, and the settings do not say whether producers want any",
            format!("nothing if no producer sets reply_to; otherwise {GRANT}"),
        ),
        MessageAcceptance::Blocked => {
            check.skipped("the broker takes no publications (an alarm)", "run genfleet doctor again after the alarm")
        }
        MessageAcceptance::Unknown(reason) => check.skipped(reason, "run genfleet doctor again"),
    }
}

fn judge_largest_message(acceptance: &MessageAcceptance) -> Finding {
    let check =
        Check::new("broker.message_size", "a message of 1 MiB, the largest job, published without a destination");
    match acceptance {
        MessageAcceptance::Yes => check.ok("accepted"),
        MessageAcceptance::No(reason) => {
            check.failed(reason, "set max_message_size in rabbitmq.conf to 1048576 or more (its default)")
        }
        MessageAcceptance::Blocked => check.failed(
            "not accepted: the broker takes no publications (an alarm for memory or disk), so that no job can be completed",
            "rabbitmq-diagnostics alarms shows which: give the broker memory or disk",
        ),
        MessageAcceptance::Unknown(reason) => {
            check.skipped(reason, "read max_message_size with rabbitmqctl environment: it has to be 1048576 or more")
        }
    }
}

/// Judges whether the broker refuses messages that are too large for any worker.
fn judge_too_large_message(acceptance: &MessageAcceptance) -> Finding {
    let check = Check::new("broker.message_bound", "a message of more than 16 MiB, published without a destination");
    let remedy = "set max_message_size in rabbitmq.conf to 1310720, as deploy/rabbitmq/rabbitmq.conf does";
    match acceptance {
        MessageAcceptance::No(_) => check.ok("refused"),
        MessageAcceptance::Yes => check.warning(
            "taken: a producer can fill the memory of workers, which refuse a job of more than 1 MiB only after they \
             have received it",
            remedy,
        ),
        MessageAcceptance::Blocked => check.skipped("the broker takes no publications (an alarm)", remedy),
        MessageAcceptance::Unknown(reason) => check.skipped(reason, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_broker_that_accepts_too_large_messages_is_reported() {
        let level = |acceptance| judge_too_large_message(&acceptance).level;
        assert_eq!(level(MessageAcceptance::No("too large".to_owned())), Level::Ok);
        assert_eq!(level(MessageAcceptance::Yes), Level::Warning);
        assert_eq!(level(MessageAcceptance::Unknown("no answer".to_owned())), Level::Skipped);
        assert_eq!(judge_largest_message(&MessageAcceptance::Blocked).level, Level::Failed);
    }

    #[test]
    fn a_missing_right_to_reply_fails_where_replies_are_wanted() {
        let level = |acceptance, wanted| judge_replies(&acceptance, wanted).level;
        let refused = || MessageAcceptance::No("ACCESS_REFUSED".to_owned());
        assert_eq!((level(refused(), true), level(refused(), false)), (Level::Failed, Level::Skipped));
        assert_eq!(level(MessageAcceptance::Yes, true), Level::Ok);
        assert_eq!(level(MessageAcceptance::Blocked, true), Level::Skipped);
    }

    fn settings(mode: TopologyMode) -> RabbitSettings {
        RabbitSettings {
            urls: Vec::new(),
            prefix: "genfleet".to_owned(),
            topology: mode,
            kinds: Vec::new(),
            ca_file: None,
            client_identity: None,
            name: String::new(),
            watchdog: std::time::Duration::from_secs(60),
        }
    }

    fn levels(compared: &TopologyComparison, mode: TopologyMode) -> Vec<Level> {
        judge_topology(compared, &settings(mode), None).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_topology_is_judged_by_the_mode_of_the_workers() {
        let whole = TopologyComparison { looked_for: 3, ..TopologyComparison::default() };
        assert_eq!(levels(&whole, TopologyMode::Verify), [Level::Ok]);
        let part = TopologyComparison { missing: vec!["queue a".to_owned()], ..whole.clone() };
        assert_eq!(levels(&part, TopologyMode::Declare), [Level::Warning]);
        assert_eq!(levels(&part, TopologyMode::Verify), [Level::Failed]);
        let none = TopologyComparison { missing: vec!["a".into(), "b".into(), "c".into()], ..whole.clone() };
        assert_eq!(levels(&none, TopologyMode::Declare), [Level::Warning]);
        let different = TopologyComparison { different: vec!["queue a: inequivalent arg".to_owned()], ..whole.clone() };
        assert_eq!(levels(&different, TopologyMode::Declare), [Level::Failed]);
        let incomparable = TopologyComparison { incomparable: Some("access refused".to_owned()), ..whole };
        assert_eq!(levels(&incomparable, TopologyMode::Verify), [Level::Skipped]);
        assert_eq!(levels(&incomparable, TopologyMode::Declare), [Level::Failed, Level::Skipped]);
    }

    #[test]
    fn each_failure_has_its_remedy() {
        for (reason, remedy) in [
            ("amqp://h: access is refused; check user: ACCESS_REFUSED", "rights"),
            ("amqps://h: invalid peer certificate: UnknownIssuer", "--queue-ca-file"),
            ("amqp://h: failed to lookup address information", "DNS"),
            ("amqp://h: Connection refused (os error 111)", "start the broker"),
        ] {
            assert!(remedy_of(reason).contains(remedy), "{reason}");
        }
    }
}
