//! The rules of a payload that no schema can state, each with the place it is broken at. Pure.

use std::collections::HashMap;

use genfleet_core::job::Violation;
use serde_json::Value;

use super::{Condition, Configuration, Operator, Payload, Transformation, TransformationType, directive::Directive};
use crate::{
    field::{FieldPath, MOST_NAMES},
    projection::{self, shown},
    time::is_rfc3339,
};

impl Payload {
    /// Everything that breaks a rule.
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
        found.extend(self.transformations.iter().enumerate().filter_map(|(index, one)| {
            let (member, message) = one.missing_member()?;
            Some(Violation::new(format!("/payload/transformations/{index}/{member}"), message))
        }));
        found.extend(clashes(&self.directives().collect::<Vec<_>>()));
        if let Some(sample) = &self.sample_event {
            found.extend(projection::violations(self.directives(), sample));
        }
        found
    }

    /// Every field that is not named as fields are.
    fn unreadable_paths(&self) -> impl Iterator<Item = Violation> {
        let message = "must be names separated by single dots, without blanks";
        let conditions = self.filters.iter().enumerate().flat_map(|(filter, one)| {
            let conditions = one.conditions.iter().enumerate();
            conditions.map(move |(at, one)| (format!("/payload/filters/{filter}/conditions/{at}/field"), &one.field))
        });
        let directives = self.directives().flat_map(|one| {
            let at = |member: &str| format!("{}/{member}", one.pointer);
            [(at(one.source_member), one.source), (at(one.target_member), one.target)]
        });
        let fields = conditions.map(|(at, field)| (at, field.as_str())).chain(directives);
        let unreadable = fields.filter(|(_, field)| FieldPath::parse(field).is_none());
        let entries = self.transformations.iter().enumerate().filter_map(|(index, one)| {
            let unreadable = one.path.as_deref().is_some_and(|path| FieldPath::inside_entries(path).is_none());
            let message =
                "must be [] and names with single dots before them, without blanks and brackets, e.g. [].user.id";
            unreadable.then(|| Violation::new(format!("/payload/transformations/{index}/path"), message))
        });
        unreadable.map(move |(at, _)| Violation::new(at, message)).chain(entries)
    }

    fn unusable_id(&self) -> Option<Violation> {
        let is_dots = matches!(self.source_id.as_str(), "." | "..");
        is_dots.then(|| Violation::new("/payload/sourceId", "an address cannot name . or ..: choose another id"))
    }
}

impl Configuration {
    /// An ARN is `arn:partition:service:region:account:resource`.
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

/// Targets that are where an earlier one is, inside one, or around one; and those too deep to be written.
fn clashes<'a>(directives: &[Directive<'a>]) -> Vec<Violation> {
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
            format!("clashes with the target {} at {pointer}/{target_member}", shown(target))
        });
        taken.entry(target.as_str()).or_insert(index);
        for outer in target.beginnings() {
            around.entry(outer).or_insert(index);
        }
        Some(Violation::new(pointer, message?))
    };
    directives.iter().enumerate().filter_map(clash).collect()
}
