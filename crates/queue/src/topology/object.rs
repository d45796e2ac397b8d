//! What a topology is made of, in the form of a definitions file. Names nothing: the names are in the parent.

use std::collections::BTreeMap;

use serde::Serialize;

/// An argument of an exchange or a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

/// Arguments by name.
pub(crate) type Arguments = BTreeMap<&'static str, Argument>;

/// The routing of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// By equal keys.
    Direct,
    /// To all that are bound.
    Fanout,
    /// By patterns of words.
    Topic,
}

/// An exchange; durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// The type of routing.
    #[serde(rename = "type")]
    pub routing: Routing,
    /// Always.
    pub durable: bool,
    /// Never.
    pub auto_delete: bool,
    /// Never: publishing to an internal exchange is refused.
    pub internal: bool,
    /// `alternate-exchange` or nothing.
    pub arguments: Arguments,
    /// How an earlier version declared it, if that was otherwise. Works as well, and cannot be changed in place.
    #[serde(skip)]
    pub former: Option<Former>,
}

/// Type and arguments of an exchange in an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The former type of routing.
    pub routing: Routing,
    /// The former arguments.
    pub arguments: Arguments,
}

impl Exchange {
    /// The exchange as an earlier version declared it, if that was otherwise.
    pub fn as_before(&self) -> Option<Self> {
        let Former { routing, arguments } = self.former.clone()?;
        Some(Self { routing, arguments, former: None, ..self.clone() })
    }
}

/// A queue; durable, quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Always.
    pub durable: bool,
    /// Never.
    pub auto_delete: bool,
    /// The arguments; see SPEC 6.1.
    pub arguments: Arguments,
}

/// The type of a binding's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A queue.
    Queue,
    /// Another exchange.
    Exchange,
}

/// A binding from an exchange to a queue or to another exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The exchange it leaves.
    pub source: String,
    /// The name of the destination.
    pub destination: String,
    /// The type of the destination.
    pub destination_type: Target,
    /// Key or pattern.
    pub routing_key: String,
    /// None.
    pub arguments: Arguments,
}

/// All objects of SPEC 6.1 under one prefix, in the order in which they can be declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Exchanges first: queues and bindings name them.
    pub exchanges: Vec<Exchange>,
    /// Then queues.
    pub queues: Vec<Queue>,
    /// Then bindings.
    pub bindings: Vec<Binding>,
}
