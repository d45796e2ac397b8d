//! The report for people: a table of the kinds, a line for each client, a table of the processes, pauses and holds, and
//! failing receivers of webhooks.

use std::time::Duration;

use genfleet_core::membership::{HoldStatus, MemberStatus, ReceiverStatus};

use super::{
    report::{KindReport, Report, limit, requests_sent},
    table::{Cell, Side, Tone, table},
};
use crate::terminal::{Paint, count, line, truncate};

/// Maximum number of characters that are shown of a reason.
const WHY_WIDTH: usize = 300;

/// Formats the whole report.
pub(super) fn text(report: &Report, paint: Paint) -> String {
    let mut text = kinds(report, paint);
    for line in other_counts(report) {
        text += &line;
        text.push('\n');
    }
    text.push('\n');
    text += &processes(report, paint);
    let problems = report.problems();
    if !problems.is_empty() {
        text.push('\n');
    }
    for problem in problems {
        text.extend([paint.red("wrong:"), format!(" {}\n", truncate(&problem, WHY_WIDTH))]);
    }
    text
}

fn kinds(report: &Report, paint: Paint) -> String {
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
        report.kinds.iter().map(|(kind, of_kind)| row(kind.as_str(), of_kind, report.processes.is_some())).collect();
    table(&HEAD, &rows, paint)
}

/// Formats a kind. What only processes know is a dash if they were not `asked`.
fn row(kind: &str, of_kind: &KindReport, asked: bool) -> Vec<Cell> {
    let (worked, oldest) =
        (of_kind.processes > 0, of_kind.oldest.map(|seconds| span(Duration::from_secs_f64(seconds))));
    let rate = |rate| if worked { figure(Some(rate), Tone::Plain) } else { none() };
    vec![
        (kind.to_owned(), Tone::Plain),
        figure(of_kind.waiting, if worked || !asked { Tone::Plain } else { Tone::Doubtful }),
        figure(asked.then_some(of_kind.running), Tone::Plain),
        figure(asked.then_some(of_kind.held), Tone::Plain),
        figure(of_kind.begun, Tone::Plain),
        figure(of_kind.suspect, Tone::Doubtful),
        figure(of_kind.dead, Tone::Bad),
        oldest.map_or_else(none, |oldest| (oldest, Tone::Plain)),
        rate(of_kind.ended),
        if worked { figure(Some(of_kind.failed), Tone::Bad) } else { none() },
    ]
}

/// Formats a number; a zero is dimmed, and an unknown number is a dash.
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

fn other_counts(report: &Report) -> impl Iterator<Item = String> {
    let counts = [
        (report.delayed, "delayed job"),
        (Some(report.unknown_dead), "dead letter of no known kind"),
        (report.unrouted, "unrouted message"),
    ];
    counts.into_iter().filter_map(|(number, what)| Some(count(number.filter(|number| *number > 0)?, what)))
}

fn processes(report: &Report, paint: Paint) -> String {
    let Some(alive) = &report.processes else {
        return paint.yellow(&format!("processes cannot be asked: {}", truncate(&report.no_answer, WHY_WIDTH))) + "\n";
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
    for (client, processes) in report.clients() {
        let (client, sent, limit) = (truncate(client, 8), requests_sent(&processes), limit(&processes));
        text.extend([format!("client {client}: {sent} of {limit} requests in the last minute")]);
        if let Some(shut) = processes.iter().filter_map(|process| process.client_shut()).max() {
            text += &paint.red(&format!("; its limit is closed for another {}", span(shut)));
        }
        text.push('\n');
    }
    text + "\n"
        + &process_table(alive, paint)
        + &lines_of(alive, |name, process| holds(name, process, paint))
        + &lines_of(alive, |name, process| failing_receivers(name, process, paint))
        + &lines_of(alive, notes)
}

/// Concatenates the lines of all processes, with an empty line before them if there are any.
fn lines_of(alive: &[MemberStatus], lines: impl Fn(&str, &MemberStatus) -> String) -> String {
    let lines = alive.iter().map(|process| lines(&line(&process.process), process)).collect::<String>();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn notes(name: &str, process: &MemberStatus) -> String {
    let text = |note: &String| format!("note: at {name}: {}\n", truncate(note, WHY_WIDTH));
    process.notes.iter().map(text).collect()
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

fn reason(hold: &HoldStatus) -> String {
    match &hold.kind {
        Some(kind) => format!("{} for {}", line(&hold.reason), line(kind)),
        None => line(&hold.reason),
    }
}

fn holds(name: &str, process: &MemberStatus, paint: Paint) -> String {
    let text = |hold: &HoldStatus| {
        let end = hold.for_ms.map(|left| end_of(hold, Duration::from_millis(left))).unwrap_or_default();
        format!("{} {name}: {}{end}\n", paint.red(&reason(hold)), truncate(&hold.why, WHY_WIDTH))
    };
    process.shut.iter().map(text).collect()
}

/// Says what happens after the remaining time.
fn end_of(hold: &HoldStatus, left: Duration) -> String {
    match hold.reason.as_str() {
        "throttled" | "service_limit" | "cdn_throttled" => format!(", for another {}", span(left)),
        "forbidden" | "api_unavailable" if left.is_zero() => ", tried again with the next job".to_owned(),
        _ => format!(", tried again in {}", span(left)),
    }
}

fn failing_receivers(name: &str, process: &MemberStatus, paint: Paint) -> String {
    let text = |ReceiverStatus { why, in_a_row, for_ms, .. }: &ReceiverStatus| {
        let (why, since) = (truncate(why, WHY_WIDTH), span(Duration::from_millis(*for_ms)));
        format!("{} {name}: {why}; {in_a_row} in a row, for {since}\n", paint.red("webhooks"))
    };
    process.receivers.iter().map(text).collect()
}

/// Formats a duration with at most two units: `2h13m`.
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

    fn shown(report: &Report) -> String {
        text(report, Paint::none())
    }

    fn report(processes: Option<Vec<MemberStatus>>) -> Report {
        let purge = KindReport {
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
        let kinds = BTreeMap::from([(Kind::CdnPurge, purge), (Kind::FileScan, KindReport::default())]);
        Report { queue: "rabbitmq", kinds, unrouted: Some(1), delayed: Some(0), processes, ..Report::default() }
    }

    #[test]
    fn columns_are_aligned_and_unknown_numbers_are_dashes() {
        let shown = shown(&report(Some(vec![])));
        let expected = "\
KIND       WAITING  RUNNING  HELD  BEGUN  SUSPECT  DEAD  OLDEST  ENDED/MIN  FAILED/MIN
cdn.purge       12        4    64      0        1     3     75s        640           2
file.scan        -        0     0      -        -     -       -          -           -
1 unrouted message

no process is alive

wrong: the queues of file.scan do not exist
wrong: 1 message matched no queue
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn processes_that_cannot_be_asked_are_not_shown_as_dead() {
        let unasked = Report { no_answer: "an alarm".to_owned(), ..report(None) };
        let mut kinds = unasked.kinds.clone();
        for of_kind in kinds.values_mut() {
            (of_kind.running, of_kind.held, of_kind.processes) = (0, 0, 0);
        }
        let shown = shown(&Report { kinds, ..unasked });
        assert!(shown.contains("cdn.purge       12        -     -      0 "), "{shown}");
        assert!(
            shown.contains("\nprocesses cannot be asked: an alarm\n") && !shown.contains("no process is alive"),
            "{shown}"
        );
    }

    #[test]
    fn a_pause_is_shown_with_its_reason_and_its_time() {
        let pause = HoldStatus {
            reason: "throttled".to_owned(),
            why: "the API asked for a pause".to_owned(),
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
            shut: vec![pause],
            ..MemberStatus::default()
        };
        let shown = shown(&report(Some(vec![process])));
        for details in [
            "1 process is alive\n",
            "client 0123456…: 300 of 3000 requests in the last minute; its limit is closed for another 12s\n",
            "host-1   purger  0.1.0    2h13m        0       300  0 of 300  shut: throttled\n",
            "throttled host-1: the API asked for a pause, for another 12s\n",
        ] {
            assert!(shown.contains(details), "{details:?} is not in\n{shown}");
        }
    }

    #[test]
    fn a_pause_has_an_end_and_a_hold_is_tried_again() {
        let hold = |reason: &str| HoldStatus { reason: reason.to_owned(), ..HoldStatus::default() };
        let end = |reason: &str, seconds| end_of(&hold(reason), Duration::from_secs(seconds));
        assert_eq!(end("throttled", 5), ", for another 5.0s");
        assert_eq!(end("service_limit", 5), ", for another 5.0s");
        assert_eq!(end("credentials", 5), ", tried again in 5.0s");
        assert_eq!(end("forbidden", 5), ", tried again in 5.0s");
        assert_eq!(end("forbidden", 0), ", tried again with the next job");
    }

    #[test]
    fn a_failing_receiver_is_shown() {
        let receiver = ReceiverStatus {
            receiver: "https://a.example".to_owned(),
            why: "https://a.example answers 500".to_owned(),
            in_a_row: 7,
            for_ms: 150_000,
        };
        let process =
            MemberStatus { process: "host-1".to_owned(), receivers: vec![receiver], ..MemberStatus::default() };
        let shown = shown(&report(Some(vec![process])));
        assert!(shown.contains("\nwebhooks host-1: https://a.example answers 500; 7 in a row, for 2m\n"), "{shown}");
    }

    #[test]
    fn a_note_is_shown_and_is_not_a_problem() {
        let notes = vec!["no reply is sent".to_owned()];
        let process = MemberStatus { process: "host-1".to_owned(), notes, ..MemberStatus::default() };
        let shown = shown(&report(Some(vec![process])));
        assert!(shown.contains("\nnote: at host-1: no reply is sent\n"), "{shown}");
        assert!(!shown.contains("wrong: at host-1") && !shown.contains("host-1 is not ready"), "{shown}");
    }

    #[test]
    fn control_characters_of_processes_are_escaped() {
        let process =
            MemberStatus { process: "a\u{1b}[2J".to_owned(), worker: "b\nc".to_owned(), ..MemberStatus::default() };
        let shown = shown(&report(Some(vec![process])));
        assert!(!shown.contains('\u{1b}') && shown.contains(r"b\nc"), "{shown}");
    }

    #[test]
    fn spans_are_short() {
        let details = [0, 9, 10, 119, 120, 7199, 7200, 172_800].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(details, ["0.0s", "9.0s", "10s", "119s", "2m", "119m", "2h00m", "2d0h"]);
    }
}
