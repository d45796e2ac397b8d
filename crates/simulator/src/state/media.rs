//! Attachments of conversations and documents, as `media.scan` finds them, and what is done about malware in them.
//!
//! Every id is that of a file. What is in it, the first digit of the id says: with `f` it holds the EICAR test string,
//! with `e` a medium is invalid, with `d` it is uploaded or prepared for a while, any other is a clean text. The nil
//! UUID is no file at all. A message has two attachments, of which the second is clean; with `0` as its first digit it
//! has none. An e-mail has one attachment, with the id of the e-mail. `set` gives ids other contents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::errors::ApiError;

/// Files, links to them, and what was done to conversations and documents.
#[derive(Debug, Default)]
pub(crate) struct Media {
    rules: Rules,
    keys: RandomState,
    first_asked_us: HashMap<String, u64>,
    attributes: BTreeMap<String, Value>,
    tags: BTreeMap<String, String>,
    disconnected: BTreeSet<String>,
    deleted: BTreeSet<String>,
    links: u64,
    fetches: u64,
    authorized_fetches: u64,
}

/// The behaviour of files; `set` changes some or all of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Rules {
    /// Milliseconds for which a link lives.
    link_ms: u64,
    /// Number of future links that do not work.
    dead_links: u64,
    /// Milliseconds after which a file that is uploaded or prepared is there; `null`: never.
    ready_ms: Option<u64>,
    /// Contents by id, as text.
    files: BTreeMap<String, String>,
    /// External tags of conversations.
    tags: BTreeMap<String, String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { link_ms: 600_000, dead_links: 0, ready_ms: Some(2_000), files: BTreeMap::new(), tags: BTreeMap::new() }
    }
}

impl Media {
    /// Returns a medium of a message conversation; `base` is the simulator's address in the request.
    pub(crate) fn medium(
        &mut self,
        conversation: &str,
        communication: &str,
        id: &str,
        base: &str,
        now_us: u64,
    ) -> Result<Value, ApiError> {
        exists(id)?;
        let status = match id.chars().next() {
            Some('e' | 'E') => "invalid",
            _ if !self.is_ready(id, now_us) => "uploading",
            _ => "valid",
        };
        let mut medium = json!({
            "id": id, "name": file_name(id), "mediaType": "text/plain", "status": status,
            "conversationId": conversation, "communicationId": communication,
        });
        if status == "valid" {
            medium["url"] = self.link(id, base, now_us).into();
            medium["contentLengthBytes"] = self.content(id).len().into();
        }
        Ok(medium)
    }

    /// A message with its attachments.
    pub(crate) fn message(&mut self, conversation: &str, id: &str, base: &str, now_us: u64) -> Result<Value, ApiError> {
        exists(id)?;
        let second = format!("a{}", id.get(1..).unwrap_or_default());
        let files = if id.starts_with('0') { Vec::new() } else { vec![id.to_owned(), second] };
        let content: Vec<Value> = files
            .iter()
            .map(|file| {
                let attachment = json!({
                    "id": file, "mediaType": "File", "url": self.link(file, base, now_us), "mime": "text/plain",
                    "filename": file_name(file), "contentSizeBytes": self.content(file).len(),
                });
                json!({"contentType": "Attachment", "attachment": attachment})
            })
            .collect();
        let normalized = json!({"id": id, "type": "Text", "direction": "Inbound", "content": content});
        Ok(json!({
            "id": id, "conversationId": conversation, "direction": "inbound", "messengerType": "webmessaging",
            "normalizedMessage": normalized,
        }))
    }

    /// An e-mail with its attachment, whose link is one of the API itself.
    pub(crate) fn email(&self, id: &str, base: &str) -> Result<Value, ApiError> {
        exists(id)?;
        let attachment = json!({
            "attachmentId": id, "name": file_name(id), "contentUri": format!("{base}/api/v2/downloads/{id}"),
            "contentType": "text/plain", "contentLength": self.content(id).len(), "inlineImage": false,
        });
        Ok(json!({"id": id, "subject": "Hello", "attachments": [attachment]}))
    }

    /// Returns the location of a document's content; `None` while it is prepared.
    pub(crate) fn document(&mut self, id: &str, base: &str, now_us: u64) -> Result<Option<Value>, ApiError> {
        exists(id)?;
        if self.deleted.contains(id) {
            return Err(ApiError::not_found());
        }
        let location = format!("{base}/api/v2/downloads/{id}");
        Ok(self.is_ready(id, now_us).then(|| json!({"id": id, "contentLocationUri": location})))
    }

    /// A link to a file, for whoever holds a token.
    pub(crate) fn download(&mut self, id: &str, base: &str, now_us: u64) -> Result<String, ApiError> {
        exists(id)?;
        Ok(self.link(id, base, now_us))
    }

    /// The bytes of a file, for whoever holds a link that is alive and shows no token beside it.
    pub(crate) fn fetch(
        &mut self,
        id: &str,
        (expires_us, key): (u64, &str),
        is_authorized: bool,
        now_us: u64,
    ) -> Result<Vec<u8>, StatusCode> {
        self.fetches += 1;
        if is_authorized {
            self.authorized_fetches += 1;
            return Err(StatusCode::BAD_REQUEST);
        }
        if now_us >= expires_us || key != self.key(id, expires_us) {
            return Err(StatusCode::FORBIDDEN);
        }
        Ok(self.content(id))
    }

    /// Sets attributes of a participant.
    pub(crate) fn flag(&mut self, participant: &str, body: &Value) -> Result<Value, ApiError> {
        let attributes = body.get("attributes").and_then(Value::as_object);
        let Some(attributes) = attributes.filter(|attributes| attributes.values().all(Value::is_string)) else {
            return Err(ApiError::invalid_value("attributes must be an object of texts"));
        };
        let kept = self.attributes.entry(participant.to_owned()).or_insert_with(|| json!({}));
        for (name, value) in attributes {
            kept[name] = value.clone();
        }
        Ok(json!({"attributes": kept}))
    }

    /// A conversation.
    pub(crate) fn conversation(&self, id: &str) -> Value {
        let mut conversation = json!({"id": id, "participants": []});
        if let Some(tag) = self.tags.get(id).or_else(|| self.rules.tags.get(id)) {
            conversation["externalTag"] = tag.as_str().into();
        }
        conversation
    }

    /// Sets the external tag of a conversation.
    pub(crate) fn tag(&mut self, id: &str, body: &Value) -> Result<(), ApiError> {
        let tag = body.get("externalTag").and_then(Value::as_str);
        let tag = tag.ok_or_else(|| ApiError::invalid_value("externalTag must be a text"))?;
        self.tags.insert(id.to_owned(), tag.to_owned());
        Ok(())
    }

    /// Disconnects a conversation.
    pub(crate) fn disconnect(&mut self, id: &str) {
        self.disconnected.insert(id.to_owned());
    }

    /// Deletes a document.
    pub(crate) fn delete(&mut self, id: &str) -> Result<(), ApiError> {
        exists(id)?;
        if !self.deleted.insert(id.to_owned()) {
            return Err(ApiError::not_found());
        }
        Ok(())
    }

    /// Returns the content for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "attributes": self.attributes,
            "tags": self.tags,
            "disconnected": self.disconnected,
            "deleted": self.deleted,
            "linksTotal": self.links,
            "fetchesTotal": self.fetches,
            "fetchesWithAuthorization": self.authorized_fetches,
        })
    }

    /// Changes how files behave: `{"linkMs": 600000, "deadLinks": 0, "readyMs": 2000, "files": {}, "tags": {}}`, each
    /// alone or together; `"readyMs": null` makes files that are never there.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let rules = &self.rules;
        let mut all = json!({
            "linkMs": rules.link_ms, "deadLinks": rules.dead_links, "readyMs": rules.ready_ms, "files": rules.files,
            "tags": rules.tags,
        });
        let change = change.as_object().ok_or("a change of the media is an object")?;
        for (name, value) in change {
            all[name] = value.clone();
        }
        self.rules = serde_json::from_value(all).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// A file whose id begins with `d` is there some time after somebody first asked for it.
    fn is_ready(&mut self, id: &str, now_us: u64) -> bool {
        if !id.starts_with(['d', 'D']) {
            return true;
        }
        let asked = *self.first_asked_us.entry(id.to_owned()).or_insert(now_us);
        self.rules.ready_ms.is_some_and(|ready| now_us >= asked.saturating_add(ready.saturating_mul(1_000)))
    }

    fn link(&mut self, id: &str, base: &str, now_us: u64) -> String {
        self.links += 1;
        let is_dead = self.rules.dead_links > 0;
        self.rules.dead_links = self.rules.dead_links.saturating_sub(1);
        let lives_us = if is_dead { 0 } else { self.rules.link_ms.saturating_mul(1_000) };
        let expires_us = now_us.saturating_add(lives_us);
        format!("{base}/media/{id}?expires={expires_us}&key={}", self.key(id, expires_us))
    }

    fn key(&self, id: &str, expires_us: u64) -> String {
        format!("{:016x}", self.keys.hash_one((id, expires_us)))
    }

    fn content(&self, id: &str) -> Vec<u8> {
        if let Some(content) = self.rules.files.get(id) {
            return content.clone().into_bytes();
        }
        let text = format!("A file of the simulator: {id}\n");
        // In parts, so that no virus scanner reports this program.
        let sample = || [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat();
        if id.starts_with(['f', 'F']) { sample().into_bytes() } else { text.into_bytes() }
    }
}

fn exists(id: &str) -> Result<(), ApiError> {
    match Uuid::try_parse(id) {
        Ok(id) if id.is_nil() => Err(ApiError::not_found()),
        Ok(_) => Ok(()),
        Err(_) => Err(ApiError::invalid_value("the id must be a UUID")),
    }
}

fn file_name(id: &str) -> String {
    format!("{}.txt", id.get(..8).unwrap_or(id))
}
