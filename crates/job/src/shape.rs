//! The shape of a job: its optional members and the limits of its lists. It is read from the schema and applied before
//! validation: `null` for an optional member is removed, and so is the excess of a list. Free-form parts (`metadata`, a
//! sample event) have no shape and are not changed.

use std::collections::HashMap;

use serde_json::Value;

use super::{MAX_ENTRIES, violation::Violation};

/// The shape of a value.
#[derive(Debug, Default)]
pub(super) struct Shape {
    members: HashMap<String, Member>,
    entries: Option<Box<Shape>>,
    most: Option<usize>,
}

#[derive(Debug)]
struct Member {
    shape: Shape,
    optional: bool,
}

impl Shape {
    /// Reads the shape from `schema`, which must not contain references.
    pub(super) fn of(schema: &Value) -> Self {
        let schema = branches(schema).find(|one| one.get("properties").or(one.get("items")).is_some());
        let Some(schema) = schema else { return Self::default() };
        let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let member = |(name, schema): (&String, &Value)| {
            (name.clone(), Member { shape: Self::of(schema), optional: !required(name) })
        };
        Self {
            members: schema["properties"].as_object().into_iter().flatten().map(member).collect(),
            entries: schema.get("items").map(|items| Box::new(Self::of(items))),
            most: schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()),
        }
    }

    /// Returns true if something could be removed from a value of this shape.
    fn can_trim(&self) -> bool {
        self.entries.is_some() || !self.members.is_empty()
    }

    /// Removes optional members that are `null`, and the excess entries of lists; returns a violation for each such
    /// list.
    pub(super) fn trim(&self, job: &mut Value) -> Vec<Violation> {
        let mut trimming = Trimming { at: String::new(), left: MAX_ENTRIES, found: Vec::new() };
        trimming.trim(self, job);
        trimming.found
    }
}

struct Trimming {
    at: String,
    /// The number of entries that lists may still have.
    left: usize,
    found: Vec<Violation>,
}

impl Trimming {
    fn trim(&mut self, shape: &Shape, value: &mut Value) {
        match (value, &shape.entries) {
            (Value::Object(members), _) => {
                members.retain(|name, value| {
                    !(value.is_null() && shape.members.get(name).is_some_and(|member| member.optional))
                });
                for (name, value) in members {
                    if let Some(member) = shape.members.get(name).filter(|member| member.shape.can_trim()) {
                        self.below(name, |this| this.trim(&member.shape, value));
                    }
                }
            }
            (Value::Array(entries), Some(shape_of_one)) => {
                self.shorten(shape.most, entries);
                if !shape_of_one.can_trim() {
                    return;
                }
                for (index, entry) in entries.iter_mut().enumerate() {
                    self.below(&index.to_string(), |this| this.trim(shape_of_one, entry));
                }
            }
            _ => {}
        }
    }

    fn shorten(&mut self, most: Option<usize>, entries: &mut Vec<Value>) {
        let found = entries.len();
        if let Some(most) = most.filter(|most| found > *most) {
            self.report(format!("must have at most {most} entries, found {found}"));
            entries.truncate(most);
        }
        if entries.len() > self.left {
            self.report(format!(
                "with this list, the lists of the payload have more than {MAX_ENTRIES} entries together"
            ));
            // An empty list would violate another rule.
            entries.truncate(self.left.max(1));
        }
        self.left = self.left.saturating_sub(entries.len());
    }

    fn report(&mut self, what: String) {
        self.found.push(Violation::new(self.at.as_str(), what));
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let length = self.at.len();
        self.at.push('/');
        self.at.push_str(name);
        look(self);
        self.at.truncate(length);
    }
}

/// Prepares `schema` for publication: an optional member may also be `null`.
pub(super) fn admit_null(schema: &mut Value) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &String| required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    for (name, member) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        admit_null(member);
        if !is_required(name) {
            or_null(member);
        }
    }
    for inner in ["items", "anyOf", "oneOf"] {
        match schema.get_mut(inner) {
            Some(Value::Array(branches)) => branches.iter_mut().for_each(admit_null),
            Some(one) => admit_null(one),
            None => {}
        }
    }
}

fn or_null(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(constant) = schema.remove("const") {
        schema.insert("enum".to_owned(), Value::Array(vec![constant]));
    }
    if let Some(kinds) = schema.get_mut("type").filter(|kinds| kinds.is_string()) {
        *kinds = Value::Array(vec![kinds.take()]);
    }
    let null_type = || serde_json::json!({ "type": "null" });
    for (keyword, null) in
        [("type", "null".into()), ("enum", Value::Null), ("oneOf", null_type()), ("anyOf", null_type())]
    {
        if let Some(Value::Array(all)) = schema.get_mut(keyword)
            && !all.contains(&null)
        {
            all.push(null);
        }
    }
}

/// An optional object is "this or null".
fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(schema).chain(schema["anyOf"].as_array().into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape() -> Shape {
        let list = |most: usize| json!({ "type": "array", "maxItems": most, "items": { "type": "string" } });
        let owner = json!({ "type": "object", "properties": { "name": { "type": ["string", "null"] } } });
        Shape::of(&json!({
            "required": ["payload"],
            "properties": {
                "id": { "type": "string" },
                "payload": {
                    "type": "object", "required": ["kept"],
                    "properties": {
                        "kept": {}, "short": list(2), "long": list(MAX_ENTRIES), "more": list(MAX_ENTRIES), "free": {},
                        "owner": { "anyOf": [owner, { "type": "null" }] },
                        "groups": { "type": "array", "items": { "type": "object", "properties": { "all": list(3) } } },
                    },
                },
            },
        }))
    }

    fn trimmed(job: &Value) -> (Value, Vec<String>) {
        let mut job = job.clone();
        let found = shape().trim(&mut job);
        (job, found.into_iter().map(|one| one.pointer).collect())
    }

    #[test]
    fn null_is_nothing_where_nothing_may_be_and_stays_elsewhere() {
        let (job, found) = trimmed(&json!({
            "id": null, "unknown": null,
            "payload": {
                "kept": null, "short": null, "free": { "a": null }, "owner": { "name": null },
                "groups": [{ "all": null }, null],
            },
        }));
        let payload = json!({ "kept": null, "free": { "a": null }, "owner": {}, "groups": [{}, null] });
        assert_eq!((job, found), (json!({ "unknown": null, "payload": payload }), vec![]));
        assert_eq!(trimmed(&json!({ "payload": null })).0, json!({ "payload": null }));
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_and_told() {
        let (job, found) = trimmed(&json!({
            "payload": { "short": ["a", "b", "c"], "groups": [{ "all": [] }, { "all": [1, 2, 3, 4, 5] }], "free": [1, 2, 3] },
        }));
        assert_eq!(found, ["/payload/short", "/payload/groups/1/all"]);
        assert_eq!(job["payload"]["short"], json!(["a", "b"]));
        assert_eq!(job["payload"]["groups"][1]["all"], json!([1, 2, 3]));
        assert_eq!(job["payload"]["free"], json!([1, 2, 3]));
    }

    #[test]
    fn lists_are_bounded_together_and_none_becomes_empty_by_that() {
        let list = |length: usize| json!(vec!["x"; length]);
        let together = |long: usize, more: usize| {
            let (job, found) =
                trimmed(&json!({ "payload": { "long": list(long), "more": list(more), "short": ["s"] } }));
            let left = ["long", "more", "short"].map(|name| job["payload"][name].as_array().unwrap().len());
            (found, left)
        };
        assert_eq!(together(4_000, 5_999), (vec![], [4_000, 5_999, 1]));
        assert_eq!(together(4_000, 6_001), (vec!["/payload/more".into(), "/payload/short".into()], [4_000, 6_000, 1]));
    }

    #[test]
    fn what_may_be_left_out_may_be_null_in_what_is_published() {
        let mut schema = json!({
            "type": "object", "required": ["kept"],
            "properties": {
                "kept": { "type": "string" }, "kind": { "const": "k" }, "choice": { "enum": ["a"] }, "any": {},
                "number": { "type": "integer", "minimum": 1 }, "known": { "type": ["string", "null"] },
                "one": { "oneOf": [{ "const": "a" }] },
                "inner": { "anyOf": [{ "properties": { "x": { "type": "string" } } }, { "type": "null" }] },
                "list": { "type": "array", "items": { "properties": { "y": { "type": "boolean" } } } },
            },
        });
        admit_null(&mut schema);
        assert_eq!(
            schema["properties"],
            json!({
                "kept": { "type": "string" }, "kind": { "enum": ["k", null] }, "choice": { "enum": ["a", null] }, "any": {},
                "number": { "type": ["integer", "null"], "minimum": 1 }, "known": { "type": ["string", "null"] },
                "one": { "oneOf": [{ "const": "a" }, { "type": "null" }] },
                "inner": { "anyOf": [{ "properties": { "x": { "type": ["string", "null"] } } }, { "type": "null" }] },
                "list": { "type": ["array", "null"], "items": { "properties": { "y": { "type": ["boolean", "null"] } } } },
            })
        );
    }
}
