//! The files themselves: current, whole, with examples that hold.

use std::{collections::BTreeSet, path::Path};

use serde_json::json;

use super::*;

#[test]
fn what_is_published_is_what_this_build_keeps() {
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap_or_else(|error| panic!("deploy/contract: {error}; {REMEDY}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "README.md")
        .collect();
    files.sort_unstable();
    let mut expected: Vec<String> = all().into_iter().map(|document| document.file).collect();
    expected.sort_unstable();
    assert_eq!(files, expected, "remove what is too many in deploy/contract; {REMEDY}");
    for document in all() {
        let published = fs::read_to_string(folder().join(&document.file)).unwrap();
        assert!(published == write_json(&document.body), "deploy/contract/{} is stale; {REMEDY}", document.file);
    }
}

#[test]
fn every_schema_compiles_and_stands_alone() {
    for document in all().into_iter().filter(|document| document.file.ends_with(".schema.json")) {
        compiled(&mut Schemas::new(), &document.body);
    }
    for document in all() {
        let place = if document.name == "asyncapi" { "" } else { "#/$defs/" };
        for_each(&document.body, "", &mut |_, schema| {
            if let Some(reference) = schema["$ref"].as_str() {
                assert!(reference.starts_with(place), "{}: {reference}", document.name);
                let there = reference.strip_prefix('#').and_then(|pointer| document.body.pointer(pointer));
                assert!(there.is_some_and(Value::is_object), "{}: {reference}", document.name);
            }
        });
    }
}

/// Hands over `value` and all that is in it, each with its JSON pointer.
fn for_each(value: &Value, at: &str, look: &mut impl FnMut(&str, &Value)) {
    look(at, value);
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Array(all) => all.iter().enumerate().for_each(|(n, each)| for_each(each, &below(&n.to_string()), look)),
        Value::Object(members) => members.iter().for_each(|(name, each)| for_each(each, &below(name), look)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Generators name a type after its title, and one without by chance (`Kind1`, `Model2`).
#[test]
fn every_object_and_every_choice_has_a_name_of_its_own() {
    for document in all() {
        let mut names = Vec::new();
        for_each(&document.body, "", &mut |at, schema| {
            let rules = ["/if/", "/then/", "/else/", "/not/"];
            let is_rule = rules.iter().any(|rule| format!("{at}/").contains(rule));
            let is_object = schema["type"] == "object" && schema["properties"].is_object() && !is_rule;
            let is_choice = schema["enum"].is_array() && !is_rule;
            // The parameters of a channel's address are no types.
            if at.starts_with("/channels/") || at.contains("/examples/") || !is_object && !is_choice {
                return;
            }
            let message = || format!("{}{at}", document.name);
            let name = schema["title"].as_str().unwrap_or_else(|| panic!("{} has no name", message()));
            let (parent, last) = at.rsplit_once('/').unwrap_or_default();
            assert!(
                at.is_empty() || ["/$defs", "/components/schemas"].contains(&parent),
                "{} is not by name",
                message()
            );
            let is_root = at.is_empty() || name.contains(' ');
            assert!(is_root || name == last && name.chars().all(|each| each.is_ascii_alphanumeric()), "{}", message());
            names.push(name.to_owned());
        });
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{}: {names:?}", document.name);
    }
}

#[test]
fn each_kind_has_an_event_of_its_own_with_its_report_and_its_codes() {
    let document = |name: &str| all().into_iter().find(|one| one.name == name).unwrap().body;
    let codes = |schema: &Value, name: &str| schema["$defs"][name]["enum"].as_array().unwrap().clone();
    let (general, mut message) = (document("event"), vec![json!("unknown_kind")]);
    for kind in Kind::ALL {
        let event = document(&format!("event.{kind}"));
        assert_eq!(event["$id"], format!("urn:genfleet:schema:{kind}:event"));
        let data = event["properties"]["data"]["$ref"].as_str().unwrap();
        let prefix = data.strip_prefix("#/$defs/").and_then(|name| name.strip_suffix("EventData")).unwrap();
        let data = &event["$defs"][format!("{prefix}EventData")]["properties"];
        assert_eq!(data["kind"]["const"], kind.as_str());
        assert_eq!(data["report"]["$ref"], format!("#/$defs/{prefix}Report"));
        message.extend(codes(&event, &format!("{prefix}ErrorCode")));
    }
    let known: BTreeSet<String> = codes(&general, "ErrorCode").iter().map(Value::to_string).collect();
    assert_eq!(message.iter().map(Value::to_string).collect::<BTreeSet<_>>(), known);
    assert_eq!(codes(&general, "Outcome"), ["succeeded", "failed", "expired"]);
    assert_eq!(codes(&general, "EventKind").len(), Kind::ALL.len() + 1);
}

/// Generated jobs, examples and unstated rules are held against schema and worker in each worker's crate.
#[test]
fn every_worker_tests_its_contract() {
    for contract in contracts() {
        let file = format!("../{}/tests/contract.rs", contract.kind.worker());
        let tests = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap_or_default();
        for check in ["agree::<", "unstated_rules_can_be_broken::<"] {
            assert!(tests.contains(check), "{file} has no {check}…: see crates/purger/tests/contract.rs");
        }
    }
}

/// A validator that takes a pattern's `\s` or look-around otherwise than another would make two contracts of one.
#[test]
fn patterns_mean_the_same_to_every_engine() {
    for document in all() {
        let text = document.body.to_string();
        for dialect in ["(?", "\\\\s", "\\\\d", "\\\\w", "\\\\b", "\\\\p", "\\\\u", "\\\\x"] {
            assert!(!text.contains(dialect), "{} has {dialect} in it", document.name);
        }
    }
}

#[test]
fn names_in_the_asyncapi_document_are_names_of_the_topology() {
    let topology = genfleet_core::queue::topology::topology("p");
    let document = crate::commands::schema::all_documents("p").pop().unwrap().body;
    let mut seen = 0;
    for channel in document["channels"].as_object().unwrap().values() {
        let binding = &channel["bindings"]["amqp"];
        let exchange = binding["exchange"]["name"].as_str().filter(|name| !name.is_empty());
        let queue = binding["queue"]["name"].as_str();
        assert!(exchange.is_none_or(|name| topology.exchanges.iter().any(|one| one.name == name)), "{exchange:?}");
        assert!(queue.is_none_or(|name| topology.queues.iter().any(|one| one.name == name)), "{queue:?}");
        let key = channel["address"].as_str().filter(|_| exchange == Some("p.jobs"));
        let leads = |key: &str| topology.bindings.iter().any(|one| one.source == "p.jobs" && one.routing_key == key);
        assert!(key.is_none_or(leads), "{key:?}");
        seen += usize::from(exchange.is_some() || queue.is_some());
    }
    assert_eq!(seen, 2 * Kind::of_producers().count() + 2, "jobs, dead letters, events and their window");
}

/// A code that nobody listed is one that no typed client knows.
#[test]
fn every_code_that_the_source_fails_a_job_with_is_in_the_contract() {
    let mut found = BTreeSet::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), &mut |path, source| {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let classes = code.split("ErrorClass::").skip(1).filter_map(|after| after.split_once(','));
        // With these no job ends: it is held.
        let classes =
            classes.filter(|(class, _)| !["Credentials", "Interrupted"].contains(class)).map(|(_, rest)| rest);
        let others = ["permanent(", "failed(", "code:"].into_iter().flat_map(|before| code.split(before).skip(1));
        for rest in classes.chain(others) {
            let literal = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            let is_code = |text: &&str| text.bytes().all(|each| each.is_ascii_lowercase() || each == b'_');
            found.extend(literal.filter(is_code).map(|code| (code.to_owned(), path.to_owned())));
        }
    });
    let event = all().into_iter().find(|one| one.name == "event").unwrap().body;
    let known = event["$defs"]["ErrorCode"]["enum"].as_array().unwrap();
    assert!(found.len() > 20, "{found:?}");
    for (code, path) in found {
        assert!(
            known.iter().any(|known| *known == *code),
            "{}: {code} is in no ContractTerms and not in COMMON",
            path.display()
        );
    }
}

fn sources(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        match path.extension().and_then(|end| end.to_str()) {
            _ if is_test => {}
            None if path.is_dir() => sources(&path, look),
            Some("rs") => look(&path, &fs::read_to_string(&path).unwrap()),
            _ => {}
        }
    }
}
