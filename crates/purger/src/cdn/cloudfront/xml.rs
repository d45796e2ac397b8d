//! The little XML that CloudFront's and STS's answers need: the text of an element by its name.

/// Escapes a text for the content of an element.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Returns the content of the first element `name`, whatever it is inside of; plain text is unescaped.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let mut rest = xml;
    loop {
        let (_, after) = rest.split_once('<')?;
        rest = after;
        let Some(after_name) = after.strip_prefix(name) else { continue };
        let (attributes, content) = after_name.split_once('>')?;
        let is_whole_name =
            attributes.is_empty() || attributes.starts_with(|next: char| next.is_whitespace() || next == '/');
        if !is_whole_name {
            continue;
        }
        if attributes.ends_with('/') {
            return Some(String::new());
        }
        let (content, _) = content.split_once(&format!("</{name}>"))?;
        return Some(if content.contains('<') { content.to_owned() } else { unescape(content.trim()) });
    }
}

fn unescape(text: &str) -> String {
    const ENTITIES: [(&str, &str); 5] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    ENTITIES.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_of_exactly_that_name_is_found() {
        let xml =
            "<?xml version=\"1.0\"?>\n<A xmlns=\"x\"><Ids>no</Ids>\n <Id>i &lt;1&gt; &amp;amp;</Id><Id>2</Id><E/></A>";
        assert_eq!(element(xml, "Id").as_deref(), Some("i <1> &amp;"));
        assert_eq!(element(xml, "E").as_deref(), Some(""));
        assert!(element(xml, "A").is_some_and(|content| content.contains("<Id>2</Id>")));
        for (xml, name) in [(xml, "B"), ("<Id>", "Id"), ("<Id", "Id"), ("", "Id"), ("<html><p>Id</p>", "Id")] {
            assert_eq!(element(xml, name), None, "{xml}");
        }
    }

    #[test]
    fn what_is_escaped_is_read_back() {
        let text = "/a&b<c>";
        assert_eq!(element(&format!("<Path>{}</Path>", escape(text)), "Path").as_deref(), Some(text));
    }
}
