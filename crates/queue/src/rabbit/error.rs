//! Describes and classifies errors of the broker and of the connection to it.

use std::borrow::Borrow;

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use crate::message::{ACCESS_REFUSED, QueueError};

/// Describes an error in a sentence. If the broker refused the credentials, the sentence says so.
pub(super) fn describe(error: impl Borrow<lapin::Error>) -> String {
    let error = error.borrow();
    match error.kind() {
        ErrorKind::ParsingError(_) => "the broker sent what cannot be read".to_owned(),
        ErrorKind::ProtocolError(refusal) => match refusal.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                format!("{ACCESS_REFUSED}; check user, password and rights: {}", refusal.get_message())
            }
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => refusal.get_message().to_string(),
        },
        _ => error.to_string(),
    }
}

/// Returns the code and message of the refusal that closed a channel; `None` for other errors.
pub(super) fn refusal(error: &lapin::Error) -> Option<(&AMQPSoftError, &str)> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    match refusal.kind() {
        AMQPErrorKind::Soft(kind) => Some((kind, refusal.get_message().as_str())),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// Returns true if the broker closed a channel with the code `kind`.
pub(super) fn is_refusal(error: &lapin::Error, kind: &AMQPSoftError) -> bool {
    refusal(error).is_some_and(|(refused, _)| refused == kind)
}

/// Converts an error of lapin for the caller of an inspection.
pub(super) fn queue_error(error: impl Borrow<lapin::Error>) -> QueueError {
    let error = error.borrow();
    if is_refusal(error, &AMQPSoftError::NOTFOUND) {
        QueueError::Missing(describe(error))
    } else {
        QueueError::Broker(describe(error))
    }
}
