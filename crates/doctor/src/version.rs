//! Which broker answers, and whether it is one that keeps what the product promises.

use genfleet_core::queue::rabbit::BrokerIdentity;

use super::finding::Finding;

/// The first with message time-outs and at-least-once dead-lettering in quorum queues.
const FIRST: (u32, u32) = (3, 10);
/// Whoever has not been tried yet.
const BEYOND: u32 = 5;

/// Judges what the broker says of itself.
pub(crate) fn judge(identity: &BrokerIdentity) -> Finding {
    const CHECK: &str = "broker.version";
    let BrokerIdentity { product, version, .. } = identity;
    let found = format!("{product} {version}");
    let Some((major, minor, patch)) = parsed(version).filter(|_| product == "RabbitMQ") else {
        let remedy = "use RabbitMQ 3.10 to 4.x: what another broker makes of quorum queues and delays is not known";
        return Finding::warning(CHECK, "what answers", found, remedy);
    };
    if (major, minor) < FIRST {
        let remedy = "upgrade to 3.10 or later: before it, quorum queues have no delays and may lose dead letters";
        return Finding::failed(CHECK, "what answers", found, remedy);
    }
    if major >= BEYOND {
        return Finding::warning(CHECK, "what answers", found, "try it first: only 3.10 to 4.x are known to work");
    }
    // https://github.com/rabbitmq/rabbitmq-server/tree/main/release-notes: 4.2.7 and 4.3.3.
    let stuck = major == 4 && ((minor < 2) || (minor == 2 && patch < 7) || (minor == 3 && patch < 3));
    if stuck {
        let remedy = "upgrade to 4.2.7, 4.3.3 or later: in a cluster, dead letters and delays of this version can get \
                      stuck after a change of members";
        return Finding::warning(CHECK, "what answers", found, remedy);
    }
    Finding::ok(CHECK, "what answers", found)
}

fn parsed(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn versions_are_judged_by_what_they_can() {
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
