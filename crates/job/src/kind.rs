//! The table of kinds. Lists of kinds, queues, lanes, dead letters, metric labels, schemas and deployment files follow
//! from it.

use std::{fmt, str::FromStr};

/// The least similarity of a suggestion.
const SIMILAR: f64 = 0.45;
/// Longer names are cut to this many characters before they are compared.
const LONGEST: usize = 64;

/// Columns of the table.
struct Row {
    name: &'static str,
    worker: &'static str,
    exclusive: bool,
    internal: bool,
    /// Worked only if a setting asks for it.
    optional: bool,
    /// The replacement for a kind of the tutorials, whose operations the vendor's public API does not have.
    tutorial: Option<&'static str>,
}

/// The columns that a row leaves out.
const USUAL: Row = Row { name: "", worker: "", exclusive: false, internal: false, optional: false, tutorial: None };

/// The enum, its list and its rows, from one row for each kind.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident { $($column:ident: $value:expr),+ $(,)? })+) => {
        /// The kind of a job; also its routing key and metric label. A closed set, so that labels stay bounded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// All kinds, in the order of SPEC 1.
            pub const ALL: [Self; [$(stringify!($kind)),+].len()] = [$(Self::$kind),+];

            const fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row { $($column: $value,)+ ..USUAL },)+
                }
            }
        }
    };
}

kinds! {
    /// Invalidates CDN cache paths.
    CdnPurge { name: "cdn.purge", worker: "purger", tutorial: Some("cdn.purge") }
    /// Registers an `EventBridge` source definition.
    StreamConfigure { name: "stream.configure", worker: "stream-configurator", tutorial: Some("eventbridge.configure") }
    /// Creates a web messaging channel.
    ChannelProvision { name: "channel.provision", worker: "channel-provisioner", exclusive: true, tutorial: Some("webdeployment.provision") }
    /// Creates a virtual network interface and syncs its routing table.
    VniProvision { name: "vni.provision", worker: "vni-provisioner", exclusive: true, tutorial: Some("") }
    /// Orders a virus scan and follows it to its verdict.
    FileScan { name: "file.scan", worker: "scan-monitor", tutorial: Some("media.scan") }
    /// Fetches a file from the platform, scans it with an engine of ours, and acts if malware is found.
    MediaScan { name: "media.scan", worker: "scan-monitor", optional: true }
    /// Publishes a web messaging deployment on the real platform.
    WebDeploymentProvision { name: "webdeployment.provision", worker: "channel-provisioner" }
    /// Creates or updates the Amazon `EventBridge` integration.
    EventbridgeConfigure { name: "eventbridge.configure", worker: "stream-configurator" }
    /// Delivers one event to one URL. Every worker does, so the worker's name is none.
    WebhookDeliver { name: "webhook.deliver", worker: "webhook", internal: true }
}

impl Kind {
    /// The routing key and label, e.g. `cdn.purge`.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The binary that works this kind. It may work others, too; webhooks are delivered by every worker.
    pub const fn worker(self) -> &'static str {
        self.row().worker
    }

    /// Returns true if only one process of the fleet at a time works the kind: the one that holds its lock (SPEC 6.1).
    /// The others stand by.
    pub const fn is_exclusive(self) -> bool {
        self.row().exclusive
    }

    /// Returns true for a kind whose jobs only this product publishes. It calls no Genesys API, publishes no event when
    /// it succeeds, and sends no webhook when it fails.
    pub const fn is_internal(self) -> bool {
        self.row().internal
    }

    /// Returns true if the kind is worked only with a setting, so that it is no problem if no process works it.
    pub const fn is_optional(self) -> bool {
        self.row().optional
    }

    /// Returns what to use with a real organisation instead of a kind of the tutorials, whose operations the vendor's
    /// public API does not have. `None` for a kind of the platform.
    pub fn replacement(self) -> Option<String> {
        let named = self.row().tutorial?;
        Some(match named.parse::<Self>() {
            Ok(own) if own == self => "set --cdn, to purge the CDN in front of your own site".to_owned(),
            Ok(other) => format!("use {other}"),
            Err(_) => "no kind replaces it".to_owned(),
        })
    }

    /// The binaries that work the kinds of producers, each once.
    pub fn workers() -> impl Iterator<Item = &'static str> {
        let all = || Self::of_producers().map(Self::worker);
        all()
            .enumerate()
            .filter(move |(index, worker)| all().position(|each| each == *worker) == Some(*index))
            .map(|(_, worker)| worker)
    }

    /// The kinds that producers may ask for.
    pub fn of_producers() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| !kind.is_internal())
    }

    /// The kind for producers that `given` most resembles, whatever its case and separators; `None` if it resembles
    /// none.
    pub fn suggest(given: &str) -> Option<Self> {
        let letter = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '.' };
        let given: String = given.chars().take(LONGEST).map(letter).collect();
        let similar = Self::of_producers().map(|kind| (strsim::sorensen_dice(&given, kind.as_str()), kind));
        let best = similar
            .filter(|(similarity, _)| *similarity >= SIMILAR)
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.map(|(_, kind)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind that no worker knows.
#[derive(Debug, thiserror::Error)]
#[error("no such kind: {given:?}{}; the kinds are {}", hint(given), list_names())]
pub struct UnknownKind {
    given: String,
}

/// The names of the kinds that producers may ask for.
fn list_names() -> String {
    Kind::of_producers().map(Kind::as_str).collect::<Vec<_>>().join(", ")
}

fn hint(given: &str) -> String {
    Kind::suggest(given).map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default()
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(given: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == given)
            .ok_or_else(|| UnknownKind { given: given.chars().take(LONGEST).collect() })
    }
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
            assert_eq!(Kind::suggest(given), meant, "{given}");
        }
    }

    #[test]
    fn every_kind_of_the_tutorials_says_what_replaces_it_and_no_other_does() {
        for kind in Kind::ALL {
            let is_of_tutorials = kind.row().tutorial.is_some();
            assert_eq!(kind.replacement().is_some(), is_of_tutorials, "{kind}");
            let other = kind.row().tutorial.and_then(|name| name.parse::<Kind>().ok()).filter(|other| *other != kind);
            if let Some(other) = other {
                assert_eq!((kind.replacement(), other.replacement()), (Some(format!("use {other}")), None), "{kind}");
                assert_eq!(kind.worker(), other.worker(), "{kind} and {other} are worked by one binary");
            }
        }
    }

    #[test]
    fn every_worker_is_listed_once() {
        let workers: Vec<&str> = Kind::workers().collect();
        let distinct: std::collections::BTreeSet<&str> = Kind::of_producers().map(Kind::worker).collect();
        assert_eq!(workers.len(), distinct.len(), "{workers:?}");
        assert_eq!(workers[0], "purger");
    }

    #[test]
    fn internal_kinds_are_not_suggested() {
        assert_eq!(Kind::suggest("webhook.delivery"), None);
    }
}
