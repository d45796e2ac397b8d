//! Consistency of the documents: every link has a target, the README links to every document, and every source file
//! that a document names exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Folders without documents of this project.
const FOREIGN: [&str; 4] = ["target", "node_modules", "deploy/secrets", ".venv"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Finds every document of the repository, by its path from the root.
fn documents() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(&root(), &mut found);
    found
}

fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let hidden = name.starts_with('.');
        if path.is_dir() && !hidden && !FOREIGN.iter().any(|foreign| name.ends_with(foreign)) {
            collect(&path, found);
        } else if is_a(&name, "md") {
            found.insert(name, fs::read_to_string(path).unwrap());
        }
    }
}

fn is_a(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}

/// Returns the targets of a document's links, without those in code blocks.
fn links(text: &str) -> Vec<String> {
    let outside_blocks: String = text.split("```").step_by(2).collect();
    let targets = outside_blocks.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// Returns the anchor of a heading.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    let kept = heading.to_lowercase().replace(' ', "-");
    Some(kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect())
}

/// Resolves `path`, which is relative to the folder of the document `from`, to a path from the root.
fn resolved(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_of_every_document_leads_somewhere() {
    let (documents, root, mut followed) = (documents(), root(), 0);
    for (name, text) in &documents {
        for target in links(text) {
            let (path, wanted) = target.split_once('#').map_or((&*target, None), |(path, anchor)| (path, Some(anchor)));
            let file = if path.is_empty() { name.clone() } else { resolved(name, path) };
            assert!(root.join(&file).exists(), "{name} points to {target}, and there is no {file}");
            if let Some(wanted) = wanted {
                let there = documents[&file].lines().filter_map(anchor).any(|anchor| anchor == wanted);
                assert!(there, "{name} points to {target}, and {file} has no such heading");
            }
            followed += 1;
        }
    }
    assert!(followed > 60, "the links were found: {followed}");
}

#[test]
fn the_readme_leads_to_every_document() {
    let documents = documents();
    let (mut reached, mut open) = (BTreeSet::new(), vec!["README.md".to_owned()]);
    while let Some(name) = open.pop() {
        let Some(text) = documents.get(&name) else { continue };
        if reached.insert(name.clone()) {
            open.extend(links(text).iter().map(|target| resolved(&name, target.split('#').next().unwrap())));
        }
    }
    let missed: Vec<_> = documents.keys().filter(|name| !reached.contains(*name)).collect();
    assert!(missed.is_empty(), "no link from the README leads to {missed:?}");
    let in_docs = |name: &&String| name.starts_with("docs/") && !name.contains("/upstream/") && !name.contains("/adr/");
    let direct: BTreeSet<String> =
        links(&documents["README.md"]).iter().map(|target| resolved("README.md", target)).collect();
    let missed: Vec<_> = documents.keys().filter(in_docs).filter(|name| !direct.contains(*name)).collect();
    assert!(missed.is_empty(), "the README itself does not link to {missed:?}");
}

/// A path is one from the root, or one below `crates/core/src`. The README's map shortens paths further.
#[test]
fn every_source_file_that_a_document_names_exists() {
    let (root, mut looked_at) = (root(), 0);
    // Reports for other projects name their files.
    let ours = |name: &str| name == "CONTRIBUTING.md" || name.starts_with("docs/") && !name.contains("/upstream/");
    for (name, text) in documents().iter().filter(|(name, _)| ours(name)) {
        let outside_blocks: String = text.split("```").step_by(2).collect();
        let codes = outside_blocks.split('`').skip(1).step_by(2);
        for code in codes.filter(|code| is_a(code, "rs") && !code.contains(['<', ' ', '*'])) {
            let there =
                [code.to_owned(), format!("crates/core/src/{code}")].iter().any(|path| root.join(path).exists());
            assert!(there, "{name} names {code}, which does not exist");
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "the paths were found: {looked_at}");
}
