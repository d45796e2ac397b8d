//! The rules of a payload that no schema can state, each with the place of its violation. Pure.

use std::collections::HashMap;

use genfleet_core::job::Violation;
use serde_json::Value;

use super::{Condition, Configuration, Operator, Payload, Transformation, TransformationType, directive::Directive};
use crate::{
    field::{FieldPath, MOST_NAMES},
    projection::{self, quote_name},
    time::is_rfc3339,
};

const UNREADABLE: &str = "must be names separated by single dots, without blanks";

impl Payload {
    /// Returns all violations.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut found: Vec<Violation> = Vec::new();
        found.extend(self.unusable_id());
        found.extend(self.configuration.foreign_role());
        found.extend(self.unreadable_paths());
        for (filter, conditions) in self.filters.iter().map(|filter| &filter.conditions).enumerate() {
            found.extend(conditions.iter().enumerate().filter_map(|(index, condition)| {
                let pointer = format!("/payload/filters/{filter}/conditions/{index}/value");
                Some(Violation::new(pointer, condition.unfit_value()?))
            }));
        }
        found.extend(missing_members("/payload", &self.transformations));
        found.extend(clashes(&self.directives().collect::<Vec<_>>()));
        if let Some(sample) = &self.sample_event {
            found.extend(projection::violations(self.directives(), sample));
        }
        found
    }

    /// Finds invalid field paths.
    fn unreadable_paths(&self) -> impl Iterator<Item = Violation> {
        let conditions = self.filters.iter().enumerate().flat_map(|(filter, one)| {
            unreadable_conditions(format!("/payload/filters/{filter}/conditions"), &one.conditions)
        });
        let directives = self.directives().flat_map(|one| unreadable_directive(&one));
        conditions.chain(directives).chain(unreadable_entries("/payload", &self.transformations))
    }

    fn unusable_id(&self) -> Option<Violation> {
        let is_dots = matches!(self.source_id.as_str(), "." | "..");
        is_dots.then(|| Violation::new("/payload/sourceId", "an address cannot name . or ..: choose another id"))
    }
}

/// Finds invalid field paths in the conditions at `place`.
fn unreadable_conditions(place: String, conditions: &[Condition]) -> impl Iterator<Item = Violation> {
    let unreadable = conditions.iter().enumerate().filter(|(_, one)| FieldPath::parse(&one.field).is_none());
    unreadable.map(move |(index, _)| Violation::new(format!("{place}/{index}/field"), UNREADABLE))
}

/// Finds an invalid source or target of a directive.
pub(crate) fn unreadable_directive(one: &Directive<'_>) -> Vec<Violation> {
    let members = [(one.source_member, one.source), (one.target_member, one.target)];
    let unreadable = members.into_iter().filter(|(_, field)| FieldPath::parse(field).is_none());
    unreadable.map(|(member, _)| Violation::new(format!("{}/{member}", one.pointer), UNREADABLE)).collect()
}

/// Finds invalid paths into the entries of lists.
pub(crate) fn unreadable_entries(place: &str, transformations: &[Transformation]) -> impl Iterator<Item = Violation> {
    let is_unreadable =
        |one: &Transformation| one.path.as_deref().is_some_and(|path| FieldPath::inside_entries(path).is_none());
    let unreadable = transformations.iter().enumerate().filter(move |(_, one)| is_unreadable(one));
    unreadable.map(move |(index, _)| {
        let message = "must be [] and names with single dots before them, without blanks and brackets, e.g. [].user.id";
        Violation::new(format!("{place}/transformations/{index}/path"), message)
    })
}

/// Finds members that transformations need but do not have.
fn missing_members(place: &str, transformations: &[Transformation]) -> impl Iterator<Item = Violation> {
    transformations.iter().enumerate().filter_map(move |(index, one)| {
        let (member, message) = one.missing_member()?;
        Some(Violation::new(format!("{place}/transformations/{index}/{member}"), message))
    })
}

impl Configuration {
    /// Finds a role of another account. An ARN is `arn:partition:service:region:account:resource`.
    fn foreign_role(&self) -> Option<Violation> {
        let account = self.role_arn.split(':').nth(4)?;
        let is_account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        let can_be_told = is_account(&self.aws_account_id) && is_account(account);
        (can_be_told && account != self.aws_account_id).then(|| {
            let message = format!("is a role of account {account}, not of awsAccountId {}", self.aws_account_id);
            Violation::new("/payload/configuration/roleArn", message)
        })
    }
}

impl Condition {
    fn unfit_value(&self) -> Option<&'static str> {
        match self.operator {
            Operator::In if self.value.as_array().is_none_or(Vec::is_empty) => {
                Some("operator in takes a list with at least one entry")
            }
            Operator::Gte | Operator::Lte if !is_number_or_time(&self.value) => {
                Some("operators gte and lte take a number or an RFC 3339 time, e.g. 2026-11-20T12:00:00Z")
            }
            Operator::Eq | Operator::Neq | Operator::In | Operator::Gte | Operator::Lte | Operator::Unknown => None,
        }
    }
}

fn is_number_or_time(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(is_rfc3339)
}

impl Transformation {
    fn missing_member(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            TransformationType::Extract if self.path.is_none() => {
                Some(("path", "required with type extract, and missing: what to take out of each entry, e.g. [].id"))
            }
            TransformationType::Transform if self.format.is_none() => {
                Some(("format", "required with type transform, and missing: iso8601"))
            }
            TransformationType::Direct
            | TransformationType::Extract
            | TransformationType::Transform
            | TransformationType::Unknown => None,
        }
    }
}

/// Finds targets that conflict with an earlier one, because one is equal to or inside the other, and targets that are
/// too deep.
pub(crate) fn clashes<'a>(directives: &[Directive<'a>]) -> Vec<Violation> {
    let mut taken = HashMap::new();
    let mut around = HashMap::new();
    let clash = |(index, directive): (usize, &Directive<'a>)| {
        let target = FieldPath::parse(directive.target)?;
        let pointer = format!("{}/{}", directive.pointer, directive.target_member);
        if target.names().count() > MOST_NAMES {
            return Some(Violation::new(pointer, format!("a target has at most {MOST_NAMES} names")));
        }
        let earlier = target.beginnings().find_map(|path| taken.get(path)).or_else(|| around.get(target.as_str()));
        let message = earlier.map(|earlier: &usize| {
            let Directive { pointer, target_member, target, .. } = &directives[*earlier];
            format!("clashes with the target {} at {pointer}/{target_member}", quote_name(target))
        });
        taken.entry(target.as_str()).or_insert(index);
        for outer in target.beginnings() {
            around.entry(outer).or_insert(index);
        }
        Some(Violation::new(pointer, message?))
    };
    directives.iter().enumerate().filter_map(clash).collect()
}
