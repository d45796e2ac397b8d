//! The table of addresses that are not public: the special-purpose registries of IANA, and the metadata services of
//! clouds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The network of all public IPv6 addresses.
const PUBLIC_V6: IpNet = v6([0x2000, 0, 0, 0], 3);

/// The special networks; the first match counts.
const SPECIAL: [(IpNet, &str); 33] = [
    (v4([169, 254, 169, 254], 32), "a cloud's metadata"),
    (v4([100, 100, 100, 200], 32), "a cloud's metadata"),
    (v4([192, 0, 0, 192], 32), "a cloud's metadata"),
    (v4([168, 63, 129, 16], 32), "a cloud's metadata"),
    (v6([0xfd00, 0x0ec2, 0, 0], 64), "a cloud's metadata"),
    (v4([0, 0, 0, 0], 8), "an unspecified"),
    (v4([10, 0, 0, 0], 8), "a private"),
    (v4([100, 64, 0, 0], 10), "a carrier's shared (CGNAT)"),
    (v4([127, 0, 0, 0], 8), "a loopback"),
    (v4([169, 254, 0, 0], 16), "a link-local"),
    (v4([172, 16, 0, 0], 12), "a private"),
    (v4([192, 0, 0, 0], 24), "a protocol's own"),
    (v4([192, 0, 2, 0], 24), "a documentation"),
    (v4([192, 88, 99, 0], 24), "a 6to4 relay's"),
    (v4([192, 168, 0, 0], 16), "a private"),
    (v4([198, 18, 0, 0], 15), "a benchmarking"),
    (v4([198, 51, 100, 0], 24), "a documentation"),
    (v4([203, 0, 113, 0], 24), "a documentation"),
    (v4([224, 0, 0, 0], 4), "a multicast"),
    (v4([255, 255, 255, 255], 32), "the broadcast"),
    (v4([240, 0, 0, 0], 4), "a reserved"),
    // ::1, :: and the deprecated IPv4-compatible ones.
    (v6([0, 0, 0, 0], 96), "a loopback, unspecified or IPv4-compatible"),
    (IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96), "an IPv4-mapped"),
    (v6([0x0064, 0xff9b, 0, 0], 96), "a NAT64"),
    (v6([0x0064, 0xff9b, 1, 0], 48), "a NAT64"),
    (v6([0x2001, 0, 0, 0], 32), "a Teredo"),
    // Benchmarking, ORCHID and their like.
    (v6([0x2001, 0, 0, 0], 23), "a protocol's own"),
    (v6([0x2001, 0x0db8, 0, 0], 32), "a documentation"),
    (v6([0x2002, 0, 0, 0], 16), "a 6to4"),
    (v6([0x3fff, 0, 0, 0], 20), "a documentation"),
    (v6([0xfc00, 0, 0, 0], 7), "a unique-local"),
    (v6([0xfe80, 0, 0, 0], 10), "a link-local"),
    (v6([0xff00, 0, 0, 0], 8), "a multicast"),
];

/// The kind of address, with its article; `None` for a public one.
pub(super) fn kind(ip: IpAddr) -> Option<&'static str> {
    let known = SPECIAL.iter().find(|(net, _)| net.contains(&ip)).map(|(_, what)| *what);
    known.or_else(|| (ip.is_ipv6() && !PUBLIC_V6.contains(&ip)).then_some("a reserved"))
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

/// An IPv6 network whose second half is zero.
const fn v6([a, b, c, d]: [u16; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix)
}
