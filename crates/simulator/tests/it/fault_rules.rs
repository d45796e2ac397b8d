//! How fault rules are written, as text and as JSON.

use genfleet_simulator::{FaultRule, RetryAfter};
use serde_json::json;

fn full() -> FaultRule {
    FaultRule {
        name: Some("every, \"key\"".to_owned()),
        method: Some("POST".to_owned()),
        path: Some("/api/v2".to_owned()),
        body_contains: Some(r#""/a","/b\""#.to_owned()),
        rate: 0.2,
        times: Some(3),
        after: Some(1),
        status: Some(503),
        retry_after: Some(RetryAfter::Date("Wed, 21 Oct 2026 07:28:00 GMT".to_owned())),
        body: Some(String::new()),
        content_type: Some("text/html; charset=utf-8".to_owned()),
        latency: Some(1500),
        effect: Some(true),
        ..FaultRule::default()
    }
}

#[test]
fn text_and_json_give_back_the_rule_they_were_made_from() {
    let lost = FaultRule { lost: true, effect: Some(false), ..FaultRule::default() };
    let hang = FaultRule { hang: true, rate: 0.0, ..FaultRule::default() };
    for rule in [full(), lost, hang] {
        let text = rule.to_string();
        assert_eq!(text.parse::<FaultRule>().unwrap(), rule, "{text}");
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<FaultRule>(&json).unwrap(), rule, "{json}");
    }
}

#[test]
fn a_rule_is_written_as_people_write_it() {
    for text in [
        "status=429,retry-after=2,rate=0.2,path=/api/v2/external/cdn/purge",
        "lost,rate=0.05",
        "latency=200ms",
        "hang,times=1",
        r#"status=200,body="{\"a\":1,\"b\":2}""#,
    ] {
        assert_eq!(text.parse::<FaultRule>().unwrap().to_string(), text);
    }
}

#[test]
fn blanks_and_units_are_taken() {
    let rule: FaultRule = " lost = false , latency = 1.5s, rate=1 ".parse().unwrap();
    assert_eq!(rule, FaultRule { latency: Some(1500), ..FaultRule::default() });
    assert_eq!("latency=20".parse::<FaultRule>().unwrap().latency, Some(20));
}

#[test]
fn json_is_in_camel_case_and_leaves_out_what_is_not_there() {
    let rule: FaultRule = "status=429,retry-after=2,body-contains=/a".parse().unwrap();
    let json = json!({"status": 429, "retryAfter": 2, "bodyContains": "/a"});
    assert_eq!(serde_json::to_value(&rule).unwrap(), json);
    assert_eq!(serde_json::from_value::<FaultRule>(json).unwrap(), rule);
    assert!(serde_json::from_value::<FaultRule>(json!({"retry_after": 2})).is_err());
}

#[test]
fn a_wrong_rule_says_what_is_wrong_and_what_is_allowed() {
    for (text, said) in [
        ("", "the rule does nothing; give it one of status, body, latency, lost, hang"),
        ("rate=0.5", "the rule does nothing; give it one of status, body, latency, lost, hang"),
        ("state=500", "unknown key `state`; a rule has name, method, path, "),
        ("status=abc", "`status` cannot be `abc`; it takes a status from 200 to 599"),
        ("status=100", "`status` cannot be `100`; it takes a status from 200 to 599"),
        ("lost,rate=20%", "`rate` cannot be `20%`; it takes a number from 0 to 1, such as 0.2"),
        ("lost,rate=NaN", "`rate` cannot be `NaN`; it takes a number from 0 to 1, such as 0.2"),
        ("latency=soon", "`latency` cannot be `soon`; it takes milliseconds or seconds, such as 200ms or 1.5s"),
        ("latency=-1s", "`latency` cannot be `-1s`; it takes milliseconds or seconds"),
        ("status=503,retry-after=soon", "`retry-after` cannot be `soon`; it takes whole seconds, or an HTTP date"),
        ("lost,lost", "`lost` is there twice"),
        ("lost=maybe", "`lost` cannot be `maybe`; it takes nothing, or true or false"),
        ("lost,path=", "`path` cannot be ``; it takes a text"),
        ("lost,path=api", "`path` cannot be `api`; it takes what a path begins with"),
        ("lost,hang", "`lost` cannot be combined with `hang`"),
        ("lost,status=500", "`status` cannot be combined with `lost`"),
        ("latency=1s,retry-after=2", "`retry-after` needs `status`"),
        ("status=500,content-type=text/html", "`content-type` needs `body`"),
        (r#"status=500,body="x"#, "a double quote is not closed"),
    ] {
        let error = text.parse::<FaultRule>().unwrap_err();
        assert!(error.starts_with(said), "{text}: {error}");
    }
}
