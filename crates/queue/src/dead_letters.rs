//! The dead letters: messages that no worker takes any more, and what their redrive publishes. How they are read and removed
//! is in [`crate::inspector`].

mod dead_letter;
mod stored;

pub(crate) use self::stored::{RabbitPlace, StoredPlace};
pub use self::{
    dead_letter::{DeadLetter, FOREIGN, UNKNOWN, UNROUTED},
    stored::{DeadLetterQueue, Death, Removal, StoredMessage},
};
