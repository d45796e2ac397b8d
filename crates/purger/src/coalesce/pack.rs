//! Packing: which waiting paths share a request. Pure; when a request goes and what becomes of it is decided
//! elsewhere.
//!
//! Jobs take turns, one path each, until the request is full. A path equal to one in the request, or covered by
//! a wildcard in it (`p*` covers what starts with `p`, also `px*`), rides along for free, whoever it belongs to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Paths in one request, at most: the API's limit.
pub const MAX_PATHS: usize = 100;
/// A request's JSON stays below this; the API takes 512,000 bytes.
pub const MAX_BODY_BYTES: usize = 400_000;
/// What the body has around its paths.
const FRAME_BYTES: usize = 16;

/// One job in the coalescer. Not its id: two messages with one id are two jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey(pub u64);

/// One path of one job: the index into its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Whose.
    pub job: JobKey,
    /// Which.
    pub index: u32,
}

/// One path in a request's body, and everything it does the work of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As sent.
    pub path: Arc<str>,
    /// Who asked for exactly this path; the first one's turn it was. Never empty.
    pub items: Vec<Item>,
    /// Who asked for something this path covers.
    pub covered: Vec<Item>,
}

impl Line {
    /// The job whose turn it was.
    pub fn owner(&self) -> Option<JobKey> {
        self.items.first().map(|item| item.job)
    }

    /// Everything the line carries.
    pub fn carried(&self) -> impl Iterator<Item = Item> + '_ {
        self.items.iter().chain(&self.covered).copied()
    }
}

/// The jobs that `lines` carry paths of.
pub fn jobs_on(lines: &[Line]) -> BTreeSet<JobKey> {
    lines.iter().flat_map(Line::carried).map(|item| item.job).collect()
}

/// Whether jobs share requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A request carries paths of any jobs.
    Shared,
    /// A request carries one job's paths only.
    Apart,
}

/// Separates the paths of jobs that do not share; all that share have the same.
type Scope = Option<JobKey>;

/// A job's waiting paths, in its own order. Those that rode along elsewhere stay in `order` until their turn.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<(u32, Arc<str>)>,
    waiting: usize,
}

/// The paths that wait.
#[derive(Debug)]
pub struct Pool {
    sharing: Sharing,
    /// Exactly the jobs in `queues`, the next first.
    turns: VecDeque<JobKey>,
    queues: HashMap<JobKey, Queue>,
    /// By path, so that what rides along is found without looking at everything that waits.
    index: BTreeMap<(Scope, Arc<str>), BTreeSet<Item>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(sharing: Sharing) -> Self {
        Self { sharing, turns: VecDeque::new(), queues: HashMap::new(), index: BTreeMap::new() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether paths of `job` wait.
    pub fn has(&self, job: JobKey) -> bool {
        self.queues.contains_key(&job)
    }

    /// How many different paths wait.
    pub fn distinct(&self) -> usize {
        self.index.len()
    }

    /// The jobs that have paths waiting, the next in turn first.
    pub fn jobs(&self) -> impl Iterator<Item = JobKey> + '_ {
        self.turns.iter().copied()
    }

    /// Lets `paths` of `job` wait, behind those of it that wait already.
    pub fn add(&mut self, job: JobKey, paths: impl IntoIterator<Item = (u32, Arc<str>)>) {
        let scope = self.scope(job);
        for (index, path) in paths {
            let is_new = self.index.entry((scope, Arc::clone(&path))).or_default().insert(Item { job, index });
            if is_new {
                let queue = self.queues.entry(job).or_insert_with(|| {
                    self.turns.push_back(job);
                    Queue::default()
                });
                queue.order.push_back((index, path));
                queue.waiting += 1;
            }
        }
    }

    /// Takes back everything of `job` that waits.
    pub fn remove(&mut self, job: JobKey) -> Vec<(u32, Arc<str>)> {
        let Some(queue) = self.queues.remove(&job) else { return Vec::new() };
        self.turns.retain(|other| *other != job);
        let scope = self.scope(job);
        queue.order.into_iter().filter(|(index, path)| self.forget(scope, path, Item { job, index: *index })).collect()
    }

    /// Takes the next request's lines; none where nothing waits.
    pub fn pack(&mut self) -> Vec<Line> {
        let mut request = Packing::default();
        while request.lines.len() < MAX_PATHS {
            let Some(job) = self.turns.front().copied() else { break };
            let Some((index, path)) = self.next_path(job) else { break };
            if !request.has_room_for(&path) {
                self.put_first(job, index, path);
                break;
            }
            let line = self.take(Item { job, index }, path);
            request.push(line);
            let is_next_still = self.turns.front() == Some(&job);
            match self.sharing {
                Sharing::Shared if is_next_still => self.turns.rotate_left(1),
                Sharing::Apart if !is_next_still => return request.lines,
                Sharing::Shared | Sharing::Apart => {}
            }
        }
        if self.sharing == Sharing::Apart && !self.turns.is_empty() {
            self.turns.rotate_left(1);
        }
        request.lines
    }

    fn scope(&self, job: JobKey) -> Scope {
        (self.sharing == Sharing::Apart).then_some(job)
    }

    /// The next path of `job` that has not ridden along elsewhere. It stays in the index.
    fn next_path(&mut self, job: JobKey) -> Option<(u32, Arc<str>)> {
        let scope = self.scope(job);
        let order = &mut self.queues.get_mut(&job)?.order;
        while let Some((index, path)) = order.pop_front() {
            let key = (scope, path);
            if self.index.get(&key).is_some_and(|items| items.contains(&Item { job, index })) {
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

    /// The line of `path`, with everything that waits for it or is covered by it.
    fn take(&mut self, first: Item, path: Arc<str>) -> Line {
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
        let line = Line { path, items, covered };
        line.carried().for_each(|item| self.one_less(item.job));
        line
    }

    fn one_less(&mut self, job: JobKey) {
        let Some(queue) = self.queues.get_mut(&job) else { return };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            self.queues.remove(&job);
            self.turns.retain(|other| *other != job);
        }
    }

    fn forget(&mut self, scope: Scope, path: &Arc<str>, item: Item) -> bool {
        let key = (scope, Arc::clone(path));
        let Some(items) = self.index.get_mut(&key) else { return false };
        let waited = items.remove(&item);
        if items.is_empty() {
            self.index.remove(&key);
        }
        waited
    }
}

/// A request being packed.
#[derive(Debug, Default)]
struct Packing {
    lines: Vec<Line>,
    bytes: usize,
}

impl Packing {
    fn has_room_for(&self, path: &str) -> bool {
        self.lines.is_empty() || FRAME_BYTES + self.bytes + encoded_bytes(path) <= MAX_BODY_BYTES
    }

    /// A wildcard takes over the lines it covers.
    fn push(&mut self, mut line: Line) {
        if let Some(prefix) = line.path.strip_suffix('*') {
            for other in self.lines.extract_if(.., |other| other.path.starts_with(prefix)) {
                self.bytes -= encoded_bytes(&other.path);
                line.covered.extend(other.carried());
            }
        }
        self.bytes += encoded_bytes(&line.path);
        self.lines.push(line);
    }
}

/// What a path takes of a JSON body.
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
