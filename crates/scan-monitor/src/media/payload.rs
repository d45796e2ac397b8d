//! The payload of a job, and the rules that no schema can state. Pure: the API decides whether a file exists.
//!
//! Choices are parsed as text, and a missing member as an empty one. The schema checks their values, and a payload that
//! violates it can still be parsed, so that all violations are reported at once.

use genfleet_core::job::{Violation, whole_number};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::payload::MAX_METADATA_BYTES;

/// A file to fetch from the platform, to scan with an engine, and to act on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct MediaPayload {
    /// Location of the file.
    pub(crate) source: Source,
    /// The expected SHA-256 of the file, in 64 hexadecimal digits; another one fails the job. Not for all attachments
    /// of a message.
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{64}$"), extend("x-rule" = "must be a SHA-256 in 64 hexadecimal digits, e.g. e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))]
    pub sha256: Option<String>,
    /// Maximum length of the file. A longer file is not scanned; the workers' --scan-max-bytes applies, too.
    #[serde(deserialize_with = "whole_number")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// Action if malware is found: `flag` the conversation by attributes of a participant, `tag` it, `disconnect`
    /// it, `delete` the document, or `none`. Default: `flag` for a conversation, else `none`.
    #[schemars(extend("enum" = ["none", "flag", "tag", "disconnect", "delete", null]))]
    pub on_threat: Option<String>,
    /// The participant whose attributes are set: required for `flag`.
    #[schemars(with = "Option<Id>")]
    pub participant_id: Option<String>,
    /// Any data of the sender, at most 16 KiB of JSON. It is copied into the report, and not sent to the API.
    pub metadata: Option<Map<String, Value>>,
}

/// The location of a file, exactly one of: `message`; `messageId` with `conversationId`; `email`; `document`; `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Source {
    /// One medium of a message conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<MessageMedia>,
    /// The message whose attachments are all scanned, with its conversation in `conversationId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub message_id: Option<String>,
    /// The conversation of `messageId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub conversation_id: Option<String>,
    /// One attachment of an e-mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<EmailAttachment>,
    /// A document of content management.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<Document>,
    /// A link, to one of the hosts in the workers' --media-hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub url: Option<String>,
}

/// One medium of a message conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
#[expect(clippy::struct_field_names, reason = "these are the names on the wire")]
pub(crate) struct MessageMedia {
    /// The conversation.
    #[schemars(with = "Id")]
    pub conversation_id: String,
    /// The communication.
    #[schemars(with = "Id")]
    pub communication_id: String,
    /// The medium.
    #[schemars(with = "Id")]
    pub media_id: String,
}

/// One attachment of an e-mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
#[expect(clippy::struct_field_names, reason = "these are the names on the wire")]
pub(crate) struct EmailAttachment {
    /// The conversation.
    #[schemars(with = "Id")]
    pub conversation_id: String,
    /// The e-mail.
    #[schemars(with = "Id")]
    pub message_id: String,
    /// The attachment.
    #[schemars(with = "Id")]
    pub attachment_id: String,
}

/// A document of content management.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Document {
    /// The document.
    #[schemars(with = "Id")]
    pub document_id: String,
}

/// An id of the platform. It becomes a segment of a path, so dots alone are invalid: they lead to a parent folder.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "its schema only")]
struct Id(
    #[schemars(length(max = 256), regex(pattern = r"^\.*[!-\-/-~][!-~]*$"), extend("x-rule" = "must be an id of 1 to 256 visible ASCII characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301"))]
     String,
);

/// The action if malware is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnThreat {
    None,
    Flag,
    Tag,
    Disconnect,
    Delete,
}

impl OnThreat {
    /// Returns the word in payloads and reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Flag => "flag",
            Self::Tag => "tag",
            Self::Disconnect => "disconnect",
            Self::Delete => "delete",
        }
    }
}

/// The parsed location of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind<'a> {
    Medium(&'a MessageMedia),
    Message { conversation_id: &'a str, message_id: &'a str },
    Email(&'a EmailAttachment),
    Document(&'a str),
    Url(&'a str),
}

impl SourceKind<'_> {
    /// Returns the conversation, and true if it is an e-mail conversation.
    pub(crate) fn conversation(&self) -> Option<(&str, bool)> {
        match self {
            Self::Medium(medium) => Some((&medium.conversation_id, false)),
            Self::Message { conversation_id, .. } => Some((conversation_id, false)),
            Self::Email(email) => Some((&email.conversation_id, true)),
            Self::Document(_) | Self::Url(_) => None,
        }
    }
}

impl Source {
    /// Parses the location; `None` unless there is exactly one.
    pub(crate) fn kind(&self) -> Option<SourceKind<'_>> {
        let message = match (&self.message_id, &self.conversation_id) {
            (None, None) => None,
            (message, conversation) => Some(SourceKind::Message {
                conversation_id: conversation.as_deref().unwrap_or_default(),
                message_id: message.as_deref().unwrap_or_default(),
            }),
        };
        let document = self.document.as_ref().map(|document| SourceKind::Document(&document.document_id));
        let all = [
            self.message.as_ref().map(SourceKind::Medium),
            message,
            self.email.as_ref().map(SourceKind::Email),
            document,
            self.url.as_deref().map(SourceKind::Url),
        ];
        let mut found = all.into_iter().flatten();
        found.next().filter(|_| found.next().is_none())
    }
}

impl MediaPayload {
    /// Returns the action if malware is found, or its default.
    pub(crate) fn on_threat(&self) -> OnThreat {
        match self.on_threat.as_deref() {
            Some("flag") => OnThreat::Flag,
            Some("tag") => OnThreat::Tag,
            Some("disconnect") => OnThreat::Disconnect,
            Some("delete") => OnThreat::Delete,
            Some(_) => OnThreat::None,
            None => match self.source.kind() {
                Some(kind) if kind.conversation().is_some() => OnThreat::Flag,
                _ => OnThreat::None,
            },
        }
    }

    /// Checks the rules that a schema cannot state.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut refuse = |at: &str, details: String| violations.push(Violation::new(at, details));
        match self.source.kind() {
            None => refuse("/payload/source", ONE_SOURCE.to_owned()),
            Some(kind) => self.check_for(kind, &mut refuse),
        }
        let bytes =
            self.metadata.as_ref().and_then(|metadata| serde_json::to_vec(metadata).ok()).map_or(0, |it| it.len());
        if bytes > MAX_METADATA_BYTES {
            refuse("/payload/metadata", format!("must be at most {MAX_METADATA_BYTES} bytes of JSON, found {bytes}"));
        }
        violations
    }

    fn check_for(&self, kind: SourceKind<'_>, refuse: &mut impl FnMut(&str, String)) {
        match kind {
            SourceKind::Message { message_id: "", .. } if self.source.message_id.is_none() => {
                refuse("/payload/source/messageId", "is missing: conversationId alone names no message".to_owned());
            }
            SourceKind::Message { conversation_id: "", .. } if self.source.conversation_id.is_none() => {
                refuse("/payload/source/conversationId", "is missing: messageId needs its conversation".to_owned());
            }
            SourceKind::Url(url) => {
                if let Err(why) = read_url(url) {
                    refuse("/payload/source/url", why.to_owned());
                }
            }
            _ => {}
        }
        if matches!(kind, SourceKind::Message { .. }) && self.sha256.is_some() {
            let details = "must not be given for all attachments of a message: name one by message, with its mediaId";
            refuse("/payload/sha256", details.to_owned());
        }
        let action = self.on_threat();
        let fits = match action {
            OnThreat::None => true,
            OnThreat::Flag | OnThreat::Tag | OnThreat::Disconnect => kind.conversation().is_some(),
            OnThreat::Delete => matches!(kind, SourceKind::Document(_)),
        };
        if !fits {
            let needs = if action == OnThreat::Delete { "a document" } else { "a conversation" };
            refuse("/payload/onThreat", format!("{} needs {needs} as source", action.as_str()));
        } else if action == OnThreat::Flag && self.participant_id.as_deref().is_none_or(str::is_empty) {
            let details =
                "is missing: flag, the default for a conversation, needs the participant whose attributes it sets";
            refuse("/payload/participantId", details.to_owned());
        }
    }
}

const ONE_SOURCE: &str = "must have exactly one of message, messageId with conversationId, email, document and url";

/// Parses a link: http or https, with a host, without a user.
pub(crate) fn read_url(url: &str) -> Result<Url, &'static str> {
    let read = Url::parse(url).map_err(|_| "must be an absolute link, e.g. https://files.example/report.pdf")?;
    if !matches!(read.scheme(), "https" | "http") || read.host_str().is_none_or(str::is_empty) {
        return Err("must begin with https://");
    }
    if !read.username().is_empty() || read.password().is_some() {
        return Err("must not hold a user or a password");
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
