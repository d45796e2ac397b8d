//! The reasons why a message on the fleet's exchange is rejected.

use std::fmt;

/// The reason why a message is rejected; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MessageRejection {
    /// It has no signature: sent by an older version, or by anybody.
    Unsigned,
    /// The signature is not our client's.
    Forged,
    /// It was received before.
    Replayed,
    /// Nothing proves yet that it is no replay.
    Unproven,
    /// It is signed, but this version cannot read it.
    Senseless,
}

impl MessageRejection {
    pub(crate) const ALL: [Self; 5] = [Self::Unsigned, Self::Forged, Self::Replayed, Self::Unproven, Self::Senseless];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Unproven => "unproven",
            Self::Senseless => "senseless",
        }
    }
}

impl fmt::Display for MessageRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
