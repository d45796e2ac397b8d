//! Names the parts of a schema, so that code generators make types of them: each object and each enumeration moves to
//! `$defs` under its title, or under a name derived from its member.

use serde_json::{Map, Value, json};

const PLACE: &str = "#/$defs/";

/// Names the parts of `schema`; names derived from members begin with `prefix`.
pub(super) fn name_parts(mut schema: Value, prefix: &str) -> Value {
    let mut names = SchemaNames { prefix, found: Map::new() };
    names.inside(&mut schema, prefix, "", SchemaRole::Shape);
    move_rules(&mut schema);
    if !names.found.is_empty() {
        schema["$defs"] = Value::Object(names.found);
    }
    schema
}

/// Moves `schema` and its parts into another document, whose schemas are at `place`.
pub(super) fn move_parts(mut schema: Value, place: &str, schemas: &mut Map<String, Value>) -> Value {
    let members = schema.as_object_mut();
    let parts = members.and_then(|members| members.shift_remove("$defs")).unwrap_or_default();
    let name = pascal(schema["title"].as_str().unwrap_or_default());
    let all = parts.as_object().cloned().unwrap_or_default().into_iter().chain([(name.clone(), schema)]);
    for (name, mut part) in all {
        refer(&mut part, place);
        schemas.insert(name, part);
    }
    json!({ "$ref": format!("{place}{name}") })
}

/// Joins words to one name: `cdn.purge job` becomes `CdnPurgeJob`.
pub(super) fn pascal(words: &str) -> String {
    let words = words.split(|each: char| !each.is_ascii_alphanumeric());
    words
        .flat_map(|word| word.chars().take(1).map(|first| first.to_ascii_uppercase()).chain(word.chars().skip(1)))
        .collect()
}

fn refer(schema: &mut Value, place: &str) {
    match schema {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix(PLACE) {
                *text = format!("{place}{name}");
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|each| refer(each, place)),
        Value::Object(members) => members.values_mut().for_each(|each| refer(each, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The role of a schema.
#[derive(Clone, Copy, PartialEq)]
enum SchemaRole {
    /// It defines a type.
    Shape,
    /// It states a further rule; only parts with a title are types.
    Rule,
}

struct SchemaNames<'a> {
    prefix: &'a str,
    found: Map<String, Value>,
}

impl SchemaNames<'_> {
    /// Names `schema`, the value of `member` of `parent`, and its parts.
    fn name(&mut self, schema: &mut Value, parent: &str, member: &str, part: SchemaRole) {
        let title = schema["title"].as_str().map(str::to_owned);
        let has_title = title.is_some();
        let name = title.unwrap_or_else(|| match member {
            "type" => format!("{parent}Type"),
            member => format!("{}{}", self.prefix, pascal(member)),
        });
        if part == SchemaRole::Rule && !has_title {
            return self.inside(schema, &name, member, part);
        }
        self.inside(schema, &name, member, SchemaRole::Shape);
        move_rules(schema);
        write_as_not(schema);
        let is_optional = take_null(schema);
        enumerate(schema);
        let default = schema.as_object_mut().and_then(|members| members.shift_remove("default"));
        if is_object(schema) || is_choice(schema) {
            *schema = self.define(schema.take(), name, parent);
        }
        if is_optional {
            or_null(schema);
        }
        if let Some(default) = default {
            schema["default"] = default;
        }
    }

    fn inside(&mut self, schema: &mut Value, name: &str, member: &str, part: SchemaRole) {
        let Some(members) = schema.as_object_mut() else { return };
        for (keyword, inner) in members {
            match (keyword.as_str(), inner) {
                ("properties", Value::Object(properties)) => {
                    for (property, schema) in properties {
                        self.name(schema, name, property, part);
                    }
                }
                ("items", inner) => self.name(inner, name, member.strip_suffix('s').unwrap_or(member), part),
                ("anyOf" | "oneOf", Value::Array(branches)) => {
                    for branch in branches {
                        self.name(branch, name, member, part);
                    }
                }
                ("allOf", Value::Array(rules)) => {
                    for rule in rules {
                        self.inside(rule, name, member, SchemaRole::Rule);
                    }
                }
                ("if" | "then" | "else" | "not", rule) => self.inside(rule, name, member, SchemaRole::Rule),
                _ => {}
            }
        }
    }

    /// Moves `schema` to the named parts; returns a reference to it.
    fn define(&mut self, mut schema: Value, name: String, parent: &str) -> Value {
        let is_other = |found: &Value| {
            [found, &schema].map(|one| (&one["properties"], &one["enum"])).windows(2).any(|pair| pair[0] != pair[1])
        };
        let name = if self.found.get(&name).is_some_and(is_other) {
            format!("{parent}{}", &name[self.prefix.len()..])
        } else {
            name
        };
        if !self.found.contains_key(&name) {
            let mut titled = Map::from_iter([("title".to_owned(), Value::from(name.as_str()))]);
            let mut members = schema.as_object_mut().map(std::mem::take).unwrap_or_default();
            if let Some(Value::Object(parts)) = members.shift_remove("$defs") {
                self.found.extend(parts);
            }
            titled.extend(members.into_iter().filter(|(member, _)| member != "title"));
            self.found.insert(name.clone(), Value::Object(titled));
        }
        json!({ "$ref": format!("{PLACE}{name}") })
    }
}

fn is_object(schema: &Value) -> bool {
    schema["type"] == "object" && schema["properties"].is_object()
}

/// Returns true if it is an enumeration of strings.
fn is_choice(schema: &Value) -> bool {
    schema["enum"].as_array().is_some_and(|words| words.iter().all(Value::is_string))
}

/// Removes `null` from the types that `schema` allows. Returns true if it must be added beside a named type.
fn take_null(schema: &mut Value) -> bool {
    let allows_null = schema["type"].as_array().is_some_and(|types| types.iter().any(|one| one == "null"))
        || ["enum", "oneOf"]
            .iter()
            .any(|keyword| schema[*keyword].as_array().is_some_and(|all| all.iter().any(is_null)));
    let has_type_of_its_own =
        schema["properties"].is_object() || schema["enum"].is_array() || schema["oneOf"].is_array();
    if !allows_null || !has_type_of_its_own {
        return false;
    }
    for keyword in ["type", "enum", "oneOf"] {
        let Some(all) = schema.get_mut(keyword).and_then(Value::as_array_mut) else { continue };
        all.retain(|one| !is_null(one) && one != "null");
        if let ("type", [only]) = (keyword, all.as_slice()) {
            schema[keyword] = only.clone();
        }
    }
    true
}

fn is_null(schema: &Value) -> bool {
    schema.is_null() || schema["type"] == "null"
}

/// Moves further rules to keywords that code generators do not take for types.
fn move_rules(schema: &mut Value) {
    let Some(members) = schema.as_object_mut().filter(|members| !members.contains_key("if")) else { return };
    let Some(Value::Array(mut rules)) = members.shift_remove("allOf") else { return };
    match rules.as_mut_slice() {
        [Value::Object(rule)] if rule.contains_key("if") => members.append(rule),
        _ => members.extend([("if".to_owned(), true.into()), ("then".to_owned(), json!({ "allOf": rules }))]),
    }
}

/// Rewrites "only true" or "only false" as "not the other".
fn write_as_not(schema: &mut Value) {
    let [Value::Bool(only), Value::Null] = schema["enum"].as_array().map_or(&[][..], Vec::as_slice) else { return };
    let other = !only;
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("enum");
        members.insert("not".to_owned(), json!({ "const": other }));
    }
}

/// Rewrites constants that each have a schema of their own as an enumeration.
fn enumerate(schema: &mut Value) {
    let words =
        |branches: &Vec<Value>| branches.iter().map(|one| one.get("const").cloned()).collect::<Option<Vec<_>>>();
    if let Some(branches) = schema["oneOf"].as_array().cloned()
        && let Some(words) = words(&branches)
    {
        let lines = branches
            .iter()
            .filter_map(|one| Some(format!("\n- `{}`: {}", one["const"].as_str()?, one["description"].as_str()?)));
        let description = schema["description"].as_str().unwrap_or_default().to_owned() + &lines.collect::<String>();
        if let Some(members) = schema.as_object_mut() {
            members.shift_remove("oneOf");
        }
        (schema["type"], schema["description"], schema["enum"]) = ("string".into(), description.into(), words.into());
    }
    if is_choice(schema) {
        schema["type"] = "string".into();
    }
}

fn or_null(schema: &mut Value) {
    let mut outer = Map::new();
    if let Some(inner) = schema.as_object_mut() {
        outer.extend(inner.shift_remove("description").map(|description| ("description".to_owned(), description)));
    }
    outer.insert("anyOf".to_owned(), json!([schema.take(), { "type": "null" }]));
    *schema = Value::Object(outer);
}
