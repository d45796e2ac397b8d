//! An open store and its operations. It owns the file from opening to closing.

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
    inspect::{self, DeadLetterRow, StoreCounts, StoreReader, StoredEvent, WaitingJob},
    lock,
    role::Role,
    schema,
    work::WriterCommand,
    writer::{self, Writer},
};
use crate::message::{Health, Publication, QueueError};
use genfleet_job::{Kind, clock::SharedClock, file};

/// Maximum wait of [`SqliteQueue::wait_for_event`], and the time for which it may miss an event.
const EVENT_POLL: Duration = Duration::from_millis(200);

/// An open store. Clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct SqliteQueue {
    handle: WriterHandle,
    pub(super) reader: StoreReader,
    clock: SharedClock,
}

impl SqliteQueue {
    /// Opens the store at `path`, and creates it if it does not exist. For a worker, rows that a crashed process had
    /// claimed are returned first, and count one more return.
    ///
    /// Returns [`QueueError::Configuration`] if another process works it, or if the file is not a store. Blocks.
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
        let reader = StoreReader::new(schema::open_to_read(path)?, &name);
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
        let runtime = Handle::try_current().ok();
        let writer = Writer { connection, role, steps, clock: Arc::clone(&clock), state, runtime, files, lock };
        writer.start(commands).map_err(|error| {
            QueueError::Configuration(format!("no thread can be started for the store {name}: {error}"))
        })?;
        Ok(Self { handle, reader, clock })
    }

    /// Checks that `SQLite` interprets `path` as a file.
    pub fn check_name(path: &Path) -> Result<(), QueueError> {
        schema::check_name(path)
    }

    /// Checks whether a store could be opened at `path`: its name, its folder and, if the file exists, its owner. Takes
    /// no lock and changes nothing. Blocks.
    pub fn check(path: &Path) -> Result<(), QueueError> {
        schema::check_usable(path, &lock::real(path))
    }

    /// Returns true if no process works the store at `path`.
    pub fn is_unworked(path: &Path) -> bool {
        lock::is_free(path)
    }

    /// Removes all files of a closed store. A missing store is not an error.
    pub fn remove(path: &Path) -> std::io::Result<()> {
        schema::remove(path)
    }

    /// Consumes `kind`; see [`Queue::consume`](crate::Queue::consume). For a [`Role::Worker`].
    pub(crate) fn consume(&self, kind: Kind, concurrency: usize) -> Consumer {
        if let Ok(runtime) = Handle::try_current() {
            let (reader, state, clock) =
                (self.reader.clone(), Arc::clone(self.handle.state()), Arc::clone(&self.clock));
            runtime.spawn(count::count(reader, state, clock, kind));
        }
        Consumer::new(self.handle.clone(), Arc::clone(&self.clock), kind, concurrency)
    }

    /// Stores all of `publications` or none.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        self.handle.change(RowRemoval::Nothing, publications).await.map(drop)
    }

    /// Returns the store's health.
    pub(crate) fn health(&self) -> Health {
        self.handle.health()
    }

    /// See [`Queue::count_unsettled`](crate::Queue::count_unsettled).
    pub(crate) fn count_unsettled(&self, kind: Kind) -> u32 {
        self.handle.state().unsettled.of(kind)
    }

    /// Finishes all requests, delivers no more rows, returns the unsettled ones (which counts as a return), and closes
    /// the file. A second call changes nothing.
    pub async fn close(&self) {
        self.reader.close().await;
        let (reply, closed) = oneshot::channel();
        self.handle.send(WriterCommand::Close(reply));
        // An error means that it is already closed.
        drop(closed.await);
    }

    /// Waits until the store fails for good, and returns the reason. Errors from which it recovers are reported by
    /// [`Self::health`] instead.
    pub(crate) async fn wait_until_failed(&self) -> String {
        self.handle.wait_until_failed().await
    }

    /// Returns the number of jobs by lane. Reads a whole index.
    pub async fn counts(&self) -> Result<StoreCounts, QueueError> {
        let now = self.clock.now();
        self.reader.read(move |connection| inspect::counts(connection, now)).await
    }

    /// Counts the unsettled jobs in all lanes, including delayed ones.
    pub async fn count_unfinished(&self) -> Result<u64, QueueError> {
        self.reader.read(inspect::count_unfinished).await
    }

    /// Returns the first `limit` events after `sequence`; 0 returns the very first.
    pub async fn events_after(&self, sequence: i64, limit: usize) -> Result<Vec<StoredEvent>, QueueError> {
        self.reader.read(move |connection| inspect::events(connection, sequence, limit)).await
    }

    /// Returns the sequence of the last event; 0 if there is none.
    pub(crate) async fn events_end(&self) -> Result<i64, QueueError> {
        self.reader.read(inspect::events_end).await
    }

    /// Waits until an event is added, but at most 200 ms. Call it in a loop with [`Self::events_after`].
    pub async fn wait_for_event(&self) {
        let mut changes = self.handle.state().changes.subscribe();
        let seen = changes.borrow_and_update().events();
        drop(time::timeout(EVENT_POLL, changes.wait_for(|changes| changes.events() != seen)).await);
    }

    /// Returns the first `limit` dead letters after `sequence`, of one kind if one is given.
    pub(crate) async fn dead_letters(
        &self,
        kind: Option<&str>,
        sequence: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetterRow>, QueueError> {
        let kind = kind.map(str::to_owned);
        self.reader.read(move |connection| inspect::dead_letters(connection, kind.as_deref(), sequence, limit)).await
    }

    /// Removes the dead letter and stores `publications`, in one transaction. Returns false, and stores nothing, if the
    /// dead letter no longer exists.
    pub(crate) async fn redrive(&self, sequence: i64, publications: Vec<Publication>) -> Result<bool, QueueError> {
        self.handle.change(RowRemoval::DeadLetter(sequence), publications).await
    }

    /// Returns the number of dead letters of `kind`, and the sequence of the last.
    pub(crate) async fn dead_letters_end(&self, kind: &'static str) -> Result<(u64, i64), QueueError> {
        self.reader.read(move |connection| inspect::dead_letters_end(connection, kind)).await
    }

    /// Returns the first `limit` unsettled jobs after `sequence`, of all lanes.
    pub async fn waiting_after(&self, sequence: i64, limit: usize) -> Result<Vec<WaitingJob>, QueueError> {
        self.reader.read(move |connection| inspect::waiting(connection, sequence, limit)).await
    }

    /// Returns the result that [`Self::load`] would have for `batch`. Changes nothing.
    pub async fn could_load(&self, batch: &Batch) -> Result<LoadOutcome, QueueError> {
        let batch = batch.clone();
        self.reader.read(move |connection| batch::outcome(connection, &batch)).await
    }

    /// Records `batch` and stores `publications` in one transaction, unless the store already has a batch or other
    /// jobs.
    pub async fn load(&self, batch: Batch, publications: Vec<Publication>) -> Result<LoadOutcome, QueueError> {
        self.handle.ask(LoadBatch { batch, publications }).await
    }

    /// Returns the batch with which the store was loaded.
    pub async fn batch(&self) -> Result<Option<Batch>, QueueError> {
        let recorded = self.reader.read(batch::read_recorded).await?;
        Ok(recorded.map(|(batch, _)| batch))
    }

    /// Returns the sequence up to which the batch's events were printed; 0 if none was.
    pub async fn batch_cursor(&self) -> Result<i64, QueueError> {
        let recorded = self.reader.read(batch::read_recorded).await?;
        Ok(recorded.map_or(0, |(_, printed)| printed))
    }

    /// Records that the batch's events were printed up to `sequence`.
    pub async fn set_batch_cursor(&self, sequence: i64) -> Result<(), QueueError> {
        self.handle.ask(RecordPrinted(sequence)).await
    }
}
