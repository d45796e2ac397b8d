//! The broker's product and version, and whether it supports the queues that genfleet needs.

use genfleet_core::queue::rabbit::BrokerIdentity;

use super::finding::{Check, Finding};

/// The first version with message time-outs and at-least-once dead-lettering in quorum queues.
const FIRST: (u32, u32) = (3, 10);
/// The first major version that has not been tested.
const UNTESTED: u32 = 5;

/// Judges what the broker reports about itself.
pub(crate) fn judge(identity: &BrokerIdentity) -> Finding {
    let check = Check::new("broker.version", "the broker's version");
    let BrokerIdentity { product, version, .. } = identity;
    let found = format!("{product} {version}");
    let Some((major, minor, patch)) = parse(version).filter(|_| product == "RabbitMQ") else {
        return check
            .warning(found, "use RabbitMQ 3.10 to 4.x: quorum queues and delays are not tested with another broker");
    };
    if (major, minor) < FIRST {
        let remedy = "upgrade to 3.10 or later: in this version quorum queues have no delays and may lose dead letters";
        return check.failed(found, remedy);
    }
    if major >= UNTESTED {
        return check.warning(found, "test it before you use it: only 3.10 to 4.x are tested");
    }
    // https://github.com/rabbitmq/rabbitmq-server/tree/main/release-notes: 4.2.7 and 4.3.3.
    let stuck = major == 4 && ((minor < 2) || (minor == 2 && patch < 7) || (minor == 3 && patch < 3));
    if stuck {
        let remedy = "upgrade to 4.2.7, 4.3.3 or later: in a cluster, dead letters and delayed messages of this version can get \
                      stuck after a change of members";
        return check.warning(found, remedy);
    }
    check.ok(found)
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn versions_are_judged_by_their_features() {
        for (product, version, level) in [
            ("RabbitMQ", "3.9.29", Level::Failed),
            ("RabbitMQ", "3.10.8", Level::Ok),
            ("RabbitMQ", "3.13.7", Level::Ok),
            ("RabbitMQ", "4.0.5", Level::Warning),
            ("RabbitMQ", "4.2.7", Level::Ok),
            ("RabbitMQ", "4.3.1", Level::Warning),
            ("RabbitMQ", "4.3.3+rc.1", Level::Ok),
            ("RabbitMQ", "5.0.0", Level::Warning),
            ("RabbitMQ", "nightly", Level::Warning),
            ("LavinMQ", "2.1.0", Level::Warning),
        ] {
            let identity = BrokerIdentity { product: product.into(), version: version.into(), cluster: String::new() };
            assert_eq!(judge(&identity).level, level, "{product} {version}");
        }
    }
}
