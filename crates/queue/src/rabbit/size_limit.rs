//! Messages above the broker's `max_message_size`. The broker closes the channel over such a message, with all other
//! publications on it, and would do so each time it is sent. So the message is found by its size and given up.

use std::collections::BTreeMap;

use crate::message::TooLarge;

/// Beginning of the broker's message (3.10 to 4.x); the size and the limit follow.
const WORDS: &str = "message size ";

/// Reads the size of the message that ended a session, and the broker's limit; `None` for other reasons.
pub(super) fn parse_refusal(reason: &str) -> Option<(usize, usize)> {
    let (_, sizes) = reason.split_once(WORDS)?;
    let mut numbers = sizes.split(|character: char| !character.is_ascii_digit()).filter_map(|run| run.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Finds the messages in `bodies`, by number, that a broker refuses that reported `(size, limit)`. At least one is
/// found: the broker may count more than the body.
pub(super) fn too_large(bodies: &BTreeMap<u64, usize>, (size, limit): (usize, usize)) -> BTreeMap<u64, TooLarge> {
    let largest = bodies.values().copied().filter(|bytes| *bytes <= size).max().unwrap_or_default();
    let is_refused = |bytes: usize| bytes > limit || largest <= limit && bytes == largest;
    let refused = bodies.iter().filter(|(_, bytes)| is_refused(**bytes));
    refused.map(|(number, bytes)| (*number, TooLarge { bytes: *bytes, limit: Some(limit) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_read_from_what_the_broker_says() {
        let said = "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000";
        assert_eq!(parse_refusal(said), Some((2000, 1000)));
        assert_eq!(
            parse_refusal("PRECONDITION_FAILED - message size 2000 is larger than max size 1000"),
            Some((2000, 1000))
        );
        assert_eq!(parse_refusal("PRECONDITION_FAILED - unknown delivery tag 12"), None);
        assert_eq!(parse_refusal("message size unknown"), None);
    }

    #[test]
    fn all_that_are_larger_are_given_up_and_the_largest_where_none_seems_to_be() {
        let bodies = BTreeMap::from([(1, 10), (2, 2000), (3, 1000), (4, 1001)]);
        let numbers = |sizes| too_large(&bodies, sizes).into_keys().collect::<Vec<_>>();
        assert_eq!(numbers((2000, 1000)), [2, 4]);
        assert_eq!(numbers((2050, 2010)), [2], "the broker counts properties, too");
        assert_eq!(numbers((1030, 1010)), [2, 4], "what is larger is not taken either");
        assert_eq!(too_large(&bodies, (2000, 1000))[&4], TooLarge { bytes: 1001, limit: Some(1000) });
        assert!(too_large(&BTreeMap::new(), (2, 1)).is_empty());
    }
}
