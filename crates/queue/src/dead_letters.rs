//! Dead letters: messages that no worker receives any more, and the publications of a redrive. [`crate::inspector`]
//! reads and removes them.

mod dead_letter;
mod stored;

pub(crate) use self::stored::{RabbitPlace, StoredPlace};
pub use self::{
    dead_letter::{DeadLetter, FOREIGN, OWN_REASONS},
    stored::{DeadLetterQueue, Death, Removal, StoredMessage},
};
