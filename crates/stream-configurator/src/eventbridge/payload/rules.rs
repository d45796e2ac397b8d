//! The rules of a payload that no schema can state, each with the place where it is broken. Pure.

use std::collections::HashMap;

use genfleet_core::job::Violation;

use super::{Payload, Rule};
use crate::{
    eventbridge::{config::MAX_BYTES, render},
    payload::{
        Transformation, TransformationType,
        directive::Makes,
        rules::{clashes, unreadable_directive, unreadable_entries},
    },
    projection,
};

const TOPIC: &str =
    "must be v2. and one or more of a-z, 0-9 and . { } -, e.g. v2.detail.events.conversation.{id}.user.end";

impl Payload {
    /// Returns all violations.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut found: Vec<Violation> = Vec::new();
        found.extend(self.unusable_name());
        found.extend(unreadable_topics("/payload/topics", &self.topics));
        found.extend(self.duplicate_names());
        for (place, rule) in self.placed_rules() {
            found.extend(rule.violations(&place, self));
        }
        if let Some(sample) = &self.sample_event {
            let directives = self.placed_rules().flat_map(|(place, rule)| rule.directives(&place).collect::<Vec<_>>());
            // The limits of AWS are already reported.
            let tried = directives.filter(|one| one.makes != Some(Makes::Iso8601));
            found.extend(projection::violations(tried, sample));
        }
        found.extend(self.too_large());
        found
    }

    /// Checks the name. The job looks for it before it creates anything, and would never find a name that the platform
    /// stores in another form.
    fn unusable_name(&self) -> Option<Violation> {
        let name = self.name.as_deref()?;
        let is_usable = name.trim() == name && !name.contains(char::is_control);
        (!is_usable).then(|| {
            Violation::new("/payload/name", "must not begin or end with a blank, nor contain a control character")
        })
    }

    fn duplicate_names(&self) -> Vec<Violation> {
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut found = Vec::new();
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| !rule.name.is_empty()) {
            let earlier = *taken.entry(&rule.name).or_insert(index);
            if earlier != index {
                let message = format!("is the name of the rule at /payload/rules/{earlier}: choose another name");
                found.push(Violation::new(format!("/payload/rules/{index}/name"), message));
            }
        }
        found
    }

    fn too_large(&self) -> Option<Violation> {
        let bytes = self.least_bytes();
        (bytes > MAX_BYTES).then(|| {
            let message = format!(
                "the configuration has {bytes} bytes as JSON; at most {MAX_BYTES} are taken: name fewer topics, or \
                 shorten the notes"
            );
            Violation::new("/payload", message)
        })
    }
}

impl Rule {
    fn violations(&self, place: &str, payload: &Payload) -> Vec<Violation> {
        let mut found: Vec<Violation> = Vec::new();
        found.extend(unreadable_topics(&format!("{place}/topics"), self.topics.as_deref().unwrap_or_default()));
        let directives: Vec<_> = self.directives(place).collect();
        found.extend(directives.iter().flat_map(unreadable_directive));
        found.extend(unreadable_entries(place, &self.transformations));
        found.extend(self.missing_paths(place));
        found.extend(clashes(&directives));
        found.extend(render::violations(place, self, payload));
        found
    }

    fn missing_paths(&self, place: &str) -> impl Iterator<Item = Violation> {
        let is_missing = |one: &Transformation| one.kind == TransformationType::Extract && one.path.is_none();
        let missing = self.transformations.iter().enumerate().filter(move |(_, one)| is_missing(one));
        missing.map(move |(index, _)| {
            let message = "required with type extract, and missing: what to take out of each entry, e.g. [].id";
            Violation::new(format!("{place}/transformations/{index}/path"), message)
        })
    }
}

fn unreadable_topics(place: &str, topics: &[String]) -> impl Iterator<Item = Violation> {
    let unreadable = topics.iter().enumerate().filter(|(_, topic)| !is_topic(topic));
    unreadable.map(move |(index, _)| Violation::new(format!("{place}/{index}"), TOPIC))
}

fn is_topic(topic: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".{}-".contains(&byte);
    topic.strip_prefix("v2.").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_part))
}
