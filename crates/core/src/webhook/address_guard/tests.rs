//! Every kind of address, literally and by name.

use super::*;
use crate::webhook::Receiver;

/// Refused addresses and their kinds.
const REFUSED: [(&str, &str); 50] = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.1", "CGNAT"),
    ("100.127.255.254", "CGNAT"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.0.1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("172.16.0.1", "private"),
    ("172.31.255.254", "private"),
    ("192.0.0.1", "protocol"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4"),
    ("192.168.0.1", "private"),
    ("192.168.255.255", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.19.255.254", "benchmarking"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::7f00:1", "IPv4-compatible"),
    ("::ffff:127.0.0.1", "IPv4-mapped"),
    ("::ffff:8.8.8.8", "IPv4-mapped"),
    ("64:ff9b::7f00:1", "NAT64"),
    ("64:ff9b::a9fe:a9fe", "NAT64"),
    ("64:ff9b:1::a00:1", "NAT64"),
    ("100::1", "reserved"),
    ("2001::1", "Teredo"),
    ("2001:2::1", "protocol"),
    ("2001:20::1", "protocol"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4"),
    ("3fff::1", "documentation"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("fc00::1", "unique-local"),
    ("fd12:3456::1", "unique-local"),
    ("fd00:ec2::254", "metadata"),
    ("fe80::1", "link-local"),
    ("ff02::1", "multicast"),
];

const PUBLIC: [&str; 9] = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.167.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
];

fn entries(written: &[&str]) -> Vec<AddressEntry> {
    written.iter().map(|entry| entry.parse().unwrap()).collect()
}

fn allowed(written: &[&str]) -> AddressList {
    AddressList::new(&entries(written), &[])
}

fn literal(ip: &str) -> Receiver {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    Receiver::parse(&format!("https://{host}/hook")).unwrap()
}

#[test]
fn an_address_that_is_not_public_is_refused_and_told_what_it_is() {
    for (ip, what) in REFUSED {
        let reported = allowed(&[]).check_url(literal(ip).url()).unwrap_err().to_string();
        assert!(reported.contains(what) && reported.contains("--webhook-allow"), "{ip}: {reported}");
        assert!(!reported.contains(ip) || ip == "::", "{ip} is shown: {reported}");
        assert!(allowed(&[]).filter("hooks.example", Some(443), vec![ip.parse().unwrap()]).is_err(), "{ip} by a name");
    }
}

#[test]
fn a_public_address_is_delivered_to() {
    for ip in PUBLIC {
        assert_eq!(allowed(&[]).check_url(literal(ip).url()), Ok(()), "{ip}");
    }
}

#[test]
fn an_address_written_in_another_way_is_the_same_address() {
    for host in [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0x7f.0.0.1",
        "0177.0.0.01",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "0",
        "0x0",
        "3232235777",
        "0xa9fea9fe",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::ffff:0x7f.1]",
        "[::127.0.0.1]",
    ] {
        match Receiver::parse(&format!("https://{host}/hook")) {
            Ok(receiver) => {
                let judged = allowed(&[]).check_url(receiver.url());
                assert!(judged.is_err(), "{host} became {:?}", receiver.url().host());
            }
            Err(reported) => assert!(reported.contains("not a URL"), "{host}: {reported}"),
        }
    }
}

#[test]
fn of_a_names_addresses_only_the_public_ones_are_left() {
    let found: Vec<IpAddr> = ["10.0.0.1", "8.8.8.8", "::1"].map(|ip| ip.parse().unwrap()).to_vec();
    assert_eq!(allowed(&[]).filter("hooks.example", Some(443), found), Ok(vec!["8.8.8.8".parse().unwrap()]));
    assert_eq!(allowed(&[]).filter("hooks.example", Some(443), vec![]), Ok(vec![]), "not found is not refused");
}

#[test]
fn what_is_allowed_is_delivered_to_and_nothing_beside_it() {
    let list = allowed(&["10.1.0.0/16", "fd00::/8", "127.0.0.1", "hooks.internal", "Upper.Internal."]);
    for (ip, is_open) in [
        ("10.1.2.3", true),
        ("10.2.0.1", false),
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("::ffff:127.0.0.1", false),
        ("fd00::1", true),
        ("fc00::1", false),
    ] {
        assert_eq!(list.check_url(literal(ip).url()).is_ok(), is_open, "{ip}");
        assert_eq!(
            list.filter("hooks.example", Some(443), vec![ip.parse().unwrap()]).is_ok(),
            is_open,
            "{ip} by a name"
        );
        for host in ["hooks.internal", "HOOKS.internal.", "upper.internal"] {
            assert!(list.filter(host, Some(443), vec![ip.parse().unwrap()]).is_ok(), "{ip} by {host}");
        }
        assert_eq!(list.filter("evil.hooks.internal", Some(443), vec![ip.parse().unwrap()]).is_ok(), is_open, "{ip}");
    }
}

#[test]
fn http_is_for_what_is_allowed_by_itself() {
    let list = allowed(&["10.1.0.0/16", "hooks.internal"]);
    for (url, is_open) in [
        ("https://anything.example/", true),
        ("http://anything.example/", false),
        ("http://hooks.internal/", true),
        ("http://hooks.internal.example/", false),
        ("http://10.1.0.1:8080/", true),
        ("http://10.2.0.1/", false),
        ("http://[::1]/", false),
    ] {
        assert_eq!(list.allows_scheme(&url.parse().unwrap()), is_open, "{url}");
    }
}

#[test]
fn an_entry_that_is_neither_name_nor_network_says_how_to_write_one() {
    for wrong in [
        "",
        "https://hooks.internal",
        "hooks.internal:",
        "hooks.internal:0",
        "hooks.internal:65536",
        "a:b:80",
        "10.0.0.0/33",
        "*.internal",
        "a b",
    ] {
        let reported = wrong.parse::<AddressEntry>().unwrap_err().to_string();
        assert!(reported.contains("10.1.0.0/16"), "{wrong}: {reported}");
    }
    let net = |written: &str, port| AddressEntry { target: EntryTarget::Net(written.parse().unwrap()), port };
    for (written, entry) in [
        ("10.1.0.0/16", net("10.1.0.0/16", None)),
        ("::1", net("::1/128", None)),
        ("10.1.0.0/16:8443", net("10.1.0.0/16", Some(8443))),
        ("127.0.0.1:80", net("127.0.0.1/32", Some(80))),
        ("[::1]:80", net("::1/128", Some(80))),
        ("Hooks.Internal.:80", AddressEntry { target: EntryTarget::Host("hooks.internal".to_owned()), port: Some(80) }),
    ] {
        assert_eq!(written.parse::<AddressEntry>().unwrap(), entry, "{written}");
    }
    assert!("0x7f000001".parse::<AddressEntry>().is_err(), "an address is written as one");
}

#[test]
fn an_entry_with_a_port_is_for_that_port_alone() {
    let list = allowed(&["hooks.internal:8443", "127.0.0.1:8080"]);
    for (url, is_open) in [
        ("http://hooks.internal:8443/", true),
        ("http://hooks.internal/", false),
        ("http://127.0.0.1:8080/", true),
        ("http://127.0.0.1:8081/", false),
    ] {
        assert_eq!(list.allows_scheme(&url.parse().unwrap()), is_open, "{url}");
    }
    let found = || vec!["127.0.0.1".parse().unwrap()];
    for (host, port, is_open) in [
        ("hooks.internal", Some(8443), true),
        ("hooks.internal", Some(443), false),
        ("hooks.internal", None, false),
        ("hooks.example", Some(8080), true),
        ("hooks.example", Some(8443), false),
    ] {
        assert_eq!(list.filter(host, port, found()).is_ok(), is_open, "{host} {port:?}");
    }
}

#[test]
fn what_is_denied_is_not_delivered_to_whatever_is_allowed() {
    let denied = entries(&["evil.example", "8.8.0.0/16", "hooks.example:8443", "10.1.2.3"]);
    let list = AddressList::new(&entries(&["10.0.0.0/8", "open.internal"]), &denied);
    for (url, is_denied) in [
        ("https://EVIL.example./", true),
        ("https://not.evil.example/", false),
        ("https://8.8.8.8/", true),
        ("https://8.9.8.8/", false),
        ("https://hooks.example:8443/", true),
        ("https://hooks.example/", false),
        ("https://10.1.2.3/", true),
        ("https://10.1.2.4/", false),
    ] {
        let receiver = Receiver::parse(url).unwrap();
        assert_eq!(
            (list.denies(receiver.url()), list.check_url(receiver.url()).is_err()),
            (is_denied, is_denied),
            "{url}"
        );
    }
    let refused = list.filter("open.internal", Some(443), vec!["10.1.2.3".parse().unwrap()]).unwrap_err();
    assert!(refused.to_string().contains("--webhook-deny"), "{refused}");
    let ips: Vec<IpAddr> = ["8.8.8.8", "10.1.2.4"].map(|ip| ip.parse().unwrap()).to_vec();
    assert_eq!(list.filter("open.internal", Some(443), ips.clone()), Ok(vec![ips[1]]));
}
