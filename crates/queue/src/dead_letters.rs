//! The dead letters: messages that no worker takes any more, and what their redrive publishes. How they are read and removed
//! is in [`crate::inspector`].

mod letter;
mod stored;

pub(crate) use self::stored::{RabbitPlace, StoredPlace};
pub use self::{
    letter::{DeadLetter, FOREIGN, UNKNOWN, UNROUTED},
    stored::{DeadLetterQueue, Death, Removal, StoredMessage},
};
