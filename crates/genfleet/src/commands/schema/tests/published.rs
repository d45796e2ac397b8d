//! The files themselves: current, whole, with examples that hold.

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
        assert!(published == text::write(&document.body), "deploy/contract/{} is stale; {REMEDY}", document.file);
    }
}

#[test]
fn every_schema_compiles_and_stands_alone() {
    for document in all().into_iter().filter(|document| document.file.ends_with(".schema.json")) {
        compiled(&mut Schemas::new(), &document.body);
        assert!(!document.body.to_string().contains("\"$ref\""), "{}", document.name);
    }
}

#[test]
fn every_example_is_a_job_that_is_taken() {
    for contract in contracts() {
        let judges = Judges::of(&contract);
        assert!(contract.terms.examples.len() >= 2, "{}: the plainest, and one with everything", contract.kind);
        for example in &contract.terms.examples {
            assert_eq!(judges.judge(example), Judgement::BothTake, "{example}");
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
    let document = documents(&contracts(), "p").pop().unwrap().body;
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
    assert_eq!(seen, 5 + 5 + 2, "jobs, dead letters, events and their window");
}
