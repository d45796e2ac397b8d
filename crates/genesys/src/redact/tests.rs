//! That no form of a secret comes through, and that nothing else goes.

use serde_json::json;
use url::form_urlencoded;

use super::*;

const TOKEN: &str = "tok-Zk9+/x y~42";
const SECRET: &str = "s3cr3t/hush+hush";

fn redactor() -> Redactor {
    Redactor::default().basic("the-id", SECRET).bearer(&HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap())
}

/// Parts of the secrets that no answer may hold, however it is escaped.
fn assert_hushed(text: &str) {
    let redacted = redactor().text(text).into_owned();
    assert!(redacted.contains(REDACTED), "{text} → {redacted}");
    for layer in layers(redacted.as_bytes()) {
        let read = String::from_utf8_lossy(&layer.bytes);
        for part in ["Zk9", "42", "s3cr3t", "hush"] {
            assert!(!read.contains(part), "{text} → {redacted}");
        }
    }
}

#[test]
fn a_secret_is_taken_out_as_it_is_and_as_forms_write_it() {
    assert_hushed(&format!("Authorization: Bearer {TOKEN}"));
    assert_hushed(&format!("{SECRET}{SECRET}"));
    assert_hushed("client_secret=s3cr3t%2Fhush%2Bhush&x");
    assert_hushed("client_secret=s3cr3t%2fhush%2bhush");
    assert_hushed("tok-Zk9%2B%2Fx+y%7E42");
    assert_hushed("tok-Zk9%2B%2Fx%20y%7E42");
    let pair = BASE64_STANDARD.encode(format!("the-id:{SECRET}"));
    assert_eq!(redactor().text(&format!("Basic {pair}")), REDACTED);
    assert_eq!(redactor().text(&form_urlencoded::byte_serialize(pair.as_bytes()).collect::<String>()), REDACTED);
}

fn each(text: &str, escape: impl Fn(char) -> String) -> String {
    text.chars().map(escape).collect()
}

type Writer = (&'static str, fn(&str) -> String);

/// A text as others write it.
const WRITERS: [Writer; 13] = [
    ("as it is", str::to_owned),
    ("Python's quote", |text| {
        each(text, |c| if c.is_alphanumeric() || "/_.-~".contains(c) { c.into() } else { format!("%{:02X}", c as u32) })
    }),
    ("percent", |text| each(text, |c| format!("%{:02X}", c as u32))),
    ("percent in small letters", |text| each(text, |c| format!("%{:02x}", c as u32))),
    ("JavaScript's escape", |text| each(text, |c| format!("%u{:04X}", c as u32))),
    ("JSON", |text| Value::from(text).to_string()),
    ("JSON with escaped slashes", |text| Value::from(text).to_string().replace('/', "\\/")),
    ("JSON escaped throughout", |text| each(text, |c| format!("\\u{:04x}", c as u32))),
    ("a literal", |text| each(text, |c| format!("\\x{:02X}", c as u32))),
    ("HTML", |text| each(text, |c| format!("&#x{:x};", c as u32))),
    ("HTML in decimals", |text| each(text, |c| format!("&#{};", c as u32))),
    ("UTF-16, low bytes first", |text| each(text, |c| format!("{c}\0"))),
    ("UTF-16, high bytes first", |text| each(text, |c| format!("\0{c}"))),
];

#[test]
fn a_secret_is_taken_out_however_it_is_escaped_and_escaped_again() {
    for (first, inner) in WRITERS {
        for (second, outer) in WRITERS {
            for secret in [TOKEN, SECRET, &BASE64_STANDARD.encode(format!("the-id:{SECRET}"))] {
                let text = outer(&format!("sent: {} 100%", inner(secret)));
                assert!(redactor().text(&text).contains(REDACTED), "{first}, {second}: {text}");
                assert_hushed(&text);
            }
        }
    }
}

#[test]
fn a_secret_that_looks_escaped_or_follows_what_begins_an_escape_is_taken_out() {
    for secret in ["ab%41%2Bcd&amp;x", r"n\u0041\\ef", "ab12cd34"] {
        let redactor = Redactor::default().basic("the-id", secret);
        for before in ["%", "\\", "&", "&#", "%25", "\\\\"] {
            let redacted = redactor.text(&format!("{before}{secret}")).into_owned();
            assert!(redacted.ends_with(REDACTED), "{before}{secret} → {redacted}");
        }
        for (writer, written) in WRITERS {
            let redacted = redactor.text(&written(secret)).into_owned();
            assert!(redacted.contains(REDACTED), "{writer}: {secret} → {redacted}");
        }
    }
}

#[test]
fn base64_in_lines_is_taken_out_as_a_whole() {
    let token = "0123456789abcdef".repeat(20);
    let redactor = Redactor::default().bearer(&HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    let encoded = BASE64_STANDARD_NO_PAD.encode(&token);
    for end in ["\r\n", "\n", "\\n"] {
        let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let redacted = redactor.text(&lines.join(end)).into_owned();
        assert!(redacted.starts_with(REDACTED) && redacted.len() < 20, "{redacted}");
    }
}

#[test]
fn the_largest_body_is_read_a_few_times_however_often_it_is_escaped() {
    let deep = format!("%{}41", "25".repeat(2 * 1024 * 1024));
    let wide = "%41\\u0041&#65;".repeat(50_000);
    for (text, most) in [(&deep, layer::MOST + 1), (&wide, 2)] {
        let lengths: Vec<usize> = layers(text.as_bytes()).map(|layer| layer.bytes.len()).collect();
        assert!(lengths.len() == most && lengths.is_sorted_by(|one, next| one > next), "{lengths:?}");
    }
    assert!(matches!(redactor().text(&wide), Cow::Borrowed(_)));
}

#[test]
fn a_secret_is_taken_out_of_base64_wherever_it_begins() {
    for secret in [TOKEN, SECRET] {
        for before in ["", "a", "ab", "the-id:", "Authorization: Bearer "] {
            for after in ["", "z", "\r\n"] {
                let whole = format!("{before}{secret}{after}");
                for encoded in [BASE64_STANDARD.encode(&whole), BASE64_URL_SAFE_NO_PAD.encode(&whole)] {
                    let redacted = redactor().text(&encoded).into_owned();
                    let left: usize = redacted.split(REDACTED).map(str::len).sum();
                    assert!(redacted.contains(REDACTED), "{whole}: {redacted}");
                    // What is left belongs to what is around it, but for two bits at either end.
                    let around = (before.len() + after.len()) * 4 / 3 + 6;
                    assert!(left <= around, "{whole}: {redacted}");
                }
            }
        }
    }
}

#[test]
fn a_short_secret_is_taken_out_where_it_is_announced_and_words_stay_whole() {
    let redactor = Redactor::default().basic("id", "et").bearer(&HeaderValue::from_static("Bearer t1"));
    assert_eq!(redactor.text("Bearer t1 is not at1 et al"), "[redacted] is not at1 et al");
    assert_eq!(redactor.text(&format!("Basic {}", BASE64_STANDARD.encode("id:et"))), REDACTED);
}

#[test]
fn an_answer_keeps_its_form_and_loses_what_it_quotes() {
    let quoted = json!({"message": format!("bad: Bearer {TOKEN}"), "errors": [{"sent": {SECRET: [SECRET]}}], "n": 1});
    let escaped = quoted.to_string().replace('/', "\\/");
    let throughout = quoted.to_string().replace("Zk9", "\\u005a\\u006b\\u0039").replace("hush", "\\u0068ush");
    for body in [quoted.to_string(), escaped, throughout] {
        let headers = [("x-request-id", TOKEN), ("etag", "\"7\"")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let received = HttpResponse { status: 400, headers: headers.into_iter().collect(), body: body.into() };
        let received = redactor().exchange(Ok(received)).unwrap();
        let told: Value = serde_json::from_slice(&received.body).unwrap();
        let expected = json!({"message": "bad: [redacted]", "errors": [{"sent": {REDACTED: [REDACTED]}}], "n": 1});
        assert_eq!(told, expected);
        assert_eq!(
            (&received.headers["x-request-id"], &received.headers["etag"]),
            (&REDACTED.parse().unwrap(), &"\"7\"".parse().unwrap())
        );
    }
}

#[test]
fn numbers_members_that_are_there_twice_and_headers_beyond_ascii_keep_no_secret() {
    let redactor = Redactor::default().basic("the-id", "1234567890");
    let headers = [("x-request-id".parse().unwrap(), HeaderValue::from_bytes(b"\xff 1234567890").unwrap())];
    let body = r#"{"sent":1234567890,"twice":"1234567890","twice":"x","n":12}"#;
    let received = HttpResponse { status: 400, headers: headers.into_iter().collect(), body: body.into() };
    let received = redactor.exchange(Ok(received)).unwrap();
    assert_eq!(received.body, r#"{"sent":"[redacted]","twice":"x","n":12}"#);
    assert!(!received.headers["x-request-id"].as_bytes().windows(4).any(|bytes| bytes == b"1234"), "{received:?}");
}

#[test]
fn an_answer_that_quotes_nothing_is_left_as_it_is() {
    let body = r#"{"b": 12345678901234567890123, "a":"\u00e4 \\ ", "a": 1}"#;
    let received = HttpResponse { status: 200, headers: [].into_iter().collect(), body: body.into() };
    assert_eq!(redactor().exchange(Ok(received)).unwrap().body, body);
}
