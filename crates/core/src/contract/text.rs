//! The text of documents: indented JSON without invisible characters.

use serde_json::Value;

/// Writes `document` as it stands in its file. Blank and control characters beyond ASCII, which occur in patterns, are
/// written as `\uXXXX`, because a reviewer cannot see them and an editor may change them.
pub fn write_json(document: &Value) -> String {
    let json = format!("{document:#}\n");
    // Outside of strings, JSON is ASCII.
    json.chars().map(|each| if is_invisible(each) { escape(each) } else { each.to_string() }).collect()
}

fn is_invisible(each: char) -> bool {
    each == '\u{7f}' || !each.is_ascii() && (each.is_whitespace() || each.is_control())
}

/// None of them needs more than four digits.
fn escape(each: char) -> String {
    format!("\\u{:04x}", u32::from(each))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_read_back_unchanged() {
        let document = json!({"pattern": "[\0 \u{7f}-\u{a0}\u{2028}\u{3000}]", "title": "1–3 €"});
        let written = write_json(&document);
        assert_eq!(
            written,
            "{\n  \"pattern\": \"[\\u0000 \\u007f-\\u00a0\\u2028\\u3000]\",\n  \"title\": \"1–3 €\"\n}\n"
        );
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), document);
    }
}
