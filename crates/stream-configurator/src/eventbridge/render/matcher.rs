//! Converts conditions to the part of an event pattern below `eventBody`. In a pattern, all members must match, and in
//! the list of a member any entry: so two conditions on one field can be combined only if both limit a number.

use std::collections::HashMap;

use genfleet_core::job::Violation;
use serde_json::{Number, Value, json};

use super::is_number;
use crate::{
    field::FieldPath,
    payload::{Condition, Operator},
    projection::{Node, quote_name},
};

/// Maximum absolute value of numbers that `EventBridge` compares.
const MAX_NUMBER: f64 = 5.0e9;

/// The values that a field has to match.
#[derive(Debug)]
enum Matcher<'a> {
    /// Any of these values.
    Any(Value),
    Range {
        least: Option<&'a Number>,
        most: Option<&'a Number>,
    },
}

/// A field with conditions.
#[derive(Debug)]
struct Field<'a> {
    path: FieldPath<'a>,
    matcher: Matcher<'a>,
    /// Index of the first condition on it.
    index: usize,
}

/// Returns the pattern of the `conditions` in the rule at `place`, and the conditions that no pattern can express.
pub(super) fn event_body(place: &str, conditions: &[Condition]) -> (Value, Vec<Violation>) {
    let (mut fields, mut found) = (Vec::<Field<'_>>::new(), Vec::new());
    let (mut taken, mut around) = (HashMap::new(), HashMap::new());
    for (index, condition) in conditions.iter().enumerate() {
        let at = |member: &str| format!("{place}/conditions/{index}/{member}");
        let path = match field(&condition.field) {
            Ok(path) => path,
            Err(message) => {
                found.push(Violation::new(at("field"), message));
                continue;
            }
        };
        let matcher = match Matcher::of(condition) {
            Ok(Some(matcher)) => matcher,
            Ok(None) => continue,
            Err(message) => {
                found.push(Violation::new(at("value"), message));
                continue;
            }
        };
        if let Some(known) = taken.get(path.as_str()).copied() {
            let field: &mut Field<'_> = &mut fields[known];
            if let Err(message) = field.matcher.join(matcher) {
                let earlier = format!("{place}/conditions/{}", field.index);
                found.push(Violation::new(format!("{place}/conditions/{index}"), format!("{message} ({earlier})")));
            }
            continue;
        }
        let outer = path.beginnings().find_map(|path| taken.get(path).copied());
        if let Some(earlier) = outer.or_else(|| around.get(path.as_str()).copied()) {
            let Field { path, index: earlier, .. } = &fields[earlier];
            let message = format!(
                "lies inside or around the field {} of {place}/conditions/{earlier}: a pattern can match one of them",
                quote_name(path.as_str())
            );
            found.push(Violation::new(at("field"), message));
            continue;
        }
        taken.insert(path.as_str(), fields.len());
        for outer in path.beginnings() {
            around.entry(outer).or_insert(fields.len());
        }
        fields.push(Field { path, matcher, index });
    }
    let mut body = Node::empty();
    for Field { path, matcher, .. } in fields {
        body.put(Some(path), matcher.into_json());
    }
    (serde_json::to_value(body).unwrap_or_default(), found)
}

fn field(written: &str) -> Result<FieldPath<'_>, &'static str> {
    let path = FieldPath::parse(written).ok_or("must be names separated by single dots, without blanks")?;
    if path.names().any(is_number) {
        return Err("EventBridge matches any entry of a list: leave the number out");
    }
    if path.names().any(|name| name.starts_with('$')) {
        return Err("EventBridge keeps names that begin with $ for itself: such a field cannot be matched");
    }
    Ok(path)
}

impl<'a> Matcher<'a> {
    /// Converts a condition; `None` if its operator is invalid by the schema.
    fn of(condition: &'a Condition) -> Result<Option<Self>, String> {
        let value = &condition.value;
        let is_leaf = |value: &Value| !value.is_array() && !value.is_object();
        match condition.operator {
            Operator::Eq if is_leaf(value) => Ok(Some(Self::Any(json!([value])))),
            Operator::Eq => Err("operator eq takes a text, a number, true, false or null, for EventBridge".to_owned()),
            Operator::Neq if value.is_string() || value.is_number() => {
                Ok(Some(Self::Any(json!([{ "anything-but": [value] }]))))
            }
            Operator::Neq => Err("operator neq takes a text or a number, for EventBridge".to_owned()),
            Operator::In => match value.as_array().filter(|entries| !entries.is_empty()) {
                Some(entries) if entries.iter().all(is_leaf) => Ok(Some(Self::Any(value.clone()))),
                Some(_) => Err("operator in takes texts, numbers, true, false and null, for EventBridge".to_owned()),
                None => Err("operator in takes a list with at least one entry".to_owned()),
            },
            Operator::Gte => Ok(Some(Self::Range { least: Some(parse_bound(value)?), most: None })),
            Operator::Lte => Ok(Some(Self::Range { least: None, most: Some(parse_bound(value)?) })),
            Operator::Unknown => Ok(None),
        }
    }

    /// Combines two conditions on one field.
    fn join(&mut self, other: Self) -> Result<(), &'static str> {
        let (Self::Range { least, most }, Self::Range { least: new_least, most: new_most }) = (self, other) else {
            return Err("EventBridge takes one condition on a field, or one gte and one lte: put it into another rule");
        };
        if (least.is_some() && new_least.is_some()) || (most.is_some() && new_most.is_some()) {
            return Err("the field has a condition with this operator already");
        }
        let (least_now, most_now) = (least.or(new_least), most.or(new_most));
        if let (Some(least), Some(most)) = (least_now, most_now)
            && least.as_f64() > most.as_f64()
        {
            return Err("no number is that large and that small: gte is above lte");
        }
        (*least, *most) = (least_now, most_now);
        Ok(())
    }

    fn into_json(self) -> Value {
        match self {
            Self::Any(values) => values,
            Self::Range { least: Some(least), most: Some(most) } if least.as_f64() == most.as_f64() => {
                json!([{ "numeric": ["=", least] }])
            }
            Self::Range { least, most } => {
                let bounds = [(">=", least), ("<=", most)].into_iter().filter_map(|(sign, bound)| Some((sign, bound?)));
                let written: Vec<Value> = bounds.flat_map(|(sign, bound)| [json!(sign), json!(bound)]).collect();
                json!([{ "numeric": written }])
            }
        }
    }
}

fn parse_bound(value: &Value) -> Result<&Number, String> {
    let Value::Number(number) = value else {
        return Err("EventBridge compares numbers only, not times: operators gte and lte take a number".to_owned());
    };
    let is_comparable = number.as_f64().is_some_and(|number| number.abs() <= MAX_NUMBER);
    is_comparable.then_some(number).ok_or_else(|| "EventBridge compares numbers from -5e9 to 5e9".to_owned())
}
