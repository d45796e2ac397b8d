//! The commands in `deploy/RUNBOOK.md` and the other guides are accepted by the binaries, and the files that they apply
//! exist. [`crate::monitoring`] checks that every alert has its section, [`crate::docs`] checks links.

use std::collections::BTreeSet;

use genfleet_core::job::Kind;
use harness::{Process, seconds};

use crate::deploy::{deploy, text};

const GUIDES: [&str; 7] = [
    "RUNBOOK.md",
    "README.md",
    "../README.md",
    "../SECURITY.md",
    "../CONTRIBUTING.md",
    "../docs/ERRORS.md",
    "../docs/ADDING-A-WORKER.md",
];

#[tokio::test]
async fn every_command_of_the_guides_is_one_that_the_binaries_take() {
    let mut tried = 0;
    for guide in GUIDES {
        for (binary, arguments) in commands(&text(guide)) {
            // Arguments before --help are parsed, and refused if they are wrong.
            let process = Process::binary(&binary).args(arguments.iter().map(String::as_str)).args(["--help"]).start();
            assert_eq!(process.wait(seconds(20)).await, 0, "{guide}: {binary} {arguments:?}: {}", process.stderr());
            tried += 1;
        }
    }
    assert!(tried > 40, "the commands were found: {tried}");
}

#[tokio::test]
async fn every_setting_of_the_guides_exists() {
    let mut known = String::new();
    let tool =
        [vec!["up"], vec!["run"], vec!["show"], vec!["status"], vec!["dead", "redrive"], vec!["audit", "verify"]]
            .map(|command| ("genfleet", command));
    for (binary, arguments) in tool.into_iter().chain([("purger", vec![])]) {
        let process = Process::binary(binary).args(arguments).args(["--help"]).start();
        assert_eq!(process.wait(seconds(20)).await, 0);
        known += &process.stdout_lines().join("\n");
    }
    let known: BTreeSet<&str> = known.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')).collect();
    for guide in GUIDES {
        for code in inline_code(&text(guide)) {
            let setting = code.split([' ', '=']).next().unwrap();
            let unknown = setting.starts_with("--") && !known.contains(setting);
            assert!(!unknown, "{guide} names {setting}, which no binary knows");
        }
    }
}

#[test]
fn everything_that_the_guides_apply_is_there() {
    for guide in GUIDES {
        for built in
            text(guide).split("-k deploy/").skip(1).map(|rest| rest.split([' ', '`', '\n', ',']).next().unwrap())
        {
            assert!(deploy(built).join("kustomization.yaml").exists(), "{guide} applies {built}");
        }
    }
}

/// Finds every call of a binary, in code blocks and between back-ticks.
fn commands(guide: &str) -> Vec<(String, Vec<String>)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in guide.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push(line.to_owned());
        }
    }
    lines.extend(inline_code(guide));
    lines.iter().flat_map(|line| words(line)).filter_map(|command| ours(&command)).collect()
}

fn inline_code(guide: &str) -> Vec<String> {
    let outside_blocks: String = guide.split("```").step_by(2).collect();
    // A command may continue on the next line.
    outside_blocks.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect()
}

/// Returns the binary and its arguments if the command calls one of the product's binaries, also in a container.
fn ours(command: &[String]) -> Option<(String, Vec<String>)> {
    let names_something = |before: &str| before.starts_with('-') && before != "--" && before != "--rm";
    let tool = (0..command.len()).find(|at| {
        command[*at] == "genfleet" && (*at == 0 || !names_something(&command[*at - 1]) && command[0] != "cargo")
    });
    let is_worker = Kind::workers().any(|binary| command.first().is_some_and(|first| first == binary));
    let at = tool.or(is_worker.then_some(0))?;
    let arguments = command[at + 1..].to_vec();
    let shown_only = arguments.is_empty() || arguments[0] == "…";
    (!shown_only).then(|| (command[at].clone(), arguments))
}

/// Splits a line into commands as a shell does, without variables, redirections and a comment at the end.
fn words(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut word, mut quote) = (vec![Vec::new()], None::<String>, None);
    for letter in line.chars().chain([' ']) {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | '>' | ' ') => {
                commands.last_mut().unwrap().extend(word.take());
                if letter != ' ' {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    commands
}

#[test]
fn a_line_is_taken_apart_as_a_shell_would() {
    let taken = |line: &str| words(line).iter().filter_map(|command| ours(command)).collect::<Vec<_>>();
    let tool = |arguments: &[&str]| ("genfleet".to_owned(), arguments.iter().map(ToString::to_string).collect());
    let line = r#"genfleet enqueue cdn.purge --payload '{"paths":["/a b"]}' # comment"#;
    assert_eq!(taken(line), [tool(&["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a b"]}"#])]);
    assert_eq!(
        taken("docker compose exec purger genfleet health && purger --check-config | jq ."),
        [tool(&["health"]), ("purger".to_owned(), vec!["--check-config".to_owned()])]
    );
    assert_eq!(taken("kubectl get deploy -n genfleet"), []);
    assert_eq!(taken("docker compose logs purger"), []);
    assert_eq!(taken("genfleet …"), []);
}
