//! What is wrong with the properties of a message, so that it could not be handed over as it came.

use std::fmt;

/// Tables and arrays inside each other in the headers of a message, at most.
pub(crate) const MAX_HEADER_DEPTH: usize = 16;
/// Values in the headers of a message, at any depth, at most.
pub(crate) const MAX_HEADER_VALUES: usize = 1_024;

/// Why a message is `undecodable` whatever its body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageDefect {
    /// A property, the routing key or the name of a header is not UTF-8.
    NotText,
    /// The headers are nested too deep.
    TooDeep,
    /// The headers hold too many values.
    TooMany,
    /// Properties and headers do not fit into a frame.
    TooLong,
    /// They are not AMQP, or a table has a name twice.
    Malformed,
    /// It was published by the key of one kind and came to the queue of another, by `CC` or `BCC`; or it is for an
    /// internal kind and did not come by an exchange of ours.
    OtherKey,
}

impl MessageDefect {
    const ALL: [Self; 6] =
        [Self::NotText, Self::TooDeep, Self::TooMany, Self::TooLong, Self::Malformed, Self::OtherKey];

    /// Returns its name, as a header has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotText => "not_text",
            Self::TooDeep => "too_deep",
            Self::TooMany => "too_many",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::OtherKey => "other_key",
        }
    }

    /// The code of the event in which such a message ends.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OtherKey => "kind_mismatch",
            Self::NotText | Self::TooDeep | Self::TooMany | Self::TooLong | Self::Malformed => "undecodable",
        }
    }

    /// Parses the name of a defect.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|defect| defect.as_str().as_bytes() == name)
    }
}

impl fmt::Display for MessageDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str(
                "a property, the routing key or the name of a header is not UTF-8 (shown with question marks): send text",
            ),
            Self::TooDeep => write!(f, "the headers are nested deeper than {MAX_HEADER_DEPTH} levels: send flat headers"),
            Self::TooMany => write!(f, "the headers hold more than {MAX_HEADER_VALUES} values: send fewer headers"),
            Self::TooLong => f.write_str(
                "properties and headers are longer than 15/16 of a frame (120 KiB by default): send data in the body",
            ),
            Self::Malformed => f.write_str("the properties are not well-formed AMQP 0-9-1, or a table in them has a name twice: check the client library"),
            Self::OtherKey => f.write_str(
                "it was not published for this kind but came here by CC, BCC or a binding: publish each job with its own key",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for defect in MessageDefect::ALL {
            assert_eq!(MessageDefect::of(defect.as_str().as_bytes()), Some(defect));
        }
        assert_eq!(MessageDefect::of(b"forged"), None);
    }
}
