use super::*;
use proptest::prelude::*;

/// Compares a pattern with a routing key like a topic exchange.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skipped| matches(rest, &key[skipped..])),
        Some((&word, rest)) => {
            key.split_first().is_some_and(|(first, keys)| (word == "*" || word == *first) && matches(rest, keys))
        }
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Every queue that a message reaches from `exchange`, following delay queues to where they dead-letter, each with
/// the seconds it took.
fn arrivals(topology: &Topology, exchange: &str, key: &str) -> Vec<(String, u64)> {
    let Exchange { routing, arguments, .. } = topology.exchanges.iter().find(|each| each.name == exchange).unwrap();
    let bound = topology.bindings.iter().filter(|binding| binding.source == exchange).filter(|binding| match routing {
        Routing::Direct => binding.routing_key == key,
        Routing::Fanout => true,
        Routing::Topic => matches(&words(&binding.routing_key), &words(key)),
    });
    let mut bound = bound.peekable();
    match arguments.get(ALTERNATE_EXCHANGE) {
        Some(Argument::Text(alternate)) if bound.peek().is_none() => arrivals(topology, alternate, key),
        _ => bound.flat_map(|binding| onward(topology, binding, key)).collect(),
    }
}

fn onward(topology: &Topology, binding: &Binding, key: &str) -> Vec<(String, u64)> {
    if binding.destination_type == Target::Exchange {
        return arrivals(topology, &binding.destination, key);
    }
    let queue = topology.queues.iter().find(|queue| queue.name == binding.destination).unwrap();
    let (Some(Argument::Number(ttl)), Some(Argument::Text(next))) =
        (queue.arguments.get("x-message-ttl"), queue.arguments.get("x-dead-letter-exchange"))
    else {
        return vec![(queue.name.clone(), 0)];
    };
    let waited = u64::try_from(*ttl).unwrap() / 1000;
    arrivals(topology, next, key).into_iter().map(|(name, later)| (name, waited + later)).collect()
}

fn lane(kind: Kind, lane: Lane, after: Duration) -> Destination {
    Destination::Lane { kind, lane, after }
}

fn arrival(to: &Destination) -> Vec<(String, u64)> {
    let (exchange, key) = route("g", to);
    arrivals(&topology("g"), &exchange, &key)
}

#[test]
fn a_process_uses_the_common_objects_and_the_queues_of_its_kinds() {
    let (whole, common) = (topology("g"), topology_of("g", &[]));
    let of_purger = topology_of("g", &[Kind::CdnPurge]);
    assert_eq!(common.exchanges, whole.exchanges);
    let other = |queue: &&Queue| !common.queues.contains(queue);
    let names = |queues: Vec<&Queue>| queues.into_iter().map(|queue| queue.name.clone()).collect::<Vec<_>>();
    let own = names(of_purger.queues.iter().filter(other).collect());
    assert_eq!(own, ["g.jobs.cdn.purge", "g.resume.cdn.purge", "g.suspect.cdn.purge", "g.dead.cdn.purge"]);
    let of_others = names(whole.queues.iter().filter(other).collect());
    let kind = |name: &str| Kind::of_producers().any(|kind| name.ends_with(&format!(".{kind}")));
    assert!(of_others.len() == 4 * Kind::of_producers().count() && of_others.iter().all(|name| kind(name)));
}

#[test]
fn every_lane_of_every_kind_is_reached_at_once_and_alone() {
    for kind in Kind::ALL {
        for each in [Lane::Jobs, Lane::Resume, Lane::Suspect] {
            let expected = vec![(format!("g.{each}.{kind}"), 0)];
            assert_eq!(arrival(&lane(kind, each, Duration::ZERO)), expected, "{kind} {each}");
        }
    }
}

#[test]
fn a_power_of_two_and_its_neighbours_are_delayed_exactly() {
    let near = (0..16).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    for delay in near.filter(|delay| (1..=65_535).contains(delay)) {
        let to = lane(Kind::FileScan, Lane::Resume, Duration::from_secs(delay));
        assert_eq!(arrival(&to), vec![("g.resume.file.scan".to_owned(), delay)], "{delay}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_delay_is_rounded_up_to_seconds_and_kept(millis in 1_u64..=65_535_000, lane_index in 0_usize..3, kind_index in 0_usize..6) {
        let each = [Lane::Jobs, Lane::Resume, Lane::Suspect][lane_index];
        let kind = Kind::ALL[kind_index];
        let to = lane(kind, each, Duration::from_millis(millis));
        prop_assert_eq!(arrival(&to), vec![(format!("g.{each}.{kind}"), millis.div_ceil(1000))]);
    }
}

#[test]
fn a_delay_longer_than_all_delay_queues_is_continued_at_its_end() {
    let to = lane(Kind::CdnPurge, Lane::Jobs, Duration::from_secs(200_000));
    assert_eq!(arrival(&to), vec![("g.jobs.cdn.purge".to_owned(), 65_535)]);
}

#[test]
fn five_seconds_are_written_highest_bit_first() {
    let (exchange, key) = route("g", &lane(Kind::CdnPurge, Lane::Resume, Duration::from_secs(5)));
    assert_eq!((exchange.as_str(), key.as_str()), ("g.delay.02", "0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.cdn.purge.resume"));
}

#[test]
fn the_door_is_open_for_all_kinds_but_webhooks() {
    for kind in Kind::ALL {
        let own = format!("g.jobs.{kind}");
        let queues =
            if kind == Kind::WebhookDeliver { vec!["g.unrouted", "g.jobs.unknown"] } else { vec![own.as_str()] };
        let arrived = arrival(&Destination::Jobs(kind));
        assert_eq!(arrived, queues.into_iter().map(|queue| (queue.to_owned(), 0)).collect::<Vec<_>>(), "{kind}");
    }
}

#[test]
fn dead_letters_of_the_broker_keep_their_key_and_find_the_queue_of_their_kind() {
    let topology = topology("g");
    for key in ["cdn.purge", "cdn.purge.resume", "0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.cdn.purge.suspect"] {
        assert_eq!(arrivals(&topology, "g.dead", key), vec![("g.dead.cdn.purge".to_owned(), 0)], "{key}");
    }
}

#[test]
fn an_event_of_an_unknown_kind_is_kept_in_the_window() {
    let to = Destination::Event { kind: "unknown".to_owned(), outcome: "failed" };
    assert_eq!(arrival(&to), vec![("g.events".to_owned(), 0)]);
}

#[test]
fn a_reply_goes_straight_to_its_queue() {
    assert_eq!(route("g", &Destination::Reply { queue: "answers".to_owned() }), (String::new(), "answers".to_owned()));
}

/// At-least-once dead-lettering keeps what no exchange takes, and soon nothing else leaves that queue.
#[test]
fn a_message_with_any_key_leaves_every_delay_queue() {
    let topology = topology("g");
    for bit in 0..BITS {
        for key in
            ["", "g.delay.03", "cdn.purge", "0.0.2.cdn.purge", "1", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.no.such.kind"]
        {
            let arrived = arrivals(&topology, &delay_exchange("g", bit), key);
            assert!(
                !arrived.is_empty()
                    && arrived.iter().all(|(queue, _)| ["g.unrouted", "g.jobs.unknown"].contains(&queue.as_str())),
                "{bit} {key}: {arrived:?}"
            );
        }
    }
}

#[test]
fn what_an_earlier_version_declared_otherwise_is_known() {
    let topology = topology("g");
    let former: Vec<_> = topology.exchanges.iter().filter_map(Exchange::as_before).collect();
    assert_eq!(former.len(), 1 + 16);
    let unrouted = Arguments::from([(ALTERNATE_EXCHANGE, Argument::Text("g.unrouted".to_owned()))]);
    for exchange in former {
        let expected = match exchange.name.as_str() {
            "g.jobs" => (Routing::Direct, unrouted.clone()),
            _ => (Routing::Topic, Arguments::new()),
        };
        assert_eq!((exchange.routing, exchange.arguments, exchange.former), (expected.0, expected.1, None));
    }
}

#[test]
fn headers_count_only_where_producers_cannot_write() {
    for ours in ["g.work", "g.delay.00", "g.delay.15"] {
        assert!(is_ours("g", ours), "{ours}");
    }
    for theirs in
        ["", "g.jobs", "g.delay", "g.delay.16", "g.delay.0", "g.delay.00x", "h.work", "gg.work", "g.dead", "work"]
    {
        assert!(!is_ours("g", theirs), "{theirs}");
    }
}

#[test]
fn the_arguments_are_those_of_the_contract() {
    let topology = topology("genfleet");
    let arguments = |name: &str| {
        let queue = topology.queues.iter().find(|queue| queue.name == name).unwrap();
        serde_json::to_string(&queue.arguments).unwrap()
    };
    let work = r#"{"x-dead-letter-exchange":"genfleet.dead","x-dead-letter-strategy":"at-least-once","x-delivery-limit":20,"x-overflow":"reject-publish","x-queue-type":"quorum"}"#;
    let arguments_of_dead = r#"{"x-delivery-limit":1000000,"x-queue-type":"quorum"}"#;
    assert_eq!(arguments("genfleet.jobs.cdn.purge"), work);
    assert_eq!(arguments("genfleet.resume.webhook.deliver"), work);
    assert_eq!(arguments("genfleet.suspect.file.scan"), work);
    assert_eq!(arguments("genfleet.dead.vni.provision"), arguments_of_dead);
    assert_eq!(arguments("genfleet.unrouted"), arguments_of_dead);
    let window = r#"{"x-delivery-limit":1000000,"x-max-length":1000000,"x-max-length-bytes":1073741824,"x-overflow":"drop-head","x-queue-type":"quorum"}"#;
    assert_eq!([arguments("genfleet.events"), arguments("genfleet.jobs.unknown")], [window, window]);
    assert_eq!(
        arguments("genfleet.delay.15"),
        r#"{"x-dead-letter-exchange":"genfleet.delay.14","x-dead-letter-strategy":"at-least-once","x-message-ttl":32768000,"x-overflow":"reject-publish","x-queue-type":"quorum"}"#
    );
    assert!(arguments("genfleet.delay.00").contains(r#""x-dead-letter-exchange":"genfleet.work""#));
}

#[test]
fn everything_is_declared_once() {
    let topology = topology("g");
    // jobs, work, dead, events, unrouted, control; four queues a kind, events, unrouted, unknown; sixteen steps of
    // both.
    assert_eq!((topology.exchanges.len(), topology.queues.len()), (6 + 16, Kind::ALL.len() * 4 + 3 + 16));
    let mut names: Vec<_> = topology.queues.iter().map(|queue| &queue.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), topology.queues.len());
}

#[test]
fn a_prefix_that_names_no_queue_is_refused() {
    for good in ["genfleet", "a", "amqp", "team-1.Stage_2", &"x".repeat(64)] {
        check_prefix(good).unwrap();
    }
    for bad in ["", "amq", "amq.mine", "two words", "a:b", "\u{e9}", "a\n", &"x".repeat(65)] {
        let told = check_prefix(bad).unwrap_err();
        assert!(matches!(told, QueueError::Configuration(_)), "{bad:?}: {told}");
    }
}
