//! The typed API calls of `media.scan`, and the ids in their paths. The callers decide what an answer means for a job.

use genfleet_core::{
    genesys::{ApiError, ApiRequest},
    handler::JobContext,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::payload::{EmailAttachment, MessageMedia};

/// The permissions for these calls. A client needs only those of the calls that its jobs use.
pub(crate) const PERMISSIONS: &[&str] = &[
    "conversation:message:view",
    "conversation:webmessaging:view",
    "content_management_user",
    "conversation:externalTag:edit",
    "conversation:communication:view",
    "conversation:communication:disconnect",
];

const MEDIUM: &str =
    "/api/v2/conversations/messages/{conversationId}/communications/{communicationId}/messages/media/{mediaId}";
const MESSAGE: &str = "/api/v2/conversations/messages/{conversationId}/messages/{messageId}";
const EMAIL: &str = "/api/v2/conversations/emails/{conversationId}/messages/{messageId}";
const CONTENT: &str = "/api/v2/contentmanagement/documents/{documentId}/content";
const DOWNLOAD: &str = "/api/v2/downloads/{downloadId}";
const MESSAGE_ATTRIBUTES: &str =
    "/api/v2/conversations/messages/{conversationId}/participants/{participantId}/attributes";
const EMAIL_ATTRIBUTES: &str = "/api/v2/conversations/emails/{conversationId}/participants/{participantId}/attributes";
const CONVERSATION: &str = "/api/v2/conversations/{conversationId}";
pub(super) const TAGS: &str = "/api/v2/conversations/{conversationId}/tags";
const DISCONNECT: &str = "/api/v2/conversations/{conversationId}/disconnect";
const DOCUMENT: &str = "/api/v2/contentmanagement/documents/{documentId}";
/// The statuses of a successful change.
const TAKEN: &[u16] = &[200, 202, 204];
/// Maximum length of a text in an answer, which is copied into the event. Longer texts are cut.
const MOST_TEXT_CHARS: usize = 256;

/// A file that the platform offers, before it is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub link: String,
    pub name: Option<String>,
    pub media_type: Option<String>,
    /// The length in bytes, as the platform reports it.
    pub length: Option<u64>,
}

/// The location of a file, as the platform reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    Here(Vec<Offered>),
    /// The file is being uploaded or prepared.
    NotYet,
    /// The platform reports that the medium is invalid.
    Invalid,
    /// The e-mail does not have this attachment.
    NoAttachment,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaData {
    url: Option<String>,
    media_type: Option<String>,
    content_length_bytes: Option<u64>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    normalized_message: Option<NormalizedMessage>,
}

#[derive(Deserialize)]
struct NormalizedMessage {
    #[serde(default)]
    content: Option<Vec<Content>>,
}

#[derive(Deserialize)]
struct Content {
    attachment: Option<MessageAttachment>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageAttachment {
    url: Option<String>,
    mime: Option<String>,
    filename: Option<String>,
    content_size_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct EmailMessage {
    #[serde(default)]
    attachments: Option<Vec<Attachment>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    #[serde(rename = "attachmentId")]
    id: Option<String>,
    name: Option<String>,
    content_uri: Option<String>,
    content_type: Option<String>,
    content_length: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DownloadResponse {
    content_location_uri: Option<String>,
}

#[derive(Deserialize)]
struct UrlResponse {
    url: String,
}

/// Finds one medium of a message conversation.
pub(crate) async fn medium(job: &JobContext, medium: &MessageMedia) -> Result<Located, ApiError> {
    let MessageMedia { conversation_id, communication_id, media_id } = medium;
    let request =
        ApiRequest::get(MEDIUM).ids(&[conversation_id, communication_id, media_id]).expect_member("id", media_id);
    let data: MediaData = job.send(request).await?.json()?;
    Ok(match (data.status.as_deref(), data.url) {
        (Some("invalid"), _) => Located::Invalid,
        (Some("uploading"), _) | (_, None) => Located::NotYet,
        (_, Some(link)) => Located::Here(vec![Offered {
            link,
            media_type: limit_length(data.media_type),
            length: data.content_length_bytes,
            name: None,
        }]),
    })
}

/// Finds all attachments of a message.
pub(crate) async fn message(job: &JobContext, conversation: &str, message: &str) -> Result<Located, ApiError> {
    let request = ApiRequest::get(MESSAGE).ids(&[conversation, message]).expect_member("id", message);
    let found: Message = job.send(request).await?.json()?;
    let content = found.normalized_message.and_then(|message| message.content).unwrap_or_default();
    let attachments = content.into_iter().filter_map(|content| content.attachment);
    let offered = attachments.filter_map(|attachment| {
        Some(Offered {
            link: attachment.url?,
            name: limit_length(attachment.filename),
            media_type: limit_length(attachment.mime),
            length: attachment.content_size_bytes,
        })
    });
    Ok(Located::Here(offered.collect()))
}

/// Finds one attachment of an e-mail.
pub(crate) async fn email(job: &JobContext, email: &EmailAttachment) -> Result<Located, ApiError> {
    let EmailAttachment { conversation_id, message_id, attachment_id } = email;
    let request = ApiRequest::get(EMAIL).ids(&[conversation_id, message_id]).expect_member("id", message_id);
    let found: EmailMessage = job.send(request).await?.json()?;
    let mut attachments = found.attachments.unwrap_or_default().into_iter();
    let Some(attachment) = attachments.find(|one| one.id.as_ref() == Some(attachment_id)) else {
        return Ok(Located::NoAttachment);
    };
    let Some(link) = attachment.content_uri else { return Ok(Located::NotYet) };
    Ok(Located::Here(vec![Offered {
        link,
        name: limit_length(attachment.name),
        media_type: limit_length(attachment.content_type),
        length: attachment.content_length,
    }]))
}

/// Finds the content of a document.
pub(crate) async fn document(job: &JobContext, document: &str) -> Result<Located, ApiError> {
    let request = ApiRequest::get(CONTENT).ids(&[document]).expect(&[200, 202]).allow_empty_body();
    let answer = job.send(request).await?;
    if answer.status == 202 {
        return Ok(Located::NotYet);
    }
    let found: DownloadResponse = answer.json()?;
    Ok(match found.content_location_uri {
        Some(link) => Located::Here(vec![Offered { link, ..Offered::default() }]),
        None => Located::NotYet,
    })
}

/// Returns the id of a download, if `link` is one on the API's host.
pub(crate) fn download_id(api: &Url, link: &Url) -> Option<String> {
    if link.origin() != api.origin() {
        return None;
    }
    let path = link.path().strip_prefix(api.path().trim_end_matches('/'))?;
    let id = path.strip_prefix("/api/v2/downloads/")?;
    (!id.is_empty() && !id.contains('/')).then(|| id.to_owned())
}

/// Exchanges a download on the API's own host for a link that needs no token. `None` if it is gone.
pub(crate) async fn download(job: &JobContext, id: &str) -> Result<Option<String>, ApiError> {
    // The id comes from a path, so it is already encoded.
    let request = ApiRequest::get(DOWNLOAD).at(DOWNLOAD.replace("{downloadId}", id)).expect(&[200, 404, 410]);
    let request = request.query("issueRedirect", false).query("redirectToAuth", false);
    let answer = job.send(request).await?;
    if answer.status != 200 {
        return Ok(None);
    }
    Ok(Some(answer.json::<UrlResponse>()?.url))
}

/// Sets attributes of a participant.
pub(crate) async fn flag(
    job: &JobContext,
    (conversation, is_email): (&str, bool),
    participant: &str,
    attributes: &Map<String, Value>,
) -> Result<(), ApiError> {
    let endpoint = if is_email { EMAIL_ATTRIBUTES } else { MESSAGE_ATTRIBUTES };
    let request = ApiRequest::patch(endpoint).ids(&[conversation, participant]);
    let request = request.expect(TAKEN).allow_empty_body().safe_to_repeat();
    job.send(request.json(&json!({ "attributes": attributes }))).await.map(drop)
}

/// Reads the external tag of a conversation.
pub(crate) async fn tag_of(job: &JobContext, conversation: &str) -> Result<Option<String>, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Conversation {
        external_tag: Option<String>,
    }
    let request = ApiRequest::get(CONVERSATION).ids(&[conversation]).expect_member("id", conversation);
    let found: Conversation = job.send(request).await?.json()?;
    Ok(found.external_tag.filter(|tag| !tag.is_empty()))
}

/// Sets the external tag of a conversation.
pub(crate) async fn set_tag(job: &JobContext, conversation: &str, tag: &str) -> Result<(), ApiError> {
    let request = ApiRequest::put(TAGS).ids(&[conversation]).expect(TAKEN).allow_empty_body();
    job.send(request.json(&json!({ "externalTag": tag }))).await.map(drop)
}

/// Disconnects a conversation. It is no error if it is already disconnected.
pub(crate) async fn disconnect(job: &JobContext, conversation: &str) -> Result<(), ApiError> {
    let request = ApiRequest::post(DISCONNECT).ids(&[conversation]);
    job.send(request.expect(TAKEN).allow_empty_body().safe_to_repeat()).await.map(drop)
}

/// Deletes a document. It is no error if it no longer exists.
pub(crate) async fn delete(job: &JobContext, document: &str) -> Result<(), ApiError> {
    let request = ApiRequest::delete(DOCUMENT).ids(&[document]);
    job.send(request.expect(&[200, 202, 204, 404, 410]).allow_empty_body()).await.map(drop)
}

fn limit_length(text: Option<String>) -> Option<String> {
    text.map(|text| text.chars().filter(|each| !each.is_control()).take(MOST_TEXT_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_on_the_host_of_the_api_with_scheme_and_port() {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let id = |link: &str| download_id(&api, &Url::parse(link).unwrap());
        assert_eq!(id("https://api.mypurecloud.ie/api/v2/downloads/a-1?x=y"), Some("a-1".to_owned()));
        assert_eq!(id("https://api.mypurecloud.ie:443/api/v2/downloads/a-1"), Some("a-1".to_owned()));
        for other in [
            "http://api.mypurecloud.ie/api/v2/downloads/a-1",
            "https://api.mypurecloud.ie:8443/api/v2/downloads/a-1",
            "https://api.mypurecloud.ie.evil.example/api/v2/downloads/a-1",
            "https://apps.mypurecloud.ie/api/v2/downloads/a-1",
            "https://api.mypurecloud.ie/api/v2/downloads/",
            "https://api.mypurecloud.ie/api/v2/downloads/a/b",
            "https://api.mypurecloud.ie/api/v2/users/me",
        ] {
            assert_eq!(id(other), None, "{other}");
        }
        let api = Url::parse("http://127.0.0.1:8480/stand-in/").unwrap();
        let link = Url::parse("http://127.0.0.1:8480/stand-in/api/v2/downloads/a").unwrap();
        assert_eq!(download_id(&api, &link), Some("a".to_owned()));
    }
}
