//! Jobs to judge: the examples with parts of them replaced, by what is nearly right for the place and by anything.

use genfleet_core::contract::KindContract;
use proptest::{
    prelude::*,
    sample::{Index, select},
};
use serde_json::json;

use super::*;

/// Characters at which rules begin and end.
const EDGES: &str = "\0\t\n\r \u{7f}\u{85}\u{a0}\u{ad}\u{2028}\u{3000}\u{feff}éß１。😀.*/?#%@:;,\"'\\-_0aZ[](){}$^|+";

/// A job's places, each with texts that are nearly right there.
type Places = Vec<(&'static str, BoxedStrategy<Value>)>;

/// What is done to an example.
#[derive(Clone, Debug)]
enum Edit {
    /// Something nearly right, where it belongs.
    Put(&'static str, Value),
    /// Anything, anywhere.
    Change(Index, SampleChange),
}

#[derive(Clone, Debug)]
enum SampleChange {
    /// Something else.
    Replace(Value),
    /// A member or an entry is gone.
    Remove(Index),
    /// Another member, or another entry.
    Add(String, Value),
    /// A character more in a text.
    Insert(Index, char),
    /// One less.
    Delete(Index),
}

/// Where jobs of a kind are made from.
pub(super) struct Samples {
    examples: Vec<Value>,
    places: Places,
}

impl Samples {
    pub(super) fn of(contract: &KindContract) -> Self {
        let mut places = envelope(contract.kind);
        places.extend(match contract.kind {
            Kind::CdnPurge => purge(),
            Kind::StreamConfigure => stream(),
            Kind::ChannelProvision => channel(),
            Kind::VniProvision => vni(),
            Kind::FileScan => scan(),
            Kind::WebhookDeliver => vec![],
        });
        Self { examples: contract.terms.examples.clone(), places }
    }

    pub(super) fn jobs(&self) -> impl Strategy<Value = Value> + use<> {
        let put: Vec<_> = self
            .places
            .iter()
            .map(|(at, values)| values.clone().prop_map(|value| Edit::Put(at, value)).boxed())
            .collect();
        let edit = prop_oneof![6 => proptest::strategy::Union::new(put), 3 => anywhere()];
        (select(self.examples.clone()), prop::collection::vec(edit, 0..5)).prop_map(|(mut job, edits)| {
            for edit in edits {
                edit.make(&mut job);
            }
            job
        })
    }
}

fn anywhere() -> impl Strategy<Value = Edit> {
    let edges: Vec<char> = EDGES.chars().collect();
    let names = select(vec!["id", "kind", "payload", "etag", "x", "", "a/b", "null"]).prop_map(str::to_owned);
    let change = prop_oneof![
        anything().prop_map(SampleChange::Replace),
        any::<Index>().prop_map(SampleChange::Remove),
        (names, anything()).prop_map(|(name, value)| SampleChange::Add(name, value)),
        (any::<Index>(), select(edges)).prop_map(|(place, edge)| SampleChange::Insert(place, edge)),
        any::<Index>().prop_map(SampleChange::Delete),
    ];
    (any::<Index>(), change).prop_map(|(at, change)| Edit::Change(at, change))
}

impl Edit {
    fn make(self, job: &mut Value) {
        match self {
            Self::Put(pointer, value) => {
                let (parent, member) = pointer.rsplit_once('/').unwrap();
                if let Some(Value::Object(members)) = job.pointer_mut(parent) {
                    members.insert(member.to_owned(), value);
                }
            }
            Self::Change(index, change) => {
                let mut all = vec![];
                pointers(job, String::new(), &mut all);
                change.make(job.pointer_mut(&all[index.index(all.len())]).unwrap());
            }
        }
    }
}

impl SampleChange {
    fn make(self, place: &mut Value) {
        match (self, place) {
            (Self::Replace(value), place) => *place = value,
            (Self::Remove(index), Value::Object(members)) if !members.is_empty() => {
                let name = members.keys().nth(index.index(members.len())).unwrap().clone();
                members.shift_remove(&name);
            }
            (Self::Remove(_), Value::Array(entries)) => drop(entries.pop()),
            (Self::Add(name, value), Value::Object(members)) => drop(members.insert(name, value)),
            (Self::Add(_, value), Value::Array(entries)) => entries.push(value),
            (Self::Insert(at, edge), Value::String(text)) => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.insert(at.index(letters.len() + 1), edge);
                *text = letters.into_iter().collect();
            }
            (Self::Delete(at), Value::String(text)) if !text.is_empty() => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.remove(at.index(letters.len()));
                *text = letters.into_iter().collect();
            }
            _ => {}
        }
    }
}

fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| pointers(inner, below(name), found)),
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(index, inner)| pointers(inner, below(&index.to_string()), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(at);
}

fn anything() -> impl Strategy<Value = Value> {
    let numbers = select(vec![
        json!(0),
        json!(1),
        json!(-1),
        json!(50),
        json!(51),
        json!(1.0),
        json!(8.0),
        json!(1.5),
        json!(65_535),
        json!(65_536),
        json!(443.0),
        json!(1e30),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(-0.0),
        json!(0.1),
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers,
        any::<String>().prop_map(Value::from),
        select(vec!["", ".", "..", "/*", "in", "gte", "extract", "0", "true", "\u{feff}"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn texts(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    strategy.prop_map(Value::from).boxed()
}

fn some(values: &[&str]) -> BoxedStrategy<String> {
    select(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()).boxed()
}

fn lists(entry: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(entry, 0..=most).prop_map(Value::from).boxed()
}

fn time() -> BoxedStrategy<String> {
    prop_oneof![
        "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
        some(&[
            "2026-11-20T12:00:00Z", "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00Z", "0000-01-01T00:00:00+23:59", "2016-12-31T23:59:60Z",
            "2026-11-20T12:00:60Z", "2026-11-20T24:00:00Z", "2026-11-20T12:00:00+24:00", "2026-11-20T12:00:00+23:60",
            "2026-11-20T12:00:00", "2026-11-20", "2026-11-20T12:00:00Z\n", " 2026-11-20T12:00:00Z",
            "2026-11-20T12:00:00.Z", "2026-11-20T12:00:00,5Z", "2026-11-20T12:00:00-00:00", "+002026-11-20T12:00:00Z",
            "2016-12-31T15:59:60-08:00", "2026-11-20T12:00:00[UTC]",
        ]),
    ]
    .boxed()
}

fn uuid() -> BoxedStrategy<String> {
    prop_oneof![
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9A-F]{4}-[0-9a-f]{12}",
        "[0-9a-g]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{11,13}",
        some(&["{3f2504e0-4f89-11d3-9a0c-0305e82c3301}", "urn:uuid:3f2504e0-4f89-11d3-9a0c-0305e82c3301", ""]),
    ]
    .boxed()
}

fn envelope(kind: Kind) -> Places {
    let kinds = some(&[kind.as_str(), "cdn.purge", "file.scan", "webhook.deliver", ""]);
    vec![
        ("/id", texts("[A-Za-z0-9._:-]{0,6}[ é\n]?|[a-z]{127,130}")),
        ("/kind", texts(kinds)),
        ("/notBefore", texts(time())),
        ("/deadline", texts(time())),
        ("/webhook", prop_oneof![Just(json!({})), Just(json!({ "url": "" })), Just(Value::Null), anything()].boxed()),
        ("/maxAttempts", anything().boxed()),
    ]
}

fn purge() -> Places {
    let near = "/[a-z*.?# é/\u{a0}\u{85}\u{2028}]{0,8}\\*?|[a-z/.*]{0,5}";
    let long = (prop_oneof![2040_usize..2055, 1020_usize..1030], select(vec!["a", "é", "€"]))
        .prop_map(|(count, letter)| format!("/{}", letter.repeat(count)));
    let fixed = some(&["/*", "/", "//", "/.", "/..", "/...", "/a/.", "/a/../b", "/*/", "/a*\n", "/a*b", "/.*"]);
    let path = prop_oneof![6 => near.prop_map(String::from), 2 => fixed, 1 => long];
    vec![
        ("/payload/paths", lists(texts(path), 4)),
        ("/payload/allowPurgeAll", prop_oneof![any::<bool>().prop_map(Value::from), Just(Value::Null)].boxed()),
    ]
}

fn field() -> BoxedStrategy<String> {
    let deep = (30_usize..35).prop_map(|names| vec!["a"; names].join("."));
    prop_oneof![4 => "[a-c\\[\\]0]{0,2}([. \u{85}\u{feff}\u{a0}é]?[a-c0]){0,3}[.]?", 1 => deep].boxed()
}

fn stream() -> Places {
    let operator = some(&["eq", "neq", "in", "gte", "lte", "IN", ""]);
    let value = prop_oneof![texts(time()), anything(), lists(anything().boxed(), 2)];
    let condition = (field(), operator, value)
        .prop_map(|(field, operator, value)| json!({ "field": field, "operator": operator, "value": value }));
    let filter = prop::collection::vec(condition, 0..3)
        .prop_map(|conditions| json!({ "eventType": "e", "conditions": conditions }));
    let path = prop_oneof![Just(Value::Null), texts("\\[\\](\\.[a-b\\[ \u{85}]{0,2}){0,3}|[a.\\[\\]]{0,4}")];
    let format = select(vec![Value::Null, json!("iso8601"), json!("epoch"), json!(1)]);
    let kinds = some(&["direct", "extract", "transform", "copy"]);
    let source = prop_oneof![field(), some(&["id", "participants", "ended", "channel"])];
    let transformation = (source.clone(), field(), kinds, path, format).prop_map(|(from, to, kind, path, format)| {
        let mut all = json!({ "sourceField": from, "targetField": to, "type": kind, "path": path, "format": format });
        // Half of the time a member that is null is not there instead.
        if to.len() % 2 == 0 {
            all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        all
    });
    let mapping = (source, field()).prop_map(|(source, target)| json!({ "source": source, "target": target }));
    vec![
        ("/payload/sourceId", texts("[A-Za-z0-9._-]{0,4}[ /é]?|\\.{1,3}|[a-z]{127,130}")),
        ("/payload/configuration/awsAccountId", texts("123456789012|[0-9]{11,13}|[a-z]{12}|[０-９]{12}")),
        (
            "/payload/configuration/roleArn",
            texts(
                "arn:aws(-cn|-us-gov)?:iam::(123456789012|[0-9]{12}):(role|user)/([a-z !]{0,4}/){0,2}[A-Za-z0-9+=,.@_ -]{0,66}",
            ),
        ),
        (
            "/payload/configuration/region",
            texts("(us|eu|eusc|a|abc)(-gov|-iso|-de)?-(north|east|centralwest|central|southeast)-?[0-9]{0,3}"),
        ),
        ("/payload/filters", lists(filter.boxed(), 2)),
        ("/payload/transformations", lists(transformation.boxed(), 3)),
        ("/payload/attributeMappings", lists(mapping.boxed(), 3)),
        ("/payload/etag", texts("[ -~]{0,4}|\"[a-z]\"[\n é]?|[a-z]{1023,1026}")),
        ("/payload/sampleEvent", anything().boxed()),
        ("/payload/onConflict", texts("overwrite|fail|Fail|")),
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

fn channel() -> Places {
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

fn ipv4() -> BoxedStrategy<String> {
    prop_oneof![
        3 => "[1-9]?[0-9]\\.[0-9]{1,3}\\.0\\.[0-9]{1,2}",
        1 => "(10|127|255|256|00|1e)(\\.([0-9]{1,2}|2[0-9]{2})){2,4}",
        1 => some(&["10.0.40.1", "0.0.0.0", "255.255.255.255", "10.0.40.01", "10.0.40.1 ", "１0.0.0.1", "0x0a.0.0.1", "167772161"]),
    ]
    .boxed()
}

fn vni() -> Places {
    let ipv6 = prop_oneof![
        "[0-9a-fA-F:.]{2,24}",
        some(&[
            "::",
            "::1",
            "1::2::3",
            "::ffff:1.2.3.4",
            "::1.2.3",
            "fe80::1%eth0",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:7:8:9",
            "12345::",
            "[::1]",
            "::1/64",
            "1:2:3:4:5:6:1.2.3.4"
        ]),
    ];
    let network = prop_oneof![
        (ipv4(), "/(8|16|24|08|32|0|9|24 |)").prop_map(|(ip, prefix)| ip + &prefix),
        some(&["10.0.40.0/24", "10.0.0.0/16", "10.0.0.0/8", "10.0.40.1/24", "10.0.40.0/16", "010.0.0.0/8", "10.0.0/8"]),
    ];
    vec![
        ("/payload/name", texts("[a-zé ]{0,3}|é{127,129}")),
        ("/payload/organizationId", texts(uuid())),
        ("/payload/localIp", texts(ipv4())),
        ("/payload/remoteIp", texts(ipv4())),
        ("/payload/subnetCidr", texts(network)),
        ("/payload/dnsServers", lists(texts(prop_oneof![ipv4(), ipv6]), 3)),
        ("/payload/routingTableId", texts("\\.{0,3}|[a-z/ ]{0,3}")),
        ("/payload/gatewayPort", anything().boxed()),
        ("/payload/rollback", anything().boxed()),
    ]
}

fn scan() -> Places {
    let metadata = prop::collection::btree_map("[a-z]{0,3}", anything(), 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let long = (16_300_usize..16_400).prop_map(|bytes| json!({ "note": "x".repeat(bytes) }));
    vec![
        ("/payload/fileId", texts(uuid())),
        ("/payload/scanEngine", texts(some(&["standard", "deep", "archive", "default", "Deep", ""]))),
        (
            "/payload/quarantineAction",
            texts(some(&["auto_quarantine", "notify_and_hold", "allow_with_flag", "delete"])),
        ),
        ("/payload/metadata", prop_oneof![3 => metadata, 1 => long].boxed()),
    ]
}
