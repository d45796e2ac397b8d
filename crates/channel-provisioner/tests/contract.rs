//! That the published schema of `channel.provision` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, entries, lists, some, texts, unstated_rules_can_be_broken, uuid};
use genfleet_channel_provisioner::ChannelProvisioner;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<ChannelProvisioner>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<ChannelProvisioner>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    let long_host = "a.".repeat(130) + "example";
    let quoted = format!("\"{}\"@shop.example", "\\a".repeat(40));
    vec![
        json!({ "/payload/maxConcurrentSessions": 501 }),
        json!({ "/payload/routingEmail": "a@xn--a.example" }),
        json!({ "/payload/routingEmail": "a@[IPv6:1::2::3]" }),
        json!({ "/payload/routingEmail": quoted }),
        json!({ "/payload/routingEmail": format!("abcdefghij@{}bücher", "abcdefgh.".repeat(26)) }),
        json!({ "/payload/security/allowedDomains": ["xn--a.example"] }),
        json!({ "/payload/security/allowedDomains": ["127.0.0.１"] }),
        json!({ "/payload/security/allowedDomains": entries(10_000, &|n| json!(format!("d{n}.example"))) }),
        json!({ "/payload/security/cspHeaders": [format!("img-src {long_host}")] }),
    ]
}

fn host() -> BoxedStrategy<String> {
    let label = prop_oneof![
        5 => "[a-zA-Z0-9]([a-zA-Z0-9-]{0,4}[a-z0-9])?",
        2 => "[a-z0-9_é１。\u{ad}ß-]{0,4}",
        1 => some(&["xn--bcher-kva", "xn--a", "xn--", "0x1f", "0xg", "0X", "127", "00", "bücher", "a--b", "ＡＢ", "١"]),
        1 => "[a-z]{62,65}",
    ];
    prop::collection::vec(label, 1..5).prop_map(|labels| labels.join(".")).boxed()
}

fn any_case(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (text, any::<u64>()).prop_map(|(text, bits)| {
        let upper = |(index, each): (usize, char)| {
            if bits >> (index % 64) & 7 == 7 { each.to_ascii_uppercase() } else { each }
        };
        text.chars().enumerate().map(upper).collect()
    })
}

fn domain() -> BoxedStrategy<String> {
    let scheme = any_case(some(&["", "", "https://", "http://", "//", "https:/"]));
    let port = some(&["", "", ":443", ":0", ":65535", ":65536", ":007", ":", ":8x", ":99999"]);
    let end = some(&["", "", "", "/", "//", "/a", "?", "#", ".", " "]);
    let start = some(&["", "", "", "", "user@", "[", "*.", " ", "-"]);
    (scheme, start, host(), port, end)
        .prop_map(|(scheme, start, host, port, end)| format!("{scheme}{start}{host}{port}{end}"))
        .boxed()
}

fn email() -> BoxedStrategy<String> {
    let local = prop_oneof![
        4 => "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,4}(\\.[a-z]{0,3}){0,2}",
        2 => "\"([ -~\t]|\\\\[ -~]){0,4}\"",
        1 => "[a-zé(<,. \u{7f}]{0,3}",
        1 => "[a-z]{63,66}|\"[a-z]{61,64}\"",
    ];
    let literal = "\\[([0-9]{1,3}\\.){3}[0-9]{1,3}\\]|\\[(IPv6|ipv6):[0-9a-f:.]{0,9}\\]";
    let long = (26_usize..30, host()).prop_map(|(count, host)| format!("{}{host}", "abcdefgh.".repeat(count)));
    let domain = prop_oneof![5 => host(), 1 => literal.prop_map(String::from), 1 => long, 1 => domain()];
    let at = some(&["@", "@", "@", "@", "", "@@", " @"]);
    (local, at, domain).prop_map(|(local, at, domain)| format!("{local}{at}{domain}")).boxed()
}

fn directive() -> BoxedStrategy<String> {
    let name = any_case(some(&[
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "connect-src",
        "frame-ancestors",
        "frame-ancestors",
        "font-src",
        "",
    ]));
    let source = prop_oneof![
        3 => any_case(some(&[
            "'self'", "'none'", "'none'", "'unsafe-inline'", "'strict-dynamic'", "'report-sha256'", "'unknown'", "'self",
            "self", "none", "nonce-abc", "sha256-a", "https:", "data:", "self:", "nonce-:", "*", "*.a", "a:*", "*:80",
            "\"self\"", "'nonce-YQ=='", "'nonce-='", "'sha384-a_b-='", "'sha1-a'", "'sha512-a==='", "''", "'",
        ])),
        3 => ("(https?|wss|a\\+b|1a|a\\.b)?(://|:/|:)?", host(), "(:[0-9*]{0,6})?(/[a-z%0-9:~;'é]{0,4}){0,3}(://a)?(\\?a)?")
            .prop_map(|(scheme, host, rest)| format!("{scheme}{host}{rest}")),
        1 => ("(https://)?[a-z]{1,3}", "/[a-z:/]{0,6}").prop_map(|(host, path)| format!("{host}{path}")),
    ];
    let blank = some(&[" ", " ", " ", "  ", "\t", "\n", "\u{c}", "\u{b}", "\u{a0}", ";", ","]);
    let sources = prop::collection::vec((blank, source), 0..4);
    (some(&["", "", " ", "\r"]), name, sources, some(&["", "", " ", "\t"]))
        .prop_map(|(start, name, sources, end)| {
            let sources: String = sources.into_iter().map(|(blank, source)| blank + &source).collect();
            format!("{start}{name}{sources}{end}")
        })
        .boxed()
}

fn places() -> Places {
    let tri = || select(vec![json!(true), json!(false), Value::Null]).boxed();
    vec![
        ("/payload/name", texts("[a-zé ]{0,3}|é{127,129}")),
        ("/payload/queueId", texts(uuid())),
        ("/payload/routingEmail", texts(email())),
        ("/payload/maxConcurrentSessions", anything().boxed()),
        ("/payload/enabled", tri()),
        ("/payload/security/cspHeaders", lists(texts(directive()), 3)),
        ("/payload/security/xssPrevention", tri()),
        ("/payload/security/sanitizeHtml", tri()),
        ("/payload/security/allowedDomains", lists(texts(domain()), 2)),
    ]
}
