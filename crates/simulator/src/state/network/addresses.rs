//! IPv4 networks as ranges of addresses.

use std::net::Ipv4Addr;

/// Parses a network with its prefix length and returns its first and last address.
pub(super) fn range(cidr: &str) -> Option<(u32, u32)> {
    let (address, prefix) = cidr.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let host_bits = 32_u32.checked_sub(prefix.parse().ok()?)?;
    let hosts = u32::try_from((1_u64 << host_bits) - 1).ok()?;
    Some((address & !hosts, address | hosts))
}

/// Returns true if two networks have an address in common.
pub(super) fn overlap(one: (u32, u32), other: (u32, u32)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_where_one_lies_in_the_other() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.1.2.0/24", true),
            ("10.1.2.0/24", "10.1.3.0/24", false),
            ("0.0.0.0/0", "255.255.255.255/32", true),
            ("10.1.2.7/24", "10.1.2.0/24", true),
        ] {
            assert_eq!(overlap(range(one).unwrap(), range(other).unwrap()), expected, "{one} {other}");
        }
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "x/8", "10.0.0.0/x"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
