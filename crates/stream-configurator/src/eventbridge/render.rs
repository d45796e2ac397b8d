//! The AWS side: converts a rule's conditions and directives to an event pattern and an input transformer of Amazon
//! `EventBridge`, and finds those that `EventBridge` cannot express. Pure.

use genfleet_core::job::Violation;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::payload::{Payload, Rule};
use crate::{
    field::FieldPath,
    payload::{
        Transformation, TransformationType,
        directive::{Directive, Makes},
    },
    projection::Node,
};

mod matcher;
#[cfg(test)]
mod tests;

/// The path of an event's fields.
const ROOT: &str = "$.detail.eventBody";
/// Maximum number of characters of a pattern.
const MAX_PATTERN: usize = 2048;
/// Maximum number of paths of a transformer.
const MAX_PATHS: usize = 100;
/// Maximum number of characters of a path.
const MAX_PATH: usize = 256;
/// Maximum number of characters of a template.
const MAX_TEMPLATE: usize = 8192;
/// An id as long as that of any organisation.
const SOME_ORGANIZATION: &str = "00000000-0000-0000-0000-000000000000";

/// A rule of an event bus, in the format of `aws events`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AwsRule {
    /// Names the rule.
    pub name: String,
    /// The value of `--event-pattern` in `aws events put-rule`.
    pub event_pattern: Map<String, Value>,
    /// The `InputTransformer` of a target; null if the rule does not transform events.
    pub(crate) input_transformer: Option<InputTransformer>,
}

/// The input that a target gets instead of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InputTransformer {
    /// The paths of the template's variables.
    pub input_paths_map: Map<String, Value>,
    /// The template.
    pub input_template: String,
}

/// Returns the name of the event source in AWS.
pub(crate) fn event_source(organization: &str, suffix: &str) -> String {
    format!("aws.partner/genesys.com/cloud/{organization}/{suffix}")
}

impl AwsRule {
    /// Creates the AWS rule for `rule`, which passes every check, for events of `source`.
    pub(crate) fn of(rule: &Rule, payload: &Payload, source: &str) -> Self {
        let mut event_pattern = Map::new();
        event_pattern.insert("source".to_owned(), json!([source]));
        event_pattern.insert("detail-type".to_owned(), rule.topics(&payload.topics).into());
        let (body, _) = matcher::event_body("", &rule.conditions);
        if body.as_object().is_some_and(|members| !members.is_empty()) {
            event_pattern.insert("detail".to_owned(), json!({ "eventBody": body }));
        }
        Self { name: rule.name.clone(), event_pattern, input_transformer: InputTransformer::of(rule) }
    }
}

impl InputTransformer {
    fn of(rule: &Rule) -> Option<Self> {
        let mut input_paths_map = Map::new();
        let mut template = Node::empty();
        for directive in rule.directives("") {
            let Some(path) = path(&directive) else { continue };
            let variable = format!("v{}", input_paths_map.len());
            template.put(FieldPath::parse(directive.target), variable.clone());
            input_paths_map.insert(variable, path.into());
        }
        if input_paths_map.is_empty() {
            return None;
        }
        let mut input_template = String::new();
        write(&template, &mut input_template);
        Some(Self { input_paths_map, input_template })
    }
}

/// Returns the path of a directive's value in the notation of `EventBridge`; `None` if the directive is invalid.
fn path(directive: &Directive<'_>) -> Option<String> {
    let member = |name: &str| if is_number(name) { format!("[{name}]") } else { format!(".{name}") };
    let below = |path: FieldPath<'_>| path.names().map(member).collect::<String>();
    let source = below(FieldPath::parse(directive.source)?);
    match directive.makes? {
        Makes::Copy => Some(format!("{ROOT}{source}")),
        Makes::Entries(inner) => Some(format!("{ROOT}{source}[*]{}", below(inner))),
        Makes::Iso8601 => None,
    }
}

/// Writes JSON with a variable at each leaf. A name cannot contain `<`, which would begin a variable.
fn write(node: &Node<'_, String>, text: &mut String) {
    match node {
        Node::Leaf(variable) => {
            text.push('<');
            text.push_str(variable);
            text.push('>');
        }
        Node::Branch(members) => {
            text.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                let name = Value::from(*name).to_string();
                text.push_str(&name.replace('<', "\\u003c").replace('>', "\\u003e"));
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
    }
}

/// Finds the parts of `rule`, at `place`, that AWS cannot express.
pub(crate) fn violations(place: &str, rule: &Rule, payload: &Payload) -> Vec<Violation> {
    let (_, mut found) = matcher::event_body(place, &rule.conditions);
    found.extend(rule.transformations.iter().enumerate().filter_map(|(index, one)| {
        let (member, message) = impossible(one)?;
        Some(Violation::new(format!("{place}/transformations/{index}/{member}"), message))
    }));
    found.extend(rule.directives(place).filter_map(|directive| unfindable(&directive)));
    found.extend(out_of_bounds(place, rule, payload));
    found
}

/// Returns the part of a transformation that AWS cannot do.
fn impossible(one: &Transformation) -> Option<(&'static str, &'static str)> {
    if one.kind == TransformationType::Transform {
        let message = "EventBridge cannot write a time in another format: use type direct, and let the target do it";
        return Some(("type", message));
    }
    let inner = FieldPath::inside_entries(one.path.as_deref()?)?;
    let is_findable = inner.names().all(|name| is_plain(name) && !is_number(name));
    (!is_findable)
        .then_some(("path", "EventBridge finds only names of A-Z, a-z, 0-9, _ and - in an entry, and no numbers"))
}

/// Returns the violation of a source that AWS cannot find.
fn unfindable(directive: &Directive<'_>) -> Option<Violation> {
    let at_source = |message| Violation::new(format!("{}/{}", directive.pointer, directive.source_member), message);
    if FieldPath::parse(directive.source).is_some_and(|path| !path.names().all(is_plain)) {
        return Some(at_source("EventBridge finds only names of A-Z, a-z, 0-9, _ and -".to_owned()));
    }
    let characters = path(directive)?.chars().count();
    (characters > MAX_PATH)
        .then(|| at_source(format!("is a path of {characters} characters in AWS, which takes {MAX_PATH}")))
}

fn out_of_bounds(place: &str, rule: &Rule, payload: &Payload) -> Vec<Violation> {
    let source = event_source(SOME_ORGANIZATION, &payload.event_source_suffix);
    let made = AwsRule::of(rule, payload, &source);
    let pattern = Value::Object(made.event_pattern).to_string().chars().count();
    let (paths, template) = made
        .input_transformer
        .map_or((0, 0), |transformer| (transformer.input_paths_map.len(), transformer.input_template.chars().count()));
    let bounds = [
        (pattern, MAX_PATTERN, "event pattern", "characters", "name fewer topics, or have fewer conditions"),
        (paths, MAX_PATHS, "input transformer", "paths", "have fewer transformations and mappings"),
        (template, MAX_TEMPLATE, "input template", "characters", "have fewer or shorter targets"),
    ];
    let exceeded = bounds.into_iter().filter(|(found, most, ..)| found > most);
    let violation = |(found, most, what, unit, remedy)| {
        Violation::new(place, format!("the {what} has {found} {unit}; AWS takes {most}: {remedy}"))
    };
    exceeded.map(violation).collect()
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}
