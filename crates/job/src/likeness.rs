//! Which kind somebody meant who wrote another word.

use super::Kind;

/// So much of both words is alike, at least, in percent.
const ALIKE: usize = 45;
/// More of a word than any kind has is not looked at.
const LONGEST: usize = 64;

/// The kind of producers that `given` is most like, where it is like one: in pairs of letters that both have, whatever
/// their case and whatever stands between the words.
pub fn likely(given: &str) -> Option<Kind> {
    let given = pairs(given);
    let alike = Kind::of_producers().map(|kind| (alike(&given, &pairs(kind.as_str())), kind));
    alike.filter(|(share, _)| *share >= ALIKE).max_by_key(|(share, _)| *share).map(|(_, kind)| kind)
}

fn pairs(word: &str) -> Vec<(char, char)> {
    let letters = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '.' };
    let letters: Vec<char> = word.chars().take(LONGEST).map(letters).collect();
    letters.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// In percent.
fn alike(one: &[(char, char)], other: &[(char, char)]) -> usize {
    let mut left = other.to_vec();
    let shared = one.iter().filter(|pair| {
        let place = left.iter().position(|each| each == *pair);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    200 * shared.count() / (one.len() + other.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood_and_a_foreign_word_is_not() {
        for (given, meant) in [
            ("cdn.prune", Some(Kind::CdnPurge)),
            ("cdn.purgee", Some(Kind::CdnPurge)),
            ("CDN_PURGE", Some(Kind::CdnPurge)),
            ("purge", Some(Kind::CdnPurge)),
            ("file.scna", Some(Kind::FileScan)),
            ("scan", Some(Kind::FileScan)),
            ("stream-configure", Some(Kind::StreamConfigure)),
            ("chanel.provision", Some(Kind::ChannelProvision)),
            ("vni.provison", Some(Kind::VniProvision)),
            ("order.created", None),
            ("", None),
            ("x", None),
            ("\u{1f680}\u{1f680}", None),
        ] {
            assert_eq!(likely(given), meant, "{given}");
        }
    }

    #[test]
    fn nobody_is_sent_to_a_kind_that_is_not_for_producers() {
        assert_eq!(likely("webhook.delivery"), None);
    }
}
