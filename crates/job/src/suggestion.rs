//! Suggestions for misspelt kinds.

use super::Kind;

/// The least similarity of a suggestion.
const SIMILAR: f64 = 0.45;
/// Longer names are cut to this many characters.
const LONGEST: usize = 64;

/// The kind for producers that `given` most resembles, whatever its case and separators; `None` if it resembles none.
pub fn suggest_kind(given: &str) -> Option<Kind> {
    let letter = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '.' };
    let given: String = given.chars().take(LONGEST).map(letter).collect();
    let similar = Kind::of_producers().map(|kind| (strsim::sorensen_dice(&given, kind.as_str()), kind));
    let best =
        similar.filter(|(similarity, _)| *similarity >= SIMILAR).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_kind_is_recognised_and_a_foreign_word_is_not() {
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
            assert_eq!(suggest_kind(given), meant, "{given}");
        }
    }

    #[test]
    fn internal_kinds_are_not_suggested() {
        assert_eq!(suggest_kind("webhook.delivery"), None);
    }
}
