//! Packing: the waiting paths that share a request. Pure.
//!
//! Jobs take turns, one path each, until the request is full. A path that is equal to one in the request, or covered by
//! a wildcard in it (`p*` covers what starts with `p`, also `px*`), rides along for free, whoever it belongs to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::visits;
use crate::cdn::Capacity;

/// A request's JSON stays below this; the API takes 512,000 bytes.
const MAX_BODY_BYTES: usize = 400_000;
/// The bytes of the body around its paths.
const FRAME_BYTES: usize = 16;

/// The key of a job in the coalescer. It is not the job's id, because two messages may have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobKey(pub(super) u64);

/// A path of a job, by its index in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PathRef {
    pub(super) job: JobKey,
    pub(super) index: u32,
}

/// A path in a request's body, and all paths that it purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub(super) path: Arc<str>,
    /// The paths that are exactly this one; it was the first one's turn. Never empty.
    pub(super) items: Vec<PathRef>,
    pub(super) covered: Vec<PathRef>,
}

impl RequestLine {
    /// Returns the job whose turn it was.
    pub(super) fn owner(&self) -> Option<JobKey> {
        self.items.first().map(|item| item.job)
    }

    /// Lists everything that the line purges.
    pub(super) fn contents(&self) -> impl Iterator<Item = PathRef> + '_ {
        self.items.iter().chain(&self.covered).copied()
    }
}

/// Lists the jobs that `lines` carry paths of.
pub(super) fn jobs_on(lines: &[RequestLine]) -> BTreeSet<JobKey> {
    lines.iter().flat_map(RequestLine::contents).map(|item| item.job).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Shared,
    /// A request carries one job's paths only.
    Apart,
}

/// Separates the paths of jobs that do not share; all that share have the same.
type Scope = Option<JobKey>;

/// A job's waiting paths, in its own order. Those that rode along elsewhere stay in `order` until their turn.
#[derive(Debug)]
struct JobQueue {
    turn: u64,
    order: VecDeque<(u32, Arc<str>)>,
    waiting: usize,
}

#[derive(Debug)]
pub(super) struct PathPool {
    sharing: Sharing,
    capacity: Capacity,
    /// Exactly the jobs in `queues`, the next first.
    turns: BTreeMap<u64, JobKey>,
    next_turn: u64,
    queues: HashMap<JobKey, JobQueue>,
    /// The waiting paths in order, so that paths covered by another one are found quickly.
    index: BTreeMap<(Scope, Arc<str>), BTreeSet<PathRef>>,
    /// The requests that it takes if jobs do not share.
    requests_apart: usize,
}

impl PathPool {
    pub(super) fn new(sharing: Sharing, capacity: Capacity) -> Self {
        Self {
            sharing,
            capacity,
            turns: BTreeMap::new(),
            next_turn: 0,
            queues: HashMap::new(),
            index: BTreeMap::new(),
            requests_apart: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn has(&self, job: JobKey) -> bool {
        self.queues.contains_key(&job)
    }

    pub(super) fn distinct(&self) -> usize {
        self.index.len()
    }

    /// Returns how many requests can be filled; if jobs do not share, how many it takes for all that wait.
    pub(super) fn full_requests(&self) -> usize {
        match self.sharing {
            Sharing::Shared => self.distinct() / self.capacity.paths,
            Sharing::Apart => self.requests_apart,
        }
    }

    /// Lists the jobs that have paths waiting, the next in turn first.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobKey> + '_ {
        self.turns.values().copied()
    }

    /// Lists the jobs of about one request, those after the turn `after`, and the last one's turn.
    pub(super) fn jobs_of_next_request(&self, after: Option<u64>) -> (Vec<JobKey>, Option<u64>) {
        let jobs = match self.sharing {
            Sharing::Shared => self.capacity.paths,
            Sharing::Apart => 1,
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut next: Vec<_> = self.turns.range((from, Bound::Unbounded)).take(jobs).collect();
        if next.is_empty() {
            next = self.turns.iter().take(jobs).collect();
        }
        let last = next.last().map(|(turn, _)| **turn);
        (next.into_iter().map(|(_, job)| *job).collect(), last)
    }

    /// Lets `paths` of `job` wait, behind those of it that wait already.
    pub(super) fn add(&mut self, job: JobKey, paths: impl IntoIterator<Item = (u32, Arc<str>)>) {
        let scope = self.scope(job);
        for (index, path) in paths {
            visits::count();
            let is_new = self.index.entry((scope, Arc::clone(&path))).or_default().insert(PathRef { job, index });
            if is_new {
                let queue = self.queues.entry(job).or_insert_with(|| {
                    let turn = take_turn(&mut self.turns, &mut self.next_turn, job);
                    JobQueue { turn, order: VecDeque::new(), waiting: 0 }
                });
                queue.order.push_back((index, path));
                self.requests_apart -= queue.waiting.div_ceil(self.capacity.paths);
                queue.waiting += 1;
                self.requests_apart += queue.waiting.div_ceil(self.capacity.paths);
            }
        }
    }

    /// Takes back everything of `job` that waits.
    pub(super) fn remove(&mut self, job: JobKey) -> Vec<(u32, Arc<str>)> {
        let Some(queue) = self.queues.remove(&job) else { return Vec::new() };
        self.turns.remove(&queue.turn);
        self.requests_apart -= queue.waiting.div_ceil(self.capacity.paths);
        let scope = self.scope(job);
        let forget = |(index, path): &(u32, Arc<str>)| self.forget(scope, path, PathRef { job, index: *index });
        queue.order.into_iter().filter(forget).collect()
    }

    /// Takes the next request's lines; none if nothing waits.
    pub(super) fn pack(&mut self) -> Vec<RequestLine> {
        let mut request = Packing::default();
        while request.lines.len() < self.capacity.paths {
            let Some(job) = self.jobs().next() else { break };
            let Some((index, path)) = self.next_path(job) else { break };
            if !request.has_room_for(&path, self.capacity) {
                self.put_first(job, index, path);
                break;
            }
            let line = self.take(PathRef { job, index }, path);
            request.push(line);
            let is_next_still = self.jobs().next() == Some(job);
            match self.sharing {
                Sharing::Shared if is_next_still => self.end_turn(job),
                Sharing::Apart if !is_next_still => return request.lines,
                Sharing::Shared | Sharing::Apart => {}
            }
        }
        let next = self.jobs().next().filter(|_| self.sharing == Sharing::Apart);
        if let Some(job) = next {
            self.end_turn(job);
        }
        request.lines
    }

    fn scope(&self, job: JobKey) -> Scope {
        (self.sharing == Sharing::Apart).then_some(job)
    }

    fn end_turn(&mut self, job: JobKey) {
        if let Some(queue) = self.queues.get_mut(&job) {
            self.turns.remove(&queue.turn);
            queue.turn = take_turn(&mut self.turns, &mut self.next_turn, job);
        }
    }

    /// Takes the next path of `job` that has not ridden along elsewhere. It stays in the index.
    fn next_path(&mut self, job: JobKey) -> Option<(u32, Arc<str>)> {
        let scope = self.scope(job);
        let order = &mut self.queues.get_mut(&job)?.order;
        while let Some((index, path)) = order.pop_front() {
            visits::count();
            let key = (scope, path);
            if self.index.get(&key).is_some_and(|items| items.contains(&PathRef { job, index })) {
                return Some((index, key.1));
            }
        }
        None
    }

    fn put_first(&mut self, job: JobKey, index: u32, path: Arc<str>) {
        if let Some(queue) = self.queues.get_mut(&job) {
            queue.order.push_front((index, path));
        }
    }

    /// Takes the line of `path`, with everything that waits for it or is covered by it.
    fn take(&mut self, first: PathRef, path: Arc<str>) -> RequestLine {
        let scope = self.scope(first.job);
        let equal = self.index.remove(&(scope, Arc::clone(&path))).unwrap_or_default();
        let mut covered = Vec::new();
        if let Some(prefix) = path.strip_suffix('*') {
            let from = (scope, Arc::from(prefix));
            let is_covered = |key: &(Scope, Arc<str>)| key.0 == scope && key.1.starts_with(prefix);
            let keys: Vec<_> = self.index.range(from..).map(|(key, _)| key.clone()).take_while(is_covered).collect();
            covered.extend(keys.iter().filter_map(|key| self.index.remove(key)).flatten());
        }
        let items = std::iter::once(first).chain(equal.into_iter().filter(|item| *item != first)).collect();
        let line = RequestLine { path, items, covered };
        line.contents().for_each(|item| self.count_down(item.job));
        line
    }

    fn count_down(&mut self, job: JobKey) {
        visits::count();
        let Some(queue) = self.queues.get_mut(&job) else { return };
        self.requests_apart -= queue.waiting.div_ceil(self.capacity.paths);
        queue.waiting -= 1;
        self.requests_apart += queue.waiting.div_ceil(self.capacity.paths);
        if queue.waiting == 0 {
            self.turns.remove(&queue.turn);
            self.queues.remove(&job);
        }
    }

    fn forget(&mut self, scope: Scope, path: &Arc<str>, item: PathRef) -> bool {
        visits::count();
        let key = (scope, Arc::clone(path));
        let Some(items) = self.index.get_mut(&key) else { return false };
        let waited = items.remove(&item);
        if items.is_empty() {
            self.index.remove(&key);
        }
        waited
    }
}

/// Puts `job` behind all that have a turn.
fn take_turn(turns: &mut BTreeMap<u64, JobKey>, next_turn: &mut u64, job: JobKey) -> u64 {
    let turn = *next_turn;
    *next_turn += 1;
    turns.insert(turn, job);
    turn
}

#[derive(Debug, Default)]
struct Packing {
    lines: Vec<RequestLine>,
    bytes: usize,
    wildcards: usize,
}

impl Packing {
    fn has_room_for(&self, path: &str, capacity: Capacity) -> bool {
        let has_bytes = FRAME_BYTES + self.bytes + encoded_bytes(path) <= MAX_BODY_BYTES;
        let has_wildcards = !is_wildcard(path) || self.wildcards < capacity.wildcards;
        self.lines.is_empty() || has_bytes && has_wildcards
    }

    /// A wildcard takes over the lines it covers.
    fn push(&mut self, mut line: RequestLine) {
        if let Some(prefix) = line.path.strip_suffix('*') {
            for other in self.lines.extract_if(.., |other| other.path.starts_with(prefix)) {
                self.bytes -= encoded_bytes(&other.path);
                self.wildcards -= usize::from(is_wildcard(&other.path));
                line.covered.extend(other.contents());
            }
        }
        self.bytes += encoded_bytes(&line.path);
        self.wildcards += usize::from(is_wildcard(&line.path));
        self.lines.push(line);
    }
}

fn is_wildcard(path: &str) -> bool {
    path.ends_with('*')
}

/// Counts the bytes of a path in a JSON body.
fn encoded_bytes(path: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    path.bytes().map(of).sum::<usize>() + 3
}

#[cfg(test)]
mod tests;
