//! Attachments, documents and links, as `media.scan` finds them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Setup, read_answer};

const CLEAN: &str = "31b2c3d4-e5f6-7890-abcd-ef1234567890";
const MALWARE: &str = "f1b2c3d4-e5f6-7890-abcd-ef1234567890";
const LATE: &str = "d1b2c3d4-e5f6-7890-abcd-ef1234567890";
const MESSAGES: &str = "/api/v2/conversations/messages/c-1";

impl Setup {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, self.url(path)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap_or_default())
    }

    async fn medium(&self, id: &str) -> Value {
        self.ask(Method::GET, &format!("{MESSAGES}/communications/m-1/messages/media/{id}"), None).await.1
    }

    /// What a link gives to somebody without a token.
    async fn open(&self, link: &Value) -> (StatusCode, Vec<u8>) {
        let response = self.http.get(link.as_str().unwrap()).send().await.unwrap();
        (response.status(), response.bytes().await.unwrap().to_vec())
    }
}

#[tokio::test]
async fn a_medium_is_uploaded_or_invalid_or_there_and_its_link_needs_no_token() {
    let setup = Setup::new().await;
    let valid = setup.medium(CLEAN).await;
    assert_eq!(
        (&valid["id"], &valid["status"], &valid["mediaType"]),
        (&json!(CLEAN), &json!("valid"), &json!("text/plain"))
    );
    let (status, bytes) = setup.open(&valid["url"]).await;
    assert_eq!((status, &valid["contentLengthBytes"]), (StatusCode::OK, &json!(bytes.len())));
    let (_, bytes) = setup.open(&setup.medium(MALWARE).await["url"]).await;
    assert_eq!(bytes.len(), 68);
    let with_token = setup.http.get(valid["url"].as_str().unwrap()).bearer_auth(&setup.token).send().await.unwrap();
    assert_eq!(with_token.status(), StatusCode::BAD_REQUEST, "a link is its own key");
    assert_eq!(setup.simulator.state()["media"]["fetchesWithAuthorization"], 1);

    setup.simulator.set("media", &json!({"readyMs": null})).unwrap();
    assert_eq!(setup.medium(LATE).await["status"], "uploading");
    setup.simulator.set("media", &json!({"readyMs": 0})).unwrap();
    assert_eq!(setup.medium(LATE).await["status"], "valid");
    assert_eq!(setup.medium(&LATE.replace("d1", "e1")).await["status"], "invalid");
    let nobody = format!("{MESSAGES}/communications/m-1/messages/media/00000000-0000-0000-0000-000000000000");
    assert_eq!(setup.ask(Method::GET, &nobody, None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_link_dies_and_cannot_be_made_up() {
    let setup = Setup::new().await;
    setup.simulator.set("media", &json!({"deadLinks": 1, "files": {CLEAN: "hello"}})).unwrap();
    let dead = setup.medium(CLEAN).await["url"].clone();
    assert_eq!(setup.open(&dead).await.0, StatusCode::FORBIDDEN);
    let alive = setup.medium(CLEAN).await["url"].clone();
    assert_eq!(setup.open(&alive).await, (StatusCode::OK, b"hello".to_vec()));
    let made_up = json!(alive.as_str().unwrap().replace(CLEAN, MALWARE));
    assert_eq!(setup.open(&made_up).await.0, StatusCode::FORBIDDEN);
    assert!(setup.simulator.set("media", &json!({"linksLive": 1})).is_err());
}

#[tokio::test]
async fn messages_emails_and_documents_lead_to_downloads() {
    let setup = Setup::new().await;
    let (_, message) = setup.ask(Method::GET, &format!("{MESSAGES}/messages/{MALWARE}"), None).await;
    let content = message["normalizedMessage"]["content"].as_array().unwrap();
    assert_eq!((content.len(), &content[0]["attachment"]["contentSizeBytes"]), (2, &json!(68)));
    let none = format!("{MESSAGES}/messages/01b2c3d4-e5f6-7890-abcd-ef1234567890");
    assert_eq!(setup.ask(Method::GET, &none, None).await.1["normalizedMessage"]["content"], json!([]));

    let (_, email) = setup.ask(Method::GET, &format!("/api/v2/conversations/emails/c-1/messages/{CLEAN}"), None).await;
    let link = email["attachments"][0]["contentUri"].as_str().unwrap();
    let path = link.strip_prefix(&setup.simulator.base_url()).unwrap();
    let asked = setup.ask(Method::GET, &format!("{path}?issueRedirect=false&redirectToAuth=false"), None).await;
    assert_eq!(setup.open(&asked.1["url"]).await.0, StatusCode::OK);
    let without_token = read_answer(setup.http.get(link).send().await.unwrap()).await;
    assert_eq!(without_token.0, StatusCode::UNAUTHORIZED);

    let content = |id: &str| format!("/api/v2/contentmanagement/documents/{id}/content");
    setup.simulator.set("media", &json!({"readyMs": null})).unwrap();
    assert_eq!(setup.ask(Method::GET, &content(LATE), None).await.0, StatusCode::ACCEPTED);
    let (_, found) = setup.ask(Method::GET, &content(CLEAN), None).await;
    assert!(found["contentLocationUri"].as_str().unwrap().contains("/api/v2/downloads/"));
    let document = format!("/api/v2/contentmanagement/documents/{CLEAN}");
    assert_eq!(setup.ask(Method::DELETE, &document, None).await.0, StatusCode::ACCEPTED);
    assert_eq!(setup.ask(Method::GET, &content(CLEAN), None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(setup.ask(Method::DELETE, &document, None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_done_to_a_conversation_is_shown() {
    let setup = Setup::new().await;
    let attributes = format!("{MESSAGES}/participants/p-1/attributes");
    let body = json!({"attributes": {"genfleet.scan": "malware"}});
    assert_eq!(setup.ask(Method::PATCH, &attributes, Some(body)).await.0, StatusCode::ACCEPTED);
    let number = json!({"attributes": {"genfleet.scan": 7}});
    assert_eq!(setup.ask(Method::PATCH, &attributes, Some(number)).await.0, StatusCode::BAD_REQUEST);
    let (tags, tag) = ("/api/v2/conversations/c-1/tags", json!({"externalTag": "x"}));
    assert_eq!(setup.ask(Method::PUT, tags, Some(tag)).await.0, StatusCode::ACCEPTED);
    assert_eq!(setup.ask(Method::GET, "/api/v2/conversations/c-1", None).await.1["externalTag"], "x");
    assert_eq!(setup.ask(Method::POST, "/api/v2/conversations/c-1/disconnect", None).await.0, StatusCode::ACCEPTED);
    let media = setup.simulator.state()["media"].clone();
    assert_eq!(media["attributes"], json!({"p-1": {"genfleet.scan": "malware"}}));
    assert_eq!((&media["tags"], &media["disconnected"]), (&json!({"c-1": "x"}), &json!(["c-1"])));
}
