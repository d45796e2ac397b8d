//! The channel's Content Security Policy: one directive per entry, checked before it is sent.
//!
//! The crate `content-security-policy` parses an entry. It is as lenient as a browser, which ignores everything that it
//! does not understand. The rules that find mistakes are added here, and those of a source in [`source`].

use content_security_policy::{Directive, Policy, PolicyDisposition, PolicySource};

use crate::csp::source::CspSource;

pub(crate) mod source;

/// Maximum length in bytes. Most servers allow less for all headers of a response together.
pub(crate) const LONGEST: usize = 8192;

/// The directives that a channel can have.
pub(crate) const DIRECTIVES: [&str; 6] =
    ["default-src", "script-src", "style-src", "img-src", "connect-src", "frame-ancestors"];

/// The policy that is sent if no entry is given.
pub(crate) const DEFAULT: [&str; 6] = [
    "default-src https:",
    "script-src https: 'self'",
    "style-src https: 'self'",
    "img-src https: data: blob:",
    "connect-src https: wss:",
    "frame-ancestors https:",
];

const FRAME_ANCESTORS: &str = "frame-ancestors";

/// A valid directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The name, which is one of [`DIRECTIVES`].
    pub name: String,
    /// The text that is sent: name and keywords in lower case, one space between two words.
    pub text: String,
    /// Its sources that remove most of the protection, each once.
    pub unsafe_sources: Vec<&'static str>,
}

/// Parses the directive in `entry`, or returns all errors. Parsing the resulting text again does not change it.
pub(crate) fn directive(entry: &str) -> Result<Accepted, Vec<String>> {
    let directive = single(entry).map_err(|wrong| vec![wrong])?;
    let (sources, mut wrong) = parse_sources(&directive.value);
    wrong.extend(wrong_together(&directive.name, &sources, directive.value.len()));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let value: Vec<String> = sources.iter().map(|source| source.text.clone()).collect();
    let mut unsafe_sources: Vec<_> = sources.iter().filter_map(CspSource::takes_protection_away).collect();
    unsafe_sources.sort_unstable();
    unsafe_sources.dedup();
    let text = Directive { name: directive.name.clone(), value }.to_string();
    Ok(Accepted { name: directive.name, text, unsafe_sources })
}

/// Returns the name at the beginning of `entry`, in lower case, even if the rest is invalid.
pub(crate) fn name(entry: &str) -> Option<String> {
    let name = entry.split_ascii_whitespace().next()?.to_ascii_lowercase();
    DIRECTIVES.contains(&name.as_str()).then_some(name)
}

/// Splits the entry into name and sources, if it is one known directive.
fn single(entry: &str) -> Result<Directive, String> {
    if entry.len() > LONGEST {
        return Err(format!("a directive has at most {LONGEST} characters"));
    }
    if !entry.is_ascii() {
        return Err("a directive is ASCII: write international hosts in their xn-- form".to_owned());
    }
    if entry.contains([';', ',']) {
        return Err("an entry is one directive, without ; and without ,".to_owned());
    }
    let policy = Policy::parse(entry, PolicySource::Header, PolicyDisposition::Enforce);
    let Some(directive) = policy.directive_set.into_iter().next() else {
        return Err("the entry is empty: a directive and its sources are expected".to_owned());
    };
    if !DIRECTIVES.contains(&directive.name.as_str()) {
        let name: String = directive.name.chars().take(64).collect();
        return Err(format!("unknown directive {name:?}: allowed are {}", DIRECTIVES.join(", ")));
    }
    // Control characters except white space.
    if !directive.is_valid() {
        return Err("a directive has no control characters".to_owned());
    }
    Ok(directive)
}

fn parse_sources(value: &[String]) -> (Vec<CspSource>, Vec<String>) {
    let (mut sources, mut wrong) = (Vec::new(), Vec::new());
    for text in value {
        match CspSource::parse(text) {
            Ok(source) => sources.push(source),
            Err(why) => wrong.push(format!("{text}: {why}")),
        }
    }
    (sources, wrong)
}

/// Finds errors in a combination of sources that are each valid.
fn wrong_together(name: &str, sources: &[CspSource], written: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if written == 0 {
        wrong.push(format!("{name} has no source: write 'none' where nothing is allowed"));
    }
    if written > 1 && sources.iter().any(CspSource::is_none) {
        wrong.push("'none' stands alone".to_owned());
    }
    if name == FRAME_ANCESTORS {
        let loose = sources.iter().filter(|source| !source.may_embed());
        wrong.extend(loose.map(|source| {
            format!("{}: frame-ancestors may name only https:, https://…, 'self' and 'none'", source.text)
        }));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(entry: &str) -> String {
        directive(entry).unwrap_or_else(|wrong| panic!("{entry}: {wrong:?}")).text
    }

    #[test]
    fn good_directives_pass_and_are_sent_as_they_are() {
        let good = [
            "default-src 'none'",
            "script-src 'self' 'strict-dynamic' 'unsafe-hashes' 'report-sample' 'wasm-unsafe-eval'",
            "script-src 'nonce-c29tZQ==' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
            "script-src 'sha384-abc_-' 'SHA512-abc='",
            "style-src https://cdn.example.com/styles/ https://*.example.com:8443 cdn.example.com",
            "img-src * data: blob: https:",
            "img-src https://example.com:*/a%20b/c.png *.example.com:443",
            "connect-src wss://chat.example.com https://127.0.0.1:9000 http://localhost",
            "connect-src https://xn--bcher-kva.example",
            "frame-ancestors 'self' https://shop.example.com https:",
            "frame-ancestors 'none'",
            "frame-ancestors https://*.example.com",
        ];
        for entry in good.into_iter().chain(DEFAULT) {
            assert_eq!(sent(entry), entry);
        }
    }

    #[test]
    fn case_and_white_space_that_mean_nothing_are_evened_out() {
        assert_eq!(sent("  Script-SRC\t'SELF'  https://CDN.example.com "), "script-src 'self' https://CDN.example.com");
        assert_eq!(
            sent("frame-ancestors HTTPS://a.example HTTPS: 'Self'"),
            "frame-ancestors HTTPS://a.example HTTPS: 'self'"
        );
    }

    #[test]
    fn a_bad_directive_is_told_which_rule_it_breaks() {
        let table = [
            ("", "is empty"),
            ("  ", "is empty"),
            (";", "one directive"),
            ("default-src https:;", "one directive"),
            ("default-src https:; script-src https:", "one directive"),
            ("default-src https:, script-src https:", "one directive"),
            ("default-src bücher.example", "ASCII"),
            ("default-src\u{a0}https:", "ASCII"),
            ("default-src https:\u{1}", "control"),
            ("object-src 'none'", "unknown directive"),
            ("font-src https:", "unknown directive"),
            ("default-src: https:", "unknown directive"),
            ("https: default-src", "unknown directive"),
            ("upgrade-insecure-requests", "unknown directive"),
            ("default-src", "no source"),
            ("script-src 'self", "not balanced"),
            ("script-src self'", "not balanced"),
            ("script-src 'self'' https:", "not balanced"),
            ("script-src '", "not balanced"),
            ("script-src ''", "unknown keyword"),
            ("script-src \"self\"", "single quotes"),
            ("script-src 'selfish'", "unknown keyword"),
            ("script-src 'https:'", "unknown keyword"),
            ("script-src self", "needs single quotes"),
            ("script-src unsafe-inline", "needs single quotes"),
            ("script-src None", "needs single quotes"),
            ("script-src nonce-abc", "needs single quotes"),
            ("script-src 'nonce-'", "no nonce"),
            ("script-src 'nonce-a!b'", "no nonce"),
            ("script-src 'sha256-'", "no hash"),
            ("script-src 'sha1-abc'", "unknown keyword"),
            ("script-src 'none' https:", "stands alone"),
            ("script-src https: 'none'", "stands alone"),
            ("script-src 'none' 'none'", "stands alone"),
            ("script-src https://", "no valid host"),
            ("script-src https:/cdn.example.com", "no valid"),
            ("script-src ://cdn.example.com", "no valid scheme"),
            ("script-src 1http://cdn.example.com", "no valid scheme"),
            ("script-src 1http:", "no valid"),
            ("script-src example.com:", "no valid"),
            ("script-src https://-a.example", "no valid host"),
            ("script-src a..example", "no valid host"),
            ("script-src a_b.example", "no valid host"),
            ("script-src a.*.example", "no valid host"),
            ("script-src **", "no valid host"),
            ("script-src *example.com", "no valid host"),
            ("script-src [::1]", "no valid host"),
            ("script-src user@example.com", "no valid host"),
            ("script-src https://example.com:0", "no valid port"),
            ("script-src https://example.com:99999", "no valid port"),
            ("script-src example.com:a", "no valid port"),
            ("script-src example.com/?a", "no valid path"),
            ("script-src example.com/#a", "no valid path"),
            ("script-src example.com//a", "no valid path"),
            ("script-src example.com/%zz", "no valid path"),
            ("frame-ancestors *", "frame-ancestors may"),
            ("frame-ancestors http:", "frame-ancestors may"),
            ("frame-ancestors http://example.com", "frame-ancestors may"),
            ("frame-ancestors example.com", "frame-ancestors may"),
            ("frame-ancestors data:", "frame-ancestors may"),
            ("frame-ancestors 'unsafe-inline'", "frame-ancestors may"),
            ("frame-ancestors 'nonce-abc'", "frame-ancestors may"),
        ];
        for (entry, rule) in table {
            let wrong = directive(entry).expect_err(entry);
            assert!(wrong.iter().any(|one| one.contains(rule)), "{entry:?}: {wrong:?}");
        }
    }

    #[test]
    fn every_bad_source_of_an_entry_is_told() {
        let wrong = directive("frame-ancestors 'self http: https://ok.example *").expect_err("three are bad");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }

    #[test]
    fn what_takes_protection_away_passes_and_is_named() {
        let accepted = directive("script-src 'UNSAFE-INLINE' 'unsafe-eval' 'unsafe-inline'").unwrap();
        assert_eq!(accepted.unsafe_sources, ["'unsafe-eval'", "'unsafe-inline'"]);
        assert!(directive("script-src 'unsafe-hashes' 'wasm-unsafe-eval'").unwrap().unsafe_sources.is_empty());
    }

    fn stays_as_it_is(entry: &str) -> Result<(), TestCaseError> {
        let Ok(accepted) = directive(entry) else { return Ok(()) };
        prop_assert!(DIRECTIVES.contains(&accepted.name.as_str()));
        prop_assert_eq!(directive(&accepted.text), Ok(accepted.clone()));
        let parsed = Policy::parse(&accepted.text, PolicySource::Header, PolicyDisposition::Enforce);
        prop_assert!(parsed.is_valid());
        prop_assert_eq!(parsed.to_string(), accepted.text);
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_what_passes_stays_as_it_is(entry in any::<String>()) {
            stays_as_it_is(&entry)?;
        }

        #[test]
        fn text_that_looks_like_a_directive_is_judged_too(
            name in prop::sample::select(DIRECTIVES.to_vec()),
            sources in prop::collection::vec(
                prop_oneof![
                    "'[a-zA-Z0-9+=-]{0,12}'?",
                    "(https?:|wss:)?(//)?[*a-z.-]{0,9}(:[0-9*]{0,6})?(/[a-z%0-9]{0,4}){0,3}",
                    prop::sample::select(vec!["'self'", "'none'", "'unsafe-inline'", "https:", "data:", "*", "'nonce-YQ=='"]).prop_map(str::to_owned),
                ],
                0..4,
            ),
        ) {
            stays_as_it_is(&format!("{name} {}", sources.join(" ")))?;
        }
    }
}
