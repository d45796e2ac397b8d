//! All kinds of changes to a small audit, and the lines that are reported for them.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::record::{AuditSubject, Chain, ChainLink, Detail, Fact, Line};
use genfleet_job::{JobId, event::AuditReference};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("genfleet-verify-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn chain(process: &str, count: usize) -> Vec<(Line, AuditReference)> {
    let about = |n: usize| AuditSubject {
        job: JobId::parse(&format!("job-{n}")),
        kind: "cdn.purge",
        worker: "purger",
        action: "cdn_purge_executed",
        payload_sha256: None,
    };
    let mut chain = Chain::new(process.to_owned(), ChainLink::default());
    let detail = Detail::default().with("outcome", "succeeded");
    (1..=count).map(|n| chain.append(&about(n), Fact::Outcome, &detail, Timestamp::UNIX_EPOCH)).collect()
}

fn bytes(lines: &[(Line, AuditReference)]) -> Vec<u8> {
    lines.iter().flat_map(|(line, _)| line.bytes.clone()).collect()
}

fn problems(files: &[PathBuf]) -> Vec<(u64, String)> {
    let found = verify(files, ClaimedLines::default(), &[]).unwrap().problems;
    found.into_iter().map(|problem| (problem.place.line, problem.problem)).collect()
}

/// The lines that are reported for a file with this content.
fn named(content: &[u8]) -> Vec<u64> {
    let folder = Folder::new();
    problems(&[folder.file("audit.jsonl", content)]).into_iter().map(|(line, _)| line).collect()
}

fn events(lines: &[(Line, AuditReference)]) -> ClaimedLines {
    let mut text = String::new();
    for (n, (_, stamp)) in lines.iter().enumerate() {
        writeln!(text, "{}", json!({"id": n, "data": {"jobId": format!("job-{}", n + 1), "audit": stamp}})).unwrap();
    }
    ClaimedLines::read(text.as_bytes(), Path::new("events.jsonl")).unwrap()
}

#[test]
fn an_unchanged_audit_has_no_problems() {
    let folder = Folder::new();
    let file = folder.file("audit.jsonl", &bytes(&chain("p", 5)));
    let report = verify(&[file], events(&chain("p", 5)), &[]).unwrap();
    assert_eq!((report.files, report.lines, report.chains, report.events), (1, 5, 1, 5));
    assert_eq!(report.problems, []);
    assert_eq!(named(b""), [] as [u64; 0], "an empty file is valid");
}

#[test]
fn any_byte_of_any_line_changed_names_that_line() {
    let lines = chain("p", 3);
    let content = bytes(&lines);
    let folder = Folder::new();
    let mut line = 1;
    for place in 0..content.len() {
        for other in [content[place] ^ 1, content[place] ^ 0x20, b' ', b'\n'] {
            if other == content[place] {
                continue;
            }
            let mut changed = content.clone();
            changed[place] = other;
            let found = problems(&[folder.file("audit.jsonl", &changed)]);
            assert_eq!(found.first().map(|(line, _)| *line), Some(line), "byte {place} as {other}: {found:?}");
        }
        line += u64::from(content[place] == b'\n');
    }
}

#[test]
fn a_changed_line_is_the_only_one_named() {
    let lines = chain("p", 4);
    let second = lines[0].0.bytes.len()..lines[0].0.bytes.len() + lines[1].0.bytes.len() - 1;
    for place in second {
        let mut content = bytes(&lines);
        content[place] ^= 1;
        assert_eq!(named(&content), [2], "byte {place}");
    }
}

#[test]
fn a_line_split_in_two_does_not_affect_unchanged_lines() {
    let lines = chain("p", 4);
    let second = lines[0].0.bytes.len()..lines[0].0.bytes.len() + lines[1].0.bytes.len() - 1;
    for place in second {
        let mut content = bytes(&lines);
        content[place] = b'\n';
        assert_eq!(named(&content), [2, 3], "byte {place}: its two halves");
    }
    let mut broken = lines[1].0.bytes.clone();
    broken[20] = b'\n';
    let third = &lines[2].0.bytes;
    let content = [&lines[0].0.bytes[..], &broken, third, third].concat();
    assert_eq!(named(&content), [2, 3, 5], "a line there twice is still named");
}

#[test]
fn a_line_removed_is_named_by_the_one_after_it() {
    for removed in 0..4 {
        let mut lines = chain("p", 5);
        lines.remove(removed);
        let folder = Folder::new();
        let expected = format!("seq {} is missing before this line", removed + 1);
        assert_eq!(problems(&[folder.file("audit.jsonl", &bytes(&lines))]), [(removed as u64 + 1, expected)]);
    }
    let mut lines = chain("p", 9);
    lines.drain(2..5);
    assert_eq!(named(&bytes(&lines)), [3]);
}

#[test]
fn two_lines_swapped_are_out_of_order() {
    for (one, other) in [(0, 1), (1, 2), (3, 4)] {
        let mut lines = chain("p", 5);
        lines.swap(one, other);
        let folder = Folder::new();
        let expected = format!("seq {} is out of order", one + 1);
        assert_eq!(problems(&[folder.file("audit.jsonl", &bytes(&lines))]), [(other as u64 + 1, expected)]);
    }
    for one in 0..6 {
        for other in one + 1..6 {
            let mut lines = chain("p", 6);
            lines.swap(one, other);
            assert!(!named(&bytes(&lines)).is_empty(), "{one} and {other}");
        }
    }
}

#[test]
fn a_line_twice_and_a_line_of_another_chain_are_named() {
    let mut lines = chain("p", 4);
    lines.insert(2, lines[1].clone());
    assert_eq!(named(&bytes(&lines)), [3]);
    let mut lines = chain("p", 4);
    lines[2] = chain("q", 4).remove(2);
    assert_eq!(named(&bytes(&lines)), [3, 4], "neither follows the line before it");
    let mut lines = chain("p", 4);
    lines[3] = chain("q", 4).remove(3);
    assert_eq!(named(&bytes(&lines)), [4], "a line made anew does not follow");
    let mut content = bytes(&chain("p", 2));
    content.extend_from_slice(b"\n");
    assert_eq!(named(&content), [3], "an empty line");
    let lines = chain("p", 3);
    let content = [bytes(&lines[..1]), b"{\"a\":1}\n".to_vec(), bytes(&lines[1..])].concat();
    assert_eq!(named(&content), [2], "a line put in");
}

#[test]
fn an_incomplete_last_line_is_named() {
    let content = bytes(&chain("p", 3));
    assert_eq!(named(&content[..content.len() - 1]), [3]);
    assert_eq!(named(&content[..content.len() - 30]), [3]);
}

#[test]
fn lines_removed_at_the_end_are_found_only_with_events() {
    let lines = chain("p", 5);
    for kept in 0..5 {
        let folder = Folder::new();
        let file = [folder.file("audit.jsonl", &bytes(&lines[..kept]))];
        assert_eq!(problems(&file), []);
        let found = verify(&file, events(&lines), &[]).unwrap().problems;
        assert_eq!(found.len(), 5 - kept);
        assert_eq!(found[0].place, LinePlace { file: "events.jsonl".into(), line: kept as u64 + 1 });
        assert!(found[0].problem.contains(&format!("job-{} names seq {} of process p", kept + 1, kept + 1)));
    }
}

#[test]
fn rewritten_last_lines_are_found_by_the_hash_in_the_events() {
    let lines = chain("p", 3);
    let mut forged = Chain::new("p".to_owned(), ChainLink { seq: 2, hash: lines[1].1.hash.clone() });
    let about = AuditSubject { job: None, kind: "cdn.purge", worker: "purger", action: "x", payload_sha256: None };
    let last = forged.append(&about, Fact::Outcome, &Detail::default(), Timestamp::UNIX_EPOCH).0;
    let folder = Folder::new();
    let file = [folder.file("audit.jsonl", &[bytes(&lines[..2]), last.bytes].concat())];
    assert_eq!(problems(&file), []);
    let found = verify(&file, events(&lines), &[]).unwrap().problems;
    assert_eq!(found.len(), 1);
    assert!(found[0].problem.contains("another hash"), "{found:?}");
}

#[test]
fn an_event_that_names_the_line_of_another_job_and_an_invalid_event_are_named() {
    let lines = chain("p", 2);
    let folder = Folder::new();
    let file = [folder.file("audit.jsonl", &bytes(&lines))];
    let other = json!({"data": {"jobId": "job-2", "audit": lines[0].1}});
    let without = json!({"data": {"jobId": "job-9"}});
    let text = format!("{other}\n\n{without}\nnonsense\n");
    let events = ClaimedLines::read(text.as_bytes(), Path::new("events.jsonl")).unwrap();
    let found = verify(&file, events, &[]).unwrap().problems;
    let reported: Vec<_> = found.iter().map(|problem| (problem.place.line, problem.problem.as_str())).collect();
    assert!(
        matches!(reported[..], [(1, first), (4, second)] if first.contains("something else") && second.contains("no event")),
        "{reported:?}"
    );
}

#[test]
fn files_of_several_chains_can_be_given_in_any_order() {
    let (one, two) = (chain("p", 6), chain("q", 4));
    let folder = Folder::new();
    let mut files = [
        folder.file("audit.0003.jsonl", &bytes(&one[4..])),
        folder.file("audit.jsonl", &bytes(&one[..2])),
        folder.file("renamed", &bytes(&two[1..])),
        folder.file("audit.0002.jsonl", &bytes(&one[2..4])),
        folder.file("audit-2.jsonl", &bytes(&two[..1])),
        folder.file("audit.0004.jsonl", b""),
    ];
    for _ in 0..files.len() {
        files.rotate_left(1);
        let report = verify(&files, ClaimedLines::default(), &[]).unwrap();
        assert_eq!((report.problems, report.lines), (vec![], 10));
    }
}

#[test]
fn a_part_that_is_not_given_is_missing() {
    let lines = chain("p", 6);
    let folder = Folder::new();
    let files = [folder.file("audit.jsonl", &bytes(&lines[..2])), folder.file("audit.0003.jsonl", &bytes(&lines[4..]))];
    assert_eq!(problems(&files), [(1, "seq 3 to 4 are missing before this line".to_owned())]);
    assert_eq!(problems(&files[1..]), [(1, "seq 1 to 4 are missing before this line".to_owned())]);
}

#[test]
fn a_chain_without_its_first_line_is_not_mistaken_for_a_part_of_another() {
    let (one, two) = (chain("p", 21), chain("q", 21));
    let folder = Folder::new();
    let files = [folder.file("one.jsonl", &bytes(&one)), folder.file("two.jsonl", &bytes(&two[1..]))];
    let report = verify(&files, ClaimedLines::default(), &[]).unwrap();
    let place = LinePlace { file: files[1].clone(), line: 1 };
    assert_eq!(report.problems, [LineProblem { place, problem: "seq 1 is missing before this line".to_owned() }]);
    assert_eq!(report.chains, 2);
}

#[test]
fn a_part_under_another_name_belongs_to_the_chain_of_its_process() {
    let (one, two) = (chain("p", 9), chain("q", 9));
    let folder = Folder::new();
    let files = [
        folder.file("one.jsonl", &bytes(&one[..5])),
        folder.file("two.jsonl", &bytes(&two)),
        folder.file("renamed", &bytes(&one[6..])),
    ];
    let place = LinePlace { file: files[2].clone(), line: 1 };
    let missing = LineProblem { place, problem: "seq 6 is missing before this line".to_owned() };
    assert_eq!(verify(&files, ClaimedLines::default(), &[]).unwrap().problems, [missing]);
}

#[test]
fn a_chain_that_continued_after_damage_reports_only_the_damage() {
    let lines = chain("p", 4);
    let mut damaged = bytes(&lines[..3]);
    let place = damaged.len() - 20;
    damaged[place] ^= 1;
    let mut anew = Chain::new("q".to_owned(), ChainLink { seq: 2, hash: lines[1].1.hash.clone() });
    let about = AuditSubject { job: None, kind: "cdn.purge", worker: "purger", action: "x", payload_sha256: None };
    let mut next = || anew.append(&about, Fact::Outcome, &Detail::default(), Timestamp::UNIX_EPOCH).0.bytes;
    let (third, fourth) = (next(), next());
    let folder = Folder::new();
    let files = [folder.file("audit.jsonl", &damaged), folder.file("audit.0002.jsonl", &[third, fourth].concat())];
    let found: Vec<_> = verify(&files, ClaimedLines::default(), &[]).unwrap().problems;
    assert_eq!(
        found.iter().map(|problem| &problem.place).collect::<Vec<_>>(),
        [&LinePlace { file: files[0].clone(), line: 3 }]
    );
}

#[test]
fn a_file_that_cannot_be_read_twice_is_refused() {
    let error = verify(&[PathBuf::from("/dev/null")], ClaimedLines::default(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("/dev/null: no regular file"), "{error}");
}

#[test]
fn a_completely_rewritten_file_is_found_only_by_an_anchor() {
    let (lines, forged) = (chain("p", 5), chain("q", 5));
    let folder = Folder::new();
    let (good, bad) = (folder.file("a.jsonl", &bytes(&lines)), folder.file("b.jsonl", &bytes(&forged)));
    let cut = folder.file("c.jsonl", &bytes(&lines[..3]));
    let anchors: Vec<ChainLink> = [1, 3].iter().map(|at| lines[*at].0.link.clone()).collect();
    let found = |file: &PathBuf, anchors: &[ChainLink]| {
        let report = verify(std::slice::from_ref(file), ClaimedLines::default(), anchors).unwrap();
        assert_eq!(report.anchors, anchors.len());
        report.problems
    };
    assert_eq!(found(&good, &anchors), []);
    assert_eq!(found(&bad, &[]), [], "nothing else shows it");
    let problems = found(&bad, &anchors);
    assert_eq!(problems.iter().map(|problem| problem.place.line).collect::<Vec<_>>(), [2, 4]);
    assert!(problems[0].problem.contains("another hash"), "{problems:?}");
    let problems = found(&cut, &anchors);
    assert!(problems.len() == 1 && problems[0].problem.contains("cut off"), "{problems:?}");
    let both = verify(&[good, bad], ClaimedLines::default(), &anchors).unwrap();
    assert_eq!(both.problems, [], "one of two chains has it");
}
