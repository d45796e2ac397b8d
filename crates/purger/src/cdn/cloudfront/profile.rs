//! The shared credentials file of AWS's tools, as far as it holds keys.

use std::collections::HashMap;

/// The settings of `profile` in the text of a file; `None` where the file has no such profile.
pub(super) fn profile(text: &str, profile: &str) -> Option<HashMap<String, String>> {
    let mut found = None;
    let mut is_inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name.trim()) {
            let name = name.strip_prefix("profile ").map_or(name, str::trim);
            is_inside = name == profile;
            if is_inside {
                found.get_or_insert_with(HashMap::new);
            }
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_inside) {
            let settings = found.get_or_insert_with(HashMap::new);
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_up_to_the_next() {
        let text = "# all\n[default]\naws_access_key_id = A\n; not this\n\n[profile other]\nAWS_ACCESS_KEY_ID=B\nx = a=b\n[empty]";
        assert_eq!(profile(text, "default").unwrap(), HashMap::from([("aws_access_key_id".into(), "A".into())]));
        let other = profile(text, "other").unwrap();
        assert_eq!((other["aws_access_key_id"].as_str(), other["x"].as_str()), ("B", "a=b"));
        assert_eq!(profile(text, "empty"), Some(HashMap::new()));
        assert_eq!(profile(text, "none"), None);
    }
}
