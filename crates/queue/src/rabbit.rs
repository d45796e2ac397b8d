//! The queue on `RabbitMQ` (SPEC 6.1).
//!
//! Two connections, one to consume and one to publish, each with a supervisor that runs sessions on it, one after the
//! other ([`session`]). A third, if there are replies ([`reply_sender`]), may fail without consequences. The names of
//! exchanges and queues are in [`crate::topology`].
//!
//! ```text
//! queue ─┬─ session ─ consume ─ kind_consumer ─ buffer ─ settle     deliveries and their settlement
//!        │                    │                          acknowledge: one frame for many
//!        │                    ├ lock, counts, topology_check, unknown_kinds
//!        ├─ session ─ publish ─ unconfirmed                         publications and their confirms
//!        └─ reply_sender ─ replies
//! inspect, browse, dead_letters, examine, event_follower, control   the operator's tool, and the fleet
//! connect ─ guard, socket, certificates                             a connection that survives any message
//! ```

mod acknowledge;
mod amqp_handshake;
mod browse;
mod buffer;
mod certificates;
mod connect;
mod consume;
mod control;
mod convert;
mod counts;
mod dead_letters;
mod declare;
mod delays;
mod depth;
mod error;
mod event_follower;
mod examine;
mod flow;
mod guard;
mod headers;
mod health;
mod inspect;
mod kind_consumer;
mod link;
mod lock;
mod missing;
mod origin;
mod outgoing_message;
mod publish;
mod publisher;
mod queue;
mod recent;
mod replies;
mod reply_sender;
mod session;
mod settings;
mod settle;
mod shared;
mod size_limit;
mod socket;
#[cfg(test)]
mod tests;
mod topology_check;
mod unconfirmed;
mod unknown_kinds;

pub use self::{
    amqp_handshake::BrokerIdentity,
    control::ControlChannel,
    declare::TopologyComparison,
    event_follower::FollowedEvent,
    examine::{BrokerExaminer, HostConnection, MessageAcceptance},
    inspect::RabbitInspector,
    queue::RabbitQueue,
    recent::{Recent, RecentDelivery},
    replies::{ReplyDropReason, names::ReplyTo},
    settings::{BrokerAddress, ClientIdentity, RabbitSettings, TopologyMode},
};
pub(crate) use self::{
    buffer::DeliveryBuffer,
    dead_letters::{RabbitBrowser, RabbitDeadLetters},
    event_follower::RabbitEventFollower,
};
