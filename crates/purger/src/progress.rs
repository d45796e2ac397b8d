//! The progress of a job: its purged paths and their requests. It is kept as [`PurgeState`] and reported as [`PurgeReport`].

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum number of request ids that are kept and reported.
const MAX_REQUEST_IDS: usize = 100;
/// The bytes that the request ids may take of a state of 16 KiB; the bitmap of 10,000 paths takes 1.7 KB.
const MAX_REQUEST_ID_BYTES: usize = 12_000;
const MAX_REPORTED_PATHS: usize = 1_000;

/// The state of a started job. Later versions only add optional fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PurgeState {
    /// The bitmap of the purged paths in base64, one bit per path of the payload.
    #[serde(skip_serializing_if = "Bitmap::is_empty")]
    done: Bitmap,
    /// The CDN's last answer that accepted paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PurgeStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_ids: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    batches: u32,
    #[serde(skip_serializing_if = "is_zero")]
    deduplicated: u32,
    #[serde(skip_serializing_if = "is_zero")]
    coalesced: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A bitmap with one bit per path. It stores only the bytes up to the last set bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bitmap(Vec<u8>);

impl Bitmap {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, index: usize) -> bool {
        self.0.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    fn set(&mut self, index: usize) {
        if self.0.len() <= index / 8 {
            self.0.resize(index / 8 + 1, 0);
        }
        self.0[index / 8] |= 1 << (index % 8);
    }
}

impl Serialize for Bitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The paths of one job that one request purged.
#[derive(Clone, Debug)]
pub(crate) struct AcceptedPaths<'a> {
    pub(crate) indices: &'a [u32],
    /// The number of these that were not in the body themselves.
    pub(crate) covered: u32,
    /// True if the request also contained another job.
    pub(crate) shared: bool,
    pub(crate) status: &'a PurgeStatus,
    pub(crate) request_ids: &'a [String],
}

/// The CDN's status for accepted paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum PurgeStatus {
    /// The HTTP status.
    Code(u16),
    /// The provider's status.
    Word(String),
}

/// Creates the progress of a job with this number of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgeProgress {
    state: PurgeState,
    total: usize,
    done: usize,
}

impl PurgeProgress {
    /// Resumes a job of `total` paths from its state.
    pub(crate) fn resume(state: PurgeState, total: usize) -> Self {
        let done = (0..total).filter(|index| state.done.has(*index)).count();
        Self { state, total, done }
    }

    /// Returns true if the path at `index` is purged.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.state.done.has(index as usize)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.done == self.total
    }

    /// Returns the indices of the remaining paths.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).take(self.total).filter(|index| !self.has(*index))
    }

    pub(crate) fn note(&mut self, accepted: &AcceptedPaths<'_>) {
        for index in accepted.indices.iter().map(|index| *index as usize).filter(|index| *index < self.total) {
            if !self.state.done.has(index) {
                self.state.done.set(index);
                self.done += 1;
            }
        }
        self.state.batches += 1;
        self.state.deduplicated += accepted.covered;
        self.state.coalesced += u32::from(accepted.shared);
        self.state.status = Some(accepted.status.clone());
        accepted.request_ids.iter().for_each(|id| self.note_request(id));
    }

    fn note_request(&mut self, id: &str) {
        let ids = &mut self.state.request_ids;
        if ids.len() == MAX_REQUEST_IDS {
            return;
        }
        let encoded = |id: &str| id.escape_default().count() + 3;
        let taken: usize = ids.iter().map(|id| encoded(id)).sum();
        if taken + encoded(id) <= MAX_REQUEST_ID_BYTES {
            ids.push(id.to_owned());
        }
    }

    /// Returns the state of the job; `None` if nothing was done.
    pub(crate) fn state(&self) -> Option<&PurgeState> {
        (self.state.batches > 0).then_some(&self.state)
    }

    pub(crate) fn report(&self, paths: &[Arc<str>]) -> PurgeReport {
        let list = |done: bool| {
            let chosen = paths.iter().zip(0..).filter(move |(_, index)| self.has(*index) == done);
            chosen.take(MAX_REPORTED_PATHS).map(|(path, _)| path.to_string()).collect::<Vec<_>>()
        };
        let is_short = !self.is_complete();
        PurgeReport {
            status: self.state.status.clone(),
            paths: list(true),
            paths_count: self.done,
            remaining: is_short.then(|| list(false)),
            remaining_count: is_short.then(|| self.total - self.done),
            request_ids: self.state.request_ids.clone(),
            batches: self.state.batches,
            deduplicated: self.state.deduplicated,
            coalesced: self.state.coalesced,
        }
    }
}

/// The report of a purge job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurgeReport {
    /// The CDN's status or its HTTP status, after it has accepted a request.
    pub(crate) status: Option<PurgeStatus>,
    /// The purged paths, the first 1,000.
    pub paths: Vec<String>,
    /// The number of entries of the payload that are purged.
    pub paths_count: usize,
    /// The paths that are not purged, the first 1,000, if the job did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<Vec<String>>,
    /// The number of entries of the payload that are not purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_count: Option<usize>,
    /// The CDN's ids of the requests with this job's paths, the first 100.
    pub request_ids: Vec<String>,
    /// The number of such requests.
    pub batches: u32,
    /// Number of paths that were not sent because another one in the same request covered them.
    pub deduplicated: u32,
    /// Number of requests that were shared with other jobs.
    pub coalesced: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(indices: &[u32]) -> AcceptedPaths<'_> {
        AcceptedPaths { indices, covered: 0, shared: false, status: &PurgeStatus::Code(202), request_ids: &[] }
    }

    #[test]
    fn the_state_of_the_largest_job_fits_its_header() {
        let mut progress = PurgeProgress::resume(PurgeState::default(), 10_000);
        let indices: Vec<u32> = (0..10_000).collect();
        for batch in indices.chunks(50) {
            let id = "7\"d9".repeat(32);
            progress.note(&AcceptedPaths { request_ids: &[id], ..accepted(batch) });
        }
        assert!(progress.is_complete());
        let state = serde_json::to_string(progress.state().unwrap()).unwrap();
        assert!(state.len() <= 16 * 1024, "{}", state.len());
    }

    #[test]
    fn a_hundred_ids_of_usual_length_are_kept() {
        let mut progress = PurgeProgress::resume(PurgeState::default(), 10_000);
        for index in 0..150 {
            let id = format!("7d9cbd9a-3f4d-4a51-9d0e-{index:012}");
            progress.note(&AcceptedPaths { indices: &[index], request_ids: &[id], ..accepted(&[]) });
        }
        assert_eq!(progress.report(&[]).request_ids.len(), 100);
    }

    #[test]
    fn a_job_that_did_nothing_has_no_state() {
        assert_eq!(PurgeProgress::resume(PurgeState::default(), 3).state(), None);
    }

    #[test]
    fn state_of_an_older_version_is_read() {
        let state: PurgeState = serde_json::from_str(r#"{"done":"BQ=="}"#).unwrap();
        let progress = PurgeProgress::resume(state, 4);
        assert_eq!(progress.remaining().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_bitmap_that_is_no_base64_is_unreadable_state() {
        assert!(serde_json::from_str::<PurgeState>(r#"{"done":"?"}"#).is_err());
    }

    #[test]
    fn a_failed_job_tells_what_remains_and_a_done_one_does_not() {
        let paths: Vec<Arc<str>> = ["/a", "/b", "/c"].map(Arc::from).to_vec();
        let mut progress = PurgeProgress::resume(PurgeState::default(), 3);
        progress.note(&AcceptedPaths {
            indices: &[0, 2],
            covered: 1,
            shared: true,
            status: &PurgeStatus::Code(202),
            request_ids: &["r-1".to_owned()],
        });
        let failed = serde_json::to_value(progress.report(&paths)).unwrap();
        let expected = serde_json::json!({
            "status": 202, "paths": ["/a", "/c"], "pathsCount": 2, "remaining": ["/b"], "remainingCount": 1,
            "requestIds": ["r-1"], "batches": 1, "deduplicated": 1, "coalesced": 1,
        });
        assert_eq!(failed, expected);
        progress.note(&accepted(&[1]));
        let done = serde_json::to_value(progress.report(&paths)).unwrap();
        assert!(done.get("remaining").is_none() && done.get("remainingCount").is_none(), "{done}");
        assert_eq!(done["pathsCount"], 3);
    }

    #[test]
    fn nothing_accepted_is_told_as_null() {
        let report = serde_json::to_value(PurgeProgress::resume(PurgeState::default(), 0).report(&[])).unwrap();
        assert!(report["status"].is_null());
    }

    proptest! {
        #[test]
        fn what_is_done_survives_the_journey(total in 1_usize..10_000, done in prop::collection::btree_set(0_u32..10_000, 0..200)) {
            let done: Vec<u32> = done.into_iter().filter(|index| (*index as usize) < total).collect();
            let mut progress = PurgeProgress::resume(PurgeState::default(), total);
            progress.note(&accepted(&done));
            let json = serde_json::to_string(progress.state().unwrap()).unwrap();
            let again = PurgeProgress::resume(serde_json::from_str(&json).unwrap(), total);
            prop_assert_eq!(&again, &progress);
            let left: Vec<u32> = again.remaining().collect();
            prop_assert_eq!(left.len() + done.len(), total);
            prop_assert!(left.iter().all(|index| !done.contains(index)));
        }
    }
}
