//! The same for people: a table of the kinds, a line for each client, a table of the processes, what is shut, and which
//! receivers of webhooks take nothing.

use std::time::Duration;

use genfleet_core::membership::{HoldStatus, MemberStatus, ReceiverStatus};

use super::{
    seen::{OfKind, Seen, limit, sent, still},
    table::{Cell, Side, Tone, table},
};
use crate::terminal::{Paint, count, cut, line};

/// Of a reason, in characters.
const WHY_WIDTH: usize = 300;

/// All of it.
pub(super) fn text(seen: &Seen, paint: Paint) -> String {
    let mut text = kinds(seen, paint);
    for details in others(seen) {
        text += &details;
        text.push('\n');
    }
    text.push('\n');
    text += &processes(seen, paint);
    let problems = seen.problems();
    if !problems.is_empty() {
        text.push('\n');
    }
    for problem in problems {
        text.extend([paint.red("wrong:"), format!(" {}\n", cut(&problem, WHY_WIDTH))]);
    }
    text
}

fn kinds(seen: &Seen, paint: Paint) -> String {
    const HEAD: [(&str, Side); 10] = [
        ("KIND", Side::Left),
        ("WAITING", Side::Right),
        ("RUNNING", Side::Right),
        ("HELD", Side::Right),
        ("BEGUN", Side::Right),
        ("SUSPECT", Side::Right),
        ("DEAD", Side::Right),
        ("OLDEST", Side::Right),
        ("ENDED/MIN", Side::Right),
        ("FAILED/MIN", Side::Right),
    ];
    let rows: Vec<Vec<Cell>> =
        seen.kinds.iter().map(|(kind, of_kind)| row(kind.as_str(), of_kind, seen.processes.is_some())).collect();
    table(&HEAD, &rows, paint)
}

/// What only processes can tell is a dash where they could not be asked.
fn row(kind: &str, of_kind: &OfKind, is_heard: bool) -> Vec<Cell> {
    let (worked, oldest) =
        (of_kind.processes > 0, of_kind.oldest.map(|seconds| span(Duration::from_secs_f64(seconds))));
    let rate = |rate| if worked { figure(Some(rate), Tone::Plain) } else { none() };
    vec![
        (kind.to_owned(), Tone::Plain),
        figure(of_kind.waiting, if worked || !is_heard { Tone::Plain } else { Tone::Doubtful }),
        figure(is_heard.then_some(of_kind.running), Tone::Plain),
        figure(is_heard.then_some(of_kind.held), Tone::Plain),
        figure(of_kind.begun, Tone::Plain),
        figure(of_kind.suspect, Tone::Doubtful),
        figure(of_kind.dead, Tone::Bad),
        oldest.map_or_else(none, |oldest| (oldest, Tone::Plain)),
        rate(of_kind.ended),
        if worked { figure(Some(of_kind.failed), Tone::Bad) } else { none() },
    ]
}

/// A zero is nothing to see.
fn figure(count: Option<u64>, tone: Tone) -> Cell {
    match count {
        None => none(),
        Some(0) => ("0".to_owned(), Tone::Dim),
        Some(count) => (count.to_string(), tone),
    }
}

fn none() -> Cell {
    ("-".to_owned(), Tone::Dim)
}

fn others(seen: &Seen) -> Vec<String> {
    let details =
        |number: Option<u64>, what: &str| number.filter(|number| *number > 0).map(|number| count(number, what));
    [
        details(seen.delayed, "delayed job"),
        details(Some(seen.unknown_dead), "dead letter of no known kind"),
        details(seen.unrouted, "unrouted message"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn processes(seen: &Seen, paint: Paint) -> String {
    let Some(alive) = &seen.processes else {
        return paint.yellow(&format!("processes cannot be asked: {}", cut(&seen.unheard, WHY_WIDTH))) + "\n";
    };
    if alive.is_empty() {
        return paint.yellow("no process is alive") + "\n";
    }
    let verb = if alive.len() == 1 { "is" } else { "are" };
    let mut text = format!("{} {verb} alive", count(alive.len(), "process"));
    match alive.iter().filter(|process| process.verified == Some(false)).count() {
        0 => {}
        unverified if unverified == alive.len() => text += &paint.dim(" (unverified)"),
        unverified => text += &paint.yellow(&format!(" ({unverified} of them unverified)")),
    }
    text.push('\n');
    for (client, processes) in seen.clients() {
        let (client, sent, limit) = (cut(client, 8), sent(&processes), limit(&processes));
        text.extend([format!("client {client}: {sent} of {limit} requests in the last minute")]);
        if let Some(shut) = processes.iter().filter_map(|process| process.client_shut()).max() {
            text += &paint.red(&format!("; its limit is closed for another {}", span(shut)));
        }
        text.push('\n');
    }
    text + "\n"
        + &process_table(alive, paint)
        + &all_shut(alive, paint)
        + &all_failing(alive, paint)
        + &all_notes(alive)
}

/// A line for each note, of whichever process.
fn all_notes(alive: &[MemberStatus]) -> String {
    let note = |process: &MemberStatus, note: &String| {
        format!("note: at {}: {}\n", line(&process.process), cut(note, WHY_WIDTH))
    };
    let lines: String =
        alive.iter().flat_map(|process| process.notes.iter().map(move |each| note(process, each))).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn process_table(alive: &[MemberStatus], paint: Paint) -> String {
    const HEAD: [(&str, Side); 8] = [
        ("PROCESS", Side::Left),
        ("WORKER", Side::Left),
        ("VERSION", Side::Left),
        ("UP", Side::Right),
        ("RUNNING", Side::Right),
        ("SENT/MIN", Side::Right),
        ("BUDGET", Side::Right),
        ("GATE", Side::Left),
    ];
    let row = |process: &MemberStatus| {
        let plain = |text: String| (text, Tone::Plain);
        let (left, may) = (process.budget_left, process.token_limit.min(process.share));
        vec![
            plain(line(&process.process)),
            plain(line(&process.worker)),
            plain(line(&process.version)),
            plain(span(Duration::from_secs(process.up_seconds))),
            figure(Some(process.running().into()), Tone::Plain),
            figure(Some(process.requests_last_minute.into()), Tone::Plain),
            plain(format!("{left} of {may}")),
            gate(process),
        ]
    };
    table(&HEAD, &alive.iter().map(row).collect::<Vec<_>>(), paint)
}

fn gate(process: &MemberStatus) -> Cell {
    if process.shut.is_empty() {
        let standing_by = process.kinds.iter().filter(|kind| kind.standing_by).map(|kind| line(&kind.kind));
        let standing_by: Vec<String> = standing_by.collect();
        if !standing_by.is_empty() {
            return (format!("open, stands by for {}", standing_by.join(", ")), Tone::Plain);
        }
        return ("open".to_owned(), Tone::Plain);
    }
    let reasons: Vec<String> = process.shut.iter().map(reason).collect();
    (format!("shut: {}", reasons.join(", ")), Tone::Bad)
}

fn reason(shut: &HoldStatus) -> String {
    match &shut.kind {
        Some(kind) => format!("{} for {}", line(&shut.reason), line(kind)),
        None => line(&shut.reason),
    }
}

/// A line for each reason, of whichever process.
fn all_shut(alive: &[MemberStatus], paint: Paint) -> String {
    let shut = |process: &MemberStatus, shut: &HoldStatus| {
        let another = still(shut).map(|still| until(shut, still)).unwrap_or_default();
        let (reason, name, why) = (paint.red(&reason(shut)), line(&process.process), cut(&shut.why, WHY_WIDTH));
        format!("{reason} {name}: {why}{another}\n")
    };
    let lines: String =
        alive.iter().flat_map(|process| process.shut.iter().map(move |each| shut(process, each))).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Says what happens when the time is over.
fn until(shut: &HoldStatus, still: Duration) -> String {
    match shut.reason.as_str() {
        "throttled" | "service_limit" => format!(", for another {}", span(still)),
        "forbidden" | "api_unavailable" if still.is_zero() => ", tried again with the next job".to_owned(),
        _ => format!(", tried again in {}", span(still)),
    }
}

/// A line for each receiver that takes nothing, of whichever process.
fn all_failing(alive: &[MemberStatus], paint: Paint) -> String {
    let failing = |process: &MemberStatus, news: &ReceiverStatus| {
        let (name, why) = (line(&process.process), cut(&news.why, WHY_WIDTH));
        let (in_a_row, since) = (news.in_a_row, span(Duration::from_millis(news.for_ms)));
        format!("{} {name}: {why}; {in_a_row} in a row, for {since}\n", paint.red("webhooks"))
    };
    let lines: String =
        alive.iter().flat_map(|process| process.receivers.iter().map(move |each| failing(process, each))).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// As people say it: the two largest units at most.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use genfleet_core::job::Kind;

    use super::*;

    fn shown(seen: &Seen) -> String {
        text(seen, Paint::none())
    }

    fn seen(processes: Option<Vec<MemberStatus>>) -> Seen {
        let purge = OfKind {
            waiting: Some(12),
            begun: Some(0),
            suspect: Some(1),
            dead: Some(3),
            running: 4,
            held: 64,
            oldest: Some(75.5),
            ended: 640,
            failed: 2,
            processes: 1,
            working: 1,
        };
        let kinds = BTreeMap::from([(Kind::CdnPurge, purge), (Kind::FileScan, OfKind::default())]);
        Seen { queue: "rabbitmq", kinds, unrouted: Some(1), delayed: Some(0), processes, ..Seen::default() }
    }

    #[test]
    fn columns_stand_below_each_other_and_what_nobody_knows_is_a_dash() {
        let shown = shown(&seen(Some(vec![])));
        let expected = "\
KIND       WAITING  RUNNING  HELD  BEGUN  SUSPECT  DEAD  OLDEST  ENDED/MIN  FAILED/MIN
cdn.purge       12        4    64      0        1     3     75s        640           2
file.scan        -        0     0      -        -     -       -          -           -
1 unrouted message

no process is alive

wrong: the queues of file.scan are not there
wrong: 1 message matched no queue
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn where_nobody_can_be_asked_nobody_is_said_to_be_dead() {
        let unheard = Seen { unheard: "an alarm".to_owned(), ..seen(None) };
        let mut kinds = unheard.kinds.clone();
        for of_kind in kinds.values_mut() {
            (of_kind.running, of_kind.held, of_kind.processes) = (0, 0, 0);
        }
        let shown = shown(&Seen { kinds, ..unheard });
        assert!(shown.contains("cdn.purge       12        -     -      0 "), "{shown}");
        assert!(
            shown.contains("\nprocesses cannot be asked: an alarm\n") && !shown.contains("no process is alive"),
            "{shown}"
        );
    }

    #[test]
    fn a_gate_that_is_shut_is_told_with_its_reason_and_its_time() {
        let shut = HoldStatus {
            reason: "throttled".to_owned(),
            why: "the API said later".to_owned(),
            kind: None,
            for_ms: Some(12_400),
        };
        let process = MemberStatus {
            process: "host-1".to_owned(),
            worker: "purger".to_owned(),
            version: "0.1.0".to_owned(),
            client: "0123456789abcdef".to_owned(),
            up_seconds: 8000,
            requests_last_minute: 300,
            token_limit: 300,
            client_limit: 3000,
            share: 1500,
            client_shut_ms: Some(12_400),
            shut: vec![shut],
            ..MemberStatus::default()
        };
        let shown = shown(&seen(Some(vec![process])));
        for details in [
            "1 process is alive\n",
            "client 0123456…: 300 of 3000 requests in the last minute; its limit is closed for another 12s\n",
            "host-1   purger  0.1.0    2h13m        0       300  0 of 300  shut: throttled\n",
            "throttled host-1: the API said later, for another 12s\n",
        ] {
            assert!(shown.contains(details), "{details:?} is not in\n{shown}");
        }
    }

    #[test]
    fn what_is_not_opened_but_tried_again_says_so() {
        let of = |reason: &str| HoldStatus { reason: reason.to_owned(), ..HoldStatus::default() };
        let told = |reason: &str, seconds| until(&of(reason), Duration::from_secs(seconds));
        assert_eq!(told("throttled", 5), ", for another 5.0s");
        assert_eq!(told("service_limit", 5), ", for another 5.0s");
        assert_eq!(told("credentials", 5), ", tried again in 5.0s");
        assert_eq!(told("forbidden", 5), ", tried again in 5.0s");
        assert_eq!(told("forbidden", 0), ", tried again with the next job");
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_told() {
        let receiver = ReceiverStatus {
            receiver: "https://a.example".to_owned(),
            why: "https://a.example answers 500".to_owned(),
            in_a_row: 7,
            for_ms: 150_000,
        };
        let process =
            MemberStatus { process: "host-1".to_owned(), receivers: vec![receiver], ..MemberStatus::default() };
        let shown = shown(&seen(Some(vec![process])));
        assert!(shown.contains("\nwebhooks host-1: https://a.example answers 500; 7 in a row, for 2m\n"), "{shown}");
    }

    #[test]
    fn a_note_is_told_and_is_no_problem() {
        let notes = vec!["no reply is sent".to_owned()];
        let process = MemberStatus { process: "host-1".to_owned(), notes, ..MemberStatus::default() };
        let shown = shown(&seen(Some(vec![process])));
        assert!(shown.contains("\nnote: at host-1: no reply is sent\n"), "{shown}");
        assert!(!shown.contains("wrong: at host-1") && !shown.contains("host-1 is not ready"), "{shown}");
    }

    #[test]
    fn nobody_steers_the_terminal() {
        let process =
            MemberStatus { process: "a\u{1b}[2J".to_owned(), worker: "b\nc".to_owned(), ..MemberStatus::default() };
        let shown = shown(&seen(Some(vec![process])));
        assert!(!shown.contains('\u{1b}') && shown.contains(r"b\nc"), "{shown}");
    }

    #[test]
    fn spans_are_short() {
        let details = [0, 9, 10, 119, 120, 7199, 7200, 172_800].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(details, ["0.0s", "9.0s", "10s", "119s", "2m", "119m", "2h00m", "2d0h"]);
    }
}
