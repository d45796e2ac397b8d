//! Lists of the API in pages, which are numbered or follow a cursor.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use crate::{answer::ApiAnswer, error::ApiError, request::ApiRequest};
use genfleet_job::error::ErrorClass;

/// Entries of a page.
const PAGE_SIZE: u32 = 100;
/// Maximum number of pages of a list. A longer list does not end, or is too long for a job.
const MOST_PAGES: u32 = 500;

/// A whole list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entries of all pages.
    pub entities: Vec<T>,
    /// The number of entries that the API reports, if it does.
    pub total: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: DeserializeOwned"))]
struct Page<T> {
    #[serde(default = "Vec::new")]
    entities: Vec<T>,
    total: Option<u64>,
    next_uri: Option<String>,
}

/// A list that is being read, page by page: [`next`](Self::next) says what to send, [`take`](Self::take) takes the
/// answer.
#[derive(Debug)]
pub struct Listing<T> {
    request: ApiRequest,
    /// The position of the next page; `None` at the end of the list.
    next: Option<PagePosition>,
    pages: u32,
    seen: BTreeSet<String>,
    listed: Listed<T>,
}

/// The place of a page in its list.
#[derive(Debug)]
enum PagePosition {
    Number(u32),
    FirstBeforeCursor,
    After(String),
}

impl<T: DeserializeOwned> Listing<T> {
    /// Begins a list that is numbered by pages: `request` is sent with `pageSize=100&pageNumber=N` until a page is
    /// empty or `total` is reached.
    pub fn by_number(request: ApiRequest) -> Self {
        Self::new(request, PagePosition::Number(1))
    }

    /// Begins a list that goes on behind a cursor: `request` is sent with `pageSize=100`, then with `after` as
    /// `nextUri` has it, until there is none or it repeats.
    pub fn by_cursor(request: ApiRequest) -> Self {
        Self::new(request, PagePosition::FirstBeforeCursor)
    }

    fn new(request: ApiRequest, first: PagePosition) -> Self {
        let listed = Listed { entities: Vec::new(), total: None };
        Self { request, next: Some(first), pages: 0, seen: BTreeSet::new(), listed }
    }

    /// The request for the next page; `None` once the list is read.
    pub fn next(&self) -> Option<ApiRequest> {
        let request = self.request.clone().query("pageSize", PAGE_SIZE);
        Some(match self.next.as_ref()? {
            PagePosition::Number(number) => request.query("pageNumber", number),
            PagePosition::FirstBeforeCursor => request,
            PagePosition::After(after) => request.query("after", after),
        })
    }

    /// Adds the last requested page.
    #[expect(clippy::result_large_err, reason = "once per page, and it goes no further than the worker")]
    pub fn take(&mut self, answer: &ApiAnswer) -> Result<(), ApiError> {
        let page: Page<T> = answer.json()?;
        let is_empty = page.entities.is_empty();
        self.pages += 1;
        self.listed.entities.extend(page.entities);
        self.listed.total = page.total.or(self.listed.total);
        self.next = match self.next.take() {
            Some(PagePosition::Number(number)) => {
                let is_whole = self.listed.total.is_some_and(|total| self.listed.entities.len() as u64 >= total);
                (!is_empty && !is_whole).then_some(PagePosition::Number(number + 1))
            }
            Some(PagePosition::FirstBeforeCursor | PagePosition::After(_)) | None => {
                let after = page.next_uri.as_deref().and_then(cursor);
                after.filter(|after| self.seen.insert(after.clone())).map(PagePosition::After)
            }
        };
        if self.pages >= MOST_PAGES && self.next.is_some() {
            return Err(endless(&self.request));
        }
        Ok(())
    }

    /// The entries of all pages that were taken.
    pub fn into_listed(self) -> Listed<T> {
        self.listed
    }
}

/// The value of `after` in a `nextUri`, which has a path or a whole address.
fn cursor(next_uri: &str) -> Option<String> {
    let base = Url::parse("https://api.invalid").ok()?;
    let next = base.join(next_uri).ok()?;
    let (_, after) = next.query_pairs().find(|(name, _)| name == "after")?;
    Some(after.into_owned()).filter(|after| !after.is_empty())
}

fn endless(request: &ApiRequest) -> ApiError {
    let message = format!("{}: the list has more than {MOST_PAGES} pages of {PAGE_SIZE} entries", request.name());
    ApiError::new(ErrorClass::Permanent, "unexpected_response", message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::{Value, json};
    use url::form_urlencoded;

    use super::*;

    /// Answers with one body after the other, the last one again and again; keeps the queries.
    struct Pages {
        bodies: Vec<Value>,
        asked: RefCell<Vec<String>>,
    }

    impl Pages {
        fn of(bodies: impl IntoIterator<Item = Value>) -> Self {
            Self { bodies: bodies.into_iter().collect(), asked: RefCell::default() }
        }

        fn send(&self, request: &ApiRequest) -> ApiAnswer {
            let mut asked = self.asked.borrow_mut();
            let body = self.bodies.get(asked.len()).or(self.bodies.last()).unwrap().to_string();
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&request.query).finish();
            asked.push(query);
            ApiAnswer {
                status: 200,
                request_id: None,
                headers: reqwest::header::HeaderMap::new(),
                body: body.into(),
                requests: 1,
                trace: None,
            }
        }
    }

    const LIST: &str = "/api/v2/things";

    #[expect(clippy::result_large_err, reason = "in tests")]
    fn read(pages: &Pages, mut listing: Listing<u64>) -> Result<Listed<u64>, ApiError> {
        while let Some(request) = listing.next() {
            listing.take(&pages.send(&request))?;
        }
        Ok(listing.into_listed())
    }

    #[expect(clippy::result_large_err, reason = "in tests")]
    fn numbered(pages: &Pages) -> Result<Listed<u64>, ApiError> {
        read(pages, Listing::by_number(ApiRequest::get(LIST).query("expand", "all")))
    }

    #[expect(clippy::result_large_err, reason = "in tests")]
    fn cursored(pages: &Pages) -> Result<Listed<u64>, ApiError> {
        read(pages, Listing::by_cursor(ApiRequest::get(LIST)))
    }

    #[test]
    fn numbered_pages_end_with_the_total_or_an_empty_one() {
        let pages = Pages::of([json!({"entities": [1, 2], "total": 3}), json!({"entities": [3], "total": 3})]);
        assert_eq!(numbered(&pages).unwrap(), Listed { entities: vec![1, 2, 3], total: Some(3) });
        let asked = ["expand=all&pageSize=100&pageNumber=1", "expand=all&pageSize=100&pageNumber=2"];
        assert_eq!(*pages.asked.borrow(), asked);
        let pages = Pages::of([json!({"entities": [1]}), json!({"entities": []})]);
        assert_eq!(numbered(&pages).unwrap(), Listed { entities: vec![1], total: None });
        let none = Pages::of([json!({"total": 7})]);
        assert_eq!(numbered(&none).unwrap(), Listed { entities: vec![], total: Some(7) });
    }

    #[test]
    fn a_cursor_is_followed_until_it_is_missing_or_repeats() {
        let next = |uri: &str, entry: u64| json!({"entities": [entry], "nextUri": uri});
        let uris = ["/api/v2/things?pageSize=100&after=a%2Fb%3D", "https://api.example/api/v2/things?after=c"];
        let pages = Pages::of([next(uris[0], 1), next(uris[1], 2), json!({"entities": [3]})]);
        assert_eq!(cursored(&pages).unwrap().entities, [1, 2, 3]);
        assert_eq!(*pages.asked.borrow(), ["pageSize=100", "pageSize=100&after=a%2Fb%3D", "pageSize=100&after=c"]);
        let again = Pages::of([next(uris[1], 1), next(uris[1], 2)]);
        assert_eq!(cursored(&again).unwrap().entities, [1, 2]);
        for no_cursor in ["/api/v2/things?pageSize=100", "/api/v2/things?after=", ""] {
            assert_eq!(cursored(&Pages::of([next(no_cursor, 1)])).unwrap().entities, [1], "{no_cursor}");
        }
    }

    #[test]
    fn a_list_that_does_not_end_is_an_error() {
        let error = numbered(&Pages::of([json!({"entities": [1]})])).unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "unexpected_response"));
        assert!(error.message.contains("GET /api/v2/things"), "{}", error.message);
    }
}
