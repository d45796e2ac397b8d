//! The names of queues that may receive replies. A producer can write any name into `reply_to`, and the default
//! exchange reaches every queue of the virtual host, including those to which the producer has no right to write.

use std::str::FromStr;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::topology::Topology;
use genfleet_job::options::ConfigError;

/// Prefix of names that the broker generates for queues declared without one. They cannot be guessed.
const GENERATED: &str = "amq.gen-";
/// Prefix of names that the broker reserves. Of these only direct reply-to may receive replies.
const RESERVED: &str = "amq.rabbitmq.";
const DIRECT: &str = "amq.rabbitmq.reply-to.";
/// The first word after the prefix in the names of locks, which are not part of the topology.
const LOCK: &str = "lock";
/// Maximum length of a name, which is a short string in AMQP.
const LONGEST: usize = 255;

/// An entry of `--reply-to-allow`: a queue's name, or a prefix of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// This queue.
    Queue(String),
    /// All queues whose names begin like this.
    Beginning(String),
}

impl FromStr for ReplyTo {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let name = written.trim();
        let (name, is_beginning) = name.strip_suffix('*').map_or((name, false), |beginning| (beginning, true));
        let wrong = if name.contains('*') {
            "a * may only be the last character"
        } else if name.is_empty() && !is_beginning {
            "an entry is empty"
        } else if name.len() > LONGEST {
            "longer than the 255 bytes of a queue's name"
        } else if is_beginning {
            return Ok(Self::Beginning(name.to_owned()));
        } else {
            return Ok(Self::Queue(name.to_owned()));
        };
        Err(ConfigError::new(format!("{written:?}: {wrong}; write queue names, or prefixes that end in *")))
    }
}

/// The rules for queues that may receive replies.
#[derive(Debug, Default)]
pub(super) struct ReplyQueueNames {
    prefix: String,
    /// First words after the prefix in the names of the topology.
    ours: Vec<String>,
    allowed: Vec<ReplyTo>,
}

impl ReplyQueueNames {
    pub(super) fn new(prefix: &str, topology: &Topology, allowed: Vec<ReplyTo>) -> Self {
        let words = topology.queues.iter().filter_map(|queue| first_word(prefix, &queue.name));
        let ours = words.chain([LOCK]).map(str::to_owned).collect();
        Self { prefix: prefix.to_owned(), ours, allowed }
    }

    /// Returns true if the queue `name` may receive replies. Queues of the topology never may. Another name with the
    /// prefix must be allowed exactly, because an entry such as `*` is not meant for queues of future versions.
    pub(super) fn admits(&self, name: &str) -> bool {
        if name.starts_with(RESERVED) {
            return is_direct(name);
        }
        let listed = |each: &ReplyTo| matches!(each, ReplyTo::Queue(queue) if queue == name);
        if let Some(word) = first_word(&self.prefix, name) {
            return !self.ours.iter().any(|ours| ours == word) && self.allowed.iter().any(listed);
        }
        let begins = |each: &ReplyTo| matches!(each, ReplyTo::Beginning(beginning) if name.starts_with(beginning));
        name.starts_with(GENERATED) || self.allowed.iter().any(|each| listed(each) || begins(each))
    }
}

fn first_word<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()
}

/// Returns true if `name` looks like one that the broker generated for direct reply-to: the process of the waiting
/// channel, and a key. `RabbitMQ` 3 ends the connection over a name that it cannot decode.
pub(super) fn is_direct(name: &str) -> bool {
    let Some((process, key)) = name.strip_prefix(DIRECT).and_then(|encoded| encoded.split_once('.')) else {
        return false;
    };
    let decoded = |text: &str| BASE64_STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
    decoded(key).is_some() && decoded(process).is_some_and(|term| is_process(&term))
}

/// Returns true if `term` is a process identifier in Erlang's external term format, as the broker writes it: the node
/// is `reply@<hash>`, with a hash of the node's name in place of the name (`RabbitMQ` 3.10 to 4.x).
fn is_process(term: &[u8]) -> bool {
    const VERSION: u8 = 131;
    const PROCESS: u8 = 88;
    const ATOM: u8 = 118;
    const SMALL_ATOM: u8 = 119;
    /// Identifier, serial number and creation.
    const NUMBERS: usize = 12;
    /// Upper bound of the values of `erlang:phash2`.
    const HASHES: u32 = 1 << 27;
    let split = match term {
        [VERSION, PROCESS, ATOM, high, low, rest @ ..] => {
            rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())
        }
        [VERSION, PROCESS, SMALL_ATOM, length, rest @ ..] => rest.split_at_checked((*length).into()),
        _ => None,
    };
    let Some((node, numbers)) = split else { return false };
    let hash = node.strip_prefix(b"reply@").filter(|hash| hash.iter().all(u8::is_ascii_digit));
    let hash = hash.and_then(|hash| str::from_utf8(hash).ok()?.parse::<u32>().ok());
    numbers.len() == NUMBERS && hash.is_some_and(|hash| hash < HASHES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::topology;

    /// As `RabbitMQ` 3.10.8 wrote it.
    const REAL: &str = "amq.rabbitmq.reply-to.g1h2AA9yZXBseUAxMTIyMDYxMzIAAAOjAAAAAGsNS08=.jADKApNg76ob0C02zVWjUA==";

    fn names(allowed: &[&str]) -> ReplyQueueNames {
        ReplyQueueNames::new("g", &topology("g"), allowed.iter().map(|each| each.parse().unwrap()).collect())
    }

    fn direct(term: &[u8]) -> String {
        format!("{DIRECT}{}.jADKApNg76ob0C02zVWjUA==", BASE64_STANDARD.encode(term))
    }

    fn process(tag: &[u8], node: &str, numbers: usize) -> String {
        direct(&[tag, node.as_bytes(), &vec![0; numbers]].concat())
    }

    #[test]
    fn only_names_that_the_broker_made_are_published_to_unless_others_are_allowed() {
        let default = names(&[]);
        for name in [REAL, "amq.gen-abc", &process(&[131, 88, 119, 7], "reply@1", 12)] {
            assert!(default.admits(name), "{name}");
        }
        for name in ["answers", "g.answers", "amq.genx", "amq.topic", "", "*", "g"] {
            assert!(!default.admits(name), "{name}");
        }
    }

    #[test]
    fn a_direct_reply_to_that_does_not_decode_is_refused_whatever_is_allowed() {
        let (node, tag) = ("reply@112206132", [131, 88, 118, 0, 15]);
        assert!(names(&[]).admits(&process(&tag, node, 12)), "or the rest proves nothing");
        let (_, key) = REAL.rsplit_once('.').unwrap();
        let whole = REAL.strip_suffix(key).unwrap();
        let wrong = [
            "amq.rabbitmq.reply-to".to_owned(),
            DIRECT.to_owned(),
            format!("{DIRECT}AAAA.BBBB"),
            format!("{DIRECT}.{key}"),
            whole.to_owned(),
            whole.trim_end_matches('.').to_owned(),
            format!("{REAL}.x"),
            format!("{whole}no-base-64"),
            REAL.replace("g1h2", "g1h2\n"),
            REAL.replace("08=.", "08."),
            process(&tag, node, 11),
            process(&tag, node, 13),
            process(&[131, 103, 118, 0, 15], node, 9),
            process(&[130, 88, 118, 0, 15], node, 12),
            process(&[131, 88, 100, 0, 15], node, 12),
            process(&[131, 88, 118, 255, 255], node, 12),
            process(&[131, 88, 119, 11], "rabbit@host", 12),
            process(&[131, 88, 119, 6], "reply@", 12),
            process(&[131, 88, 119, 8], "reply@+1", 12),
            process(&[131, 88, 119, 15], "reply@134217728", 12),
            direct(&[131]),
            direct(&[131, 88]),
            direct(&[131, 88, 118, 0]),
            "amq.rabbitmq.trace".to_owned(),
        ];
        for name in &wrong {
            assert!(!names(&["*", "amq.*", name]).admits(name), "{name}");
        }
    }

    #[test]
    fn names_and_prefixes_are_allowed_but_no_queue_of_ours() {
        let names = names(&["answers", "billing.*", "g.answers", "g.delay.03", "g.*", "g.dead.cdn.purge"]);
        for name in ["answers", "billing.", "billing.a.b", "g.answers"] {
            assert!(names.admits(name), "{name}");
        }
        for name in ["answers2", "billing", "g.other", "g.delay.03", "g.delay.04", "g.dead.cdn.purge", "g.events"] {
            assert!(!names.admits(name), "{name}");
        }
        let all = self::names(&["*"]);
        assert!(all.admits("anything") && all.admits("gg.jobs"));
        for queue in topology("g").queues {
            assert!(!all.admits(&queue.name), "{}", queue.name);
        }
        assert!(!all.admits("g.lock.vni.provision") && !all.admits("g.lock.vni.provision.held"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_way_to_write_it() {
        for (written, told) in [
            ("a*b", "last character"),
            ("a**", "last character"),
            ("*a", "last character"),
            ("", "empty"),
            (" ", "empty"),
            (&"x".repeat(256), "255 bytes"),
        ] {
            let error = written.parse::<ReplyTo>().unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("prefixes that end in *"), "{error}");
        }
        assert_eq!(" answers ".parse::<ReplyTo>().unwrap(), ReplyTo::Queue("answers".to_owned()));
        assert_eq!("a.*".parse::<ReplyTo>().unwrap(), ReplyTo::Beginning("a.".to_owned()));
    }
}
