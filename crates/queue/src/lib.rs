//! The queue of a worker process: what comes out of it ([`Delivery`]) and what goes into it ([`Publication`]). Two
//! backends, `RabbitMQ` and an embedded `SQLite` file, keep the same promises (SPEC 6); `conformance` is the list of
//! them.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `message` | the vocabulary that both backends speak |
//! | `topology` | the names of exchanges and queues, and where each publication goes |
//! | `rabbit`, `sqlite` | the backends |
//! | `queue` | what the worker uses of either |
//! | `inspector`, `dead_letters` | what the operator's tool uses of either |

#[cfg(test)]
mod conformance;
pub mod dead_letters;
mod defect;
mod inspector;
mod message;
mod queue;
pub mod rabbit;
pub mod sqlite;
pub mod topology;
mod unsettled;

pub use self::{
    defect::MessageDefect,
    inspector::{Browser, EventFollower, QueueInspector, QueueLocation},
    message::{
        ACCESS_REFUSED, Delivery, Destination, Health, Publication, QueueError, Settle, Settled, TooLarge,
        UnknownKindMessage,
    },
    queue::{Consumer, Queue, Suspects, UnknownKinds},
};
