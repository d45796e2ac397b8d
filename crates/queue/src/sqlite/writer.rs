//! The one thread that writes: takes everything that waits, runs it in one transaction, commits, then answers everyone,
//! so that many settlements share the time of one commit. Decides what happens while the store cannot be written.

use std::{
    fs::{self, File},
    io, mem,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{
    changes::Changes,
    clock_steps::ClockSteps,
    handle::{StoreCondition, StoreState},
    role::Role,
    schema,
    work::{Command, Request, Scope},
};
use crate::message::{QueueError, store_error_may_pass};
use genfleet_job::clock::SharedClock;

/// Commands in one transaction, at most.
const GROUP: usize = 1024;
/// Interval of looking for other processes' writes.
const POLL: Duration = Duration::from_millis(200);
/// Pause between two tries while the store cannot be written.
const RETRY: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) role: Role,
    pub(super) steps: ClockSteps,
    pub(super) clock: SharedClock,
    pub(super) state: Arc<StoreState>,
    /// The store and its write-ahead log, each with the device and number of the file that is open.
    pub(super) files: Vec<(PathBuf, (u64, u64))>,
    /// Held until the very end.
    pub(super) lock: Option<File>,
}

/// The end of gathering a group.
enum Gathered {
    More,
    /// Asked to close, or all who could ask are gone.
    Last(Option<oneshot::Sender<()>>),
}

/// The result of a group.
enum GroupOutcome {
    Committed,
    /// The group waits for a better time.
    Later,
    Failed,
}

/// Sets the condition if the thread ends without having set it, in a panic.
struct LastWord(Arc<StoreState>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if matches!(*self.0.condition.borrow(), StoreCondition::Usable | StoreCondition::Unavailable(_)) {
            self.0.set_condition(StoreCondition::Failed(format!(
                "the writer of the store {} ended unexpectedly",
                self.0.path
            )));
        }
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(self, commands: Receiver<Command>) -> io::Result<()> {
        thread::Builder::new().name("genfleet-store".to_owned()).spawn(move || self.run(&commands)).map(drop)
    }

    fn run(mut self, commands: &Receiver<Command>) {
        let last_word = LastWord(Arc::clone(&self.state));
        let mut group = Vec::new();
        let mut looked = OtherWriters::default();
        loop {
            let gathered = gather(commands, &mut group, if self.unavailable() { RETRY } else { POLL });
            looked.for_others(&self.connection, &self.state);
            if self.role == Role::Worker && self.removed() {
                // Before the condition is set: whoever sees it finds the store free.
                self.lock = None;
                let path = &self.state.path;
                self.state.set_condition(StoreCondition::Failed(format!(
                    "the store {path} was removed or replaced under this process, and what is written to it is lost: start it again"
                )));
                return;
            }
            match (self.work_off(&mut group), gathered) {
                (GroupOutcome::Failed, _) => return,
                (GroupOutcome::Committed | GroupOutcome::Later, Gathered::More) => {}
                (_, Gathered::Last(reply)) => {
                    // What could not be written to the last is dropped: its askers hear that the queue is closed.
                    drop(group);
                    self.finish();
                    drop(last_word);
                    if let Some(reply) = reply {
                        // Whoever does not wait any more need not hear it.
                        reply.send(()).unwrap_or(());
                    }
                    return;
                }
            }
        }
    }

    /// Returns true if a name of the store leads to another file than the one that is open, or to none.
    fn removed(&self) -> bool {
        self.files.iter().any(|(path, open)| {
            fs::metadata(path)
                .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |now| (now.dev(), now.ino()) != *open)
        })
    }

    fn unavailable(&self) -> bool {
        matches!(*self.state.condition.borrow(), StoreCondition::Unavailable(_))
    }

    /// Runs the group and answers it, or keeps it for later.
    fn work_off(&mut self, group: &mut Vec<Box<dyn Request>>) -> GroupOutcome {
        match self.commit(group) {
            Ok(changes) => {
                if self.unavailable() {
                    self.state.set_condition(StoreCondition::Usable);
                }
                self.state.wake(&changes);
                for request in group.drain(..) {
                    request.answer();
                }
                GroupOutcome::Committed
            }
            Err(error) => self.fail(&error, group),
        }
    }

    /// All of the group, or nothing of it.
    fn commit(&mut self, group: &mut [Box<dyn Request>]) -> rusqlite::Result<Changes> {
        let mut changes = Changes::default();
        let unavailable = self.unavailable();
        if group.is_empty() && !unavailable {
            return Ok(changes);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if unavailable {
            // Something has to be written to find out whether it can be, also when all are only waiting.
            transaction.pragma_update(None, "user_version", schema::VERSION)?;
        }
        let look = self.steps.look(&transaction)?;
        let scope = Scope { connection: &transaction, now: look.now };
        for request in group {
            request.run(&scope, &mut changes)?;
        }
        transaction.commit()?;
        self.steps.keep(look);
        Ok(changes)
    }

    fn fail(&mut self, error: &rusqlite::Error, group: &mut Vec<Box<dyn Request>>) -> GroupOutcome {
        let path = &self.state.path;
        let now = self.clock.now();
        *group = mem::take(group).into_iter().filter_map(|request| request.answer_or_wait(now)).collect();
        let may_pass = store_error_may_pass(error);
        match (may_pass, self.role) {
            (true, Role::Worker) => {
                self.state.set_condition(StoreCondition::Unavailable(format!(
                    "the store {path} cannot be written now: {error}"
                )));
                return GroupOutcome::Later;
            }
            // A person waits: they see the error at once, and may try again.
            (true, Role::Tool) => {}
            (false, _) => self.state.set_condition(StoreCondition::Failed(format!("the store {path} failed: {error}"))),
        }
        let fail =
            |request: Box<dyn Request>| request.fail(QueueError::Store { path: path.clone(), source: copy(error) });
        group.drain(..).for_each(fail);
        if may_pass { GroupOutcome::Committed } else { GroupOutcome::Failed }
    }

    /// Gives back what is claimed, puts the log into the file and lets go of the lock.
    fn finish(self) {
        let Self { connection, role, state, lock, .. } = self;
        let released = match role {
            Role::Worker => release(&connection),
            Role::Tool => Ok(0),
        };
        let emptied = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        let closed = connection.close().map_err(|(_, error)| error);
        // Nothing is lost by it: the next to open the store does it again.
        if let Err(error) = released.and(emptied).and(closed) {
            tracing::warn!(path = state.path, %error, "the store was not closed cleanly");
        }
        drop(lock);
        state.set_condition(StoreCondition::Closed);
    }
}

/// Gives back all that a process holds or held: each row counts one more return.
pub(super) fn release(connection: &Connection) -> rusqlite::Result<usize> {
    // The inner query reads the index alone.
    const SQL: &str = "UPDATE message SET claimed = 0, returns = returns + 1
        WHERE id IN (SELECT id FROM message WHERE claimed = 1)";
    connection.execute(SQL, [])
}

/// Waits for requests, `patience` at most, and takes all there are. While the store is unavailable a group waits the
/// whole time.
fn gather(commands: &Receiver<Command>, group: &mut Vec<Box<dyn Request>>, patience: Duration) -> Gathered {
    let patient = group.is_empty();
    let until = Instant::now() + patience;
    while group.len() < GROUP || !patient {
        let wait =
            if patient && !group.is_empty() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        match commands.recv_timeout(wait) {
            Ok(Command::Close(reply)) => return Gathered::Last(Some(reply)),
            Ok(Command::Work(request)) => group.push(request),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Gathered::Last(None),
        }
    }
    Gathered::More
}

/// Notices what other processes write to the same file.
#[derive(Default)]
struct OtherWriters {
    at: Option<Instant>,
    version: Option<i64>,
}

impl OtherWriters {
    fn for_others(&mut self, connection: &Connection, state: &StoreState) {
        if self.at.is_some_and(|at| at.elapsed() < POLL) {
            return;
        }
        self.at = Some(Instant::now());
        let version =
            connection.prepare_cached("PRAGMA data_version").and_then(|mut each| each.query_row([], |row| row.get(0)));
        // An error shows where it matters: in the next transaction.
        let Ok(version) = version else { return };
        if self.version.replace(version) != Some(version) {
            let mut changes = Changes::default();
            changes.anything();
            state.wake(&changes);
        }
    }
}

/// The same error for one more asker.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
