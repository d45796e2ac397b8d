//! An open store: the operations that the rest of the product calls. Owns the file from opening to closing.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time};

use super::{
    batch::{self, Batch, LoadBatch, LoadOutcome, RecordPrinted},
    change::RowRemoval,
    clock_steps::ClockSteps,
    consumer::Consumer,
    count,
    handle::{StoreState, WriterHandle},
    inspect::{self, DeadLetterRow, Reader, StoreCounts, StoredEvent, WaitingJob},
    lock,
    role::Role,
    schema,
    work::Command,
    writer::{self, Writer},
};
use crate::message::{Health, Publication, QueueError};
use genfleet_job::{Kind, clock::SharedClock, file};

/// Maximum wait of [`SqliteQueue::event_published`], which may miss an event for as long.
const EVENT_POLL: Duration = Duration::from_millis(200);

/// One open store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct SqliteQueue {
    handle: WriterHandle,
    pub(super) reader: Reader,
    clock: SharedClock,
}

impl SqliteQueue {
    /// Opens the store at `path`, made if there is none. A worker first gets back what a process that died
    /// had claimed: each such row counts one more return.
    ///
    /// [`QueueError::Configuration`] if another process works it, or the file is not one of ours. Blocks.
    pub fn open(path: &Path, role: Role, clock: SharedClock) -> Result<Self, QueueError> {
        schema::check_name(path)?;
        schema::check_links(path)?;
        let lock = match role {
            Role::Worker => Some(lock::take(path)?),
            Role::Tool => None,
        };
        let name = path.display().to_string();
        let store = |source| QueueError::Store { path: name.clone(), source };
        let connection = schema::open(path)?;
        let reader = Reader::new(schema::open_to_read(path)?, &name);
        if role == Role::Worker {
            let returned = writer::release(&connection).map_err(store)?;
            tracing::info!(path = name, returned, "the store is open");
        }
        let number = |path: PathBuf| fs::metadata(&path).map(|file| (path, (file.dev(), file.ino())));
        let mut files = vec![number(path.to_owned()).map_err(|error| {
            QueueError::Configuration(format!("the store {name} was removed as it was opened ({error}): start again"))
        })?];
        files.extend(number(file::with_suffix(path, "-wal")));
        let before = schema::before(&connection).map_err(store)?;
        let state = Arc::new(StoreState::new(name.clone(), before));
        let (handle, commands) = WriterHandle::new(Arc::clone(&state));
        let steps = ClockSteps::new(&connection, role, Arc::clone(&clock)).map_err(store)?;
        let writer = Writer { connection, role, steps, clock: Arc::clone(&clock), state, files, lock };
        writer.start(commands).map_err(|error| {
            QueueError::Configuration(format!("no thread can be started for the store {name}: {error}"))
        })?;
        Ok(Self { handle, reader, clock })
    }

    /// Returns true if `path` is the name of a file, and of nothing else that `SQLite` knows.
    pub fn check_name(path: &Path) -> Result<(), QueueError> {
        schema::check_name(path)
    }

    /// Returns true if a store could be opened at `path`: its name, its folder and, if it is there, whose it is. Takes
    /// no lock and changes nothing. Blocks.
    pub fn check(path: &Path) -> Result<(), QueueError> {
        schema::check_usable(path, &lock::real(path))
    }

    /// Returns true if no process works the store at `path`.
    pub fn is_unworked(path: &Path) -> bool {
        lock::is_free(path)
    }

    /// Removes a store that is closed, with all files that belong to it; one that is not there is no error.
    pub fn remove(path: &Path) -> std::io::Result<()> {
        schema::remove(path)
    }

    /// See [`Queue::consume`](crate::Queue::consume). For a [`Role::Worker`].
    pub(crate) fn consume(&self, kind: Kind, concurrency: usize) -> Consumer {
        if let Ok(runtime) = Handle::try_current() {
            let (reader, state, clock) =
                (self.reader.clone(), Arc::clone(self.handle.state()), Arc::clone(&self.clock));
            runtime.spawn(count::count(reader, state, clock, kind));
        }
        Consumer::new(self.handle.clone(), Arc::clone(&self.clock), kind, concurrency)
    }

    /// Makes `publications` durable, all or none.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        self.handle.change(RowRemoval::Nothing, publications).await.map(drop)
    }

    /// How it is now.
    pub(crate) fn health(&self) -> Health {
        self.handle.health()
    }

    /// See [`Queue::unsettled`](crate::Queue::unsettled).
    pub(crate) fn unsettled(&self, kind: Kind) -> u32 {
        self.handle.state().unsettled.of(kind)
    }

    /// Finishes what it was asked, hands out no more, gives back what is unsettled (a return more) and closes
    /// the file. A second call changes nothing.
    pub async fn close(&self) {
        self.reader.close().await;
        let (reply, closed) = oneshot::channel();
        self.handle.send(Command::Close(reply));
        // An error says that it is closed already.
        drop(closed.await);
    }

    /// Why the store cannot go on, once it cannot: what is recoverable it rides out, telling [`Self::health`].
    /// Else waits for ever.
    pub(crate) async fn failed(&self) -> String {
        self.handle.failed().await
    }

    /// How many jobs are where. Reads an index from end to end.
    pub async fn counts(&self) -> Result<StoreCounts, QueueError> {
        let now = self.clock.now();
        self.reader.read(move |connection| inspect::counts(connection, now)).await
    }

    /// Jobs not settled yet, in any lane or delay.
    pub async fn unfinished(&self) -> Result<u64, QueueError> {
        self.reader.read(inspect::unfinished).await
    }

    /// The first `limit` events after `sequence`; the first of all come after 0.
    pub async fn events_after(&self, sequence: i64, limit: usize) -> Result<Vec<StoredEvent>, QueueError> {
        self.reader.read(move |connection| inspect::events(connection, sequence, limit)).await
    }

    /// The sequence of the last event; 0 if there is none.
    pub(crate) async fn events_end(&self) -> Result<i64, QueueError> {
        self.reader.read(inspect::events_end).await
    }

    /// Waits until there may be new events: until one is added, or for 200 ms. To be called in a loop with
    /// [`Self::events_after`].
    pub async fn event_published(&self) {
        let mut changes = self.handle.state().changes.subscribe();
        let seen = changes.borrow_and_update().events();
        drop(time::timeout(EVENT_POLL, changes.wait_for(|changes| changes.events() != seen)).await);
    }

    /// The first `limit` dead letters after `sequence`, of one kind if one is given.
    pub(crate) async fn dead_letters(
        &self,
        kind: Option<&str>,
        sequence: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetterRow>, QueueError> {
        let kind = kind.map(str::to_owned);
        self.reader.read(move |connection| inspect::dead_letters(connection, kind.as_deref(), sequence, limit)).await
    }

    /// Removes the dead letter and makes `publications` durable in one transaction; false, and nothing is
    /// published, if it is gone already.
    pub(crate) async fn redrive(&self, sequence: i64, publications: Vec<Publication>) -> Result<bool, QueueError> {
        self.handle.change(RowRemoval::DeadLetter(sequence), publications).await
    }

    /// How many dead letters there are, of one kind if one is given, and the sequence of the last.
    pub(crate) async fn dead_letters_end(&self, kind: Option<&str>) -> Result<(u64, i64), QueueError> {
        let kind = kind.map(str::to_owned);
        self.reader.read(move |connection| inspect::dead_letters_end(connection, kind.as_deref())).await
    }

    /// The first `limit` unsettled jobs after `sequence`, wherever they wait.
    pub async fn waiting_after(&self, sequence: i64, limit: usize) -> Result<Vec<WaitingJob>, QueueError> {
        self.reader.read(move |connection| inspect::waiting(connection, sequence, limit)).await
    }

    /// What [`Self::load`] would say of `batch` now. Changes nothing.
    pub async fn could_load(&self, batch: &Batch) -> Result<LoadOutcome, QueueError> {
        let batch = batch.clone();
        self.reader.read(move |connection| batch::outcome(connection, &batch)).await
    }

    /// Records `batch` and makes `publications` durable in one transaction, unless a batch is recorded already or the
    /// store is one of other jobs.
    pub async fn load(&self, batch: Batch, publications: Vec<Publication>) -> Result<LoadOutcome, QueueError> {
        self.handle.ask(LoadBatch { batch, publications }).await
    }

    /// The batch this store was loaded with.
    pub async fn batch(&self) -> Result<Option<Batch>, QueueError> {
        let recorded = self.reader.read(batch::recorded).await?;
        Ok(recorded.map(|(batch, _)| batch))
    }

    /// Up to which sequence the batch's events were printed; 0 if none was.
    pub async fn batch_cursor(&self) -> Result<i64, QueueError> {
        let recorded = self.reader.read(batch::recorded).await?;
        Ok(recorded.map_or(0, |(_, printed)| printed))
    }

    /// The batch's events were printed up to `sequence`.
    pub async fn set_batch_cursor(&self, sequence: i64) -> Result<(), QueueError> {
        self.handle.ask(RecordPrinted(sequence)).await
    }
}
