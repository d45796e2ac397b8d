//! The only thread that writes. It takes all waiting operations, runs them in one transaction, commits, and then sends
//! the results, so that many settlements share one commit. It also handles the time while the store cannot be written.

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
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    changes::Changes,
    clock_steps::ClockSteps,
    handle::{StoreCondition, StoreState},
    role::Role,
    schema,
    work::{OperationRequest, TransactionScope, WriterCommand},
};
use crate::message::{QueueError, is_transient_store_error};
use genfleet_job::clock::SharedClock;

/// Maximum number of commands in one transaction.
const GROUP: usize = 1024;
/// Interval of checking for writes by other processes.
const POLL: Duration = Duration::from_millis(200);
/// Pause between two attempts while the store cannot be written.
const RETRY: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) role: Role,
    pub(super) steps: ClockSteps,
    pub(super) clock: SharedClock,
    pub(super) state: Arc<StoreState>,
    /// The runtime of the callers, if there is one.
    pub(super) runtime: Option<Handle>,
    /// The store and its write-ahead log, each with the device and inode number of the open file.
    pub(super) files: Vec<(PathBuf, (u64, u64))>,
    /// The lock, which is held until the thread ends.
    pub(super) lock: Option<File>,
}

/// The reason why gathering a group ended.
enum GatherEnd {
    More,
    /// The writer was asked to close, or all handles were dropped.
    Last(Option<oneshot::Sender<()>>),
}

/// The result of a group.
enum GroupOutcome {
    Committed,
    /// The group is tried again later.
    Later,
    Failed,
}

/// Sets the condition if a panic ends the thread.
struct PanicGuard(Arc<StoreState>);

impl Drop for PanicGuard {
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
    pub(super) fn start(self, commands: Receiver<WriterCommand>) -> io::Result<()> {
        thread::Builder::new().name("genfleet-store".to_owned()).spawn(move || self.run(&commands)).map(drop)
    }

    fn run(mut self, commands: &Receiver<WriterCommand>) {
        let last_word = PanicGuard(Arc::clone(&self.state));
        let mut group = Vec::new();
        let mut looked = OtherWriters::default();
        loop {
            let gathered = gather(commands, &mut group, if self.unavailable() { RETRY } else { POLL });
            looked.for_others(&self.connection, &self.state);
            if self.role == Role::Worker && self.is_removed() {
                // Released before the condition is set, so that the store is free when the condition is seen.
                self.lock = None;
                let path = &self.state.path;
                self.state.set_condition(StoreCondition::Failed(format!(
                    "the store {path} was removed or replaced under this process, and what is written to it is lost: start it again"
                )));
                return;
            }
            match (self.work_off(&mut group), gathered) {
                (GroupOutcome::Failed, _) => return,
                (GroupOutcome::Committed | GroupOutcome::Later, GatherEnd::More) => {}
                (_, GatherEnd::Last(reply)) => {
                    // Operations that could not be written are dropped. Their callers get the error that the queue is
                    // closed.
                    drop(group);
                    self.finish();
                    drop(last_word);
                    if let Some(reply) = reply {
                        // The caller may no longer wait.
                        reply.send(()).unwrap_or(());
                    }
                    return;
                }
            }
        }
    }

    /// Returns true if a path of the store no longer leads to the open file.
    fn is_removed(&self) -> bool {
        self.files.iter().any(|(path, open)| {
            fs::metadata(path)
                .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |now| (now.dev(), now.ino()) != *open)
        })
    }

    fn unavailable(&self) -> bool {
        matches!(*self.state.condition.borrow(), StoreCondition::Unavailable(_))
    }

    /// Runs the group and sends its results, or keeps it for later.
    fn work_off(&mut self, group: &mut Vec<Box<dyn OperationRequest>>) -> GroupOutcome {
        match self.commit(group) {
            Ok(changes) => {
                if self.unavailable() {
                    self.state.set_condition(StoreCondition::Usable);
                }
                self.state.wake(&changes);
                self.send_outputs(mem::take(group));
                GroupOutcome::Committed
            }
            Err(error) => self.fail(&error, group),
        }
    }

    /// Sends the results of a committed group. On the callers' runtime this wakes a thread once for the whole group,
    /// and from here it may do so for each result.
    fn send_outputs(&self, group: Vec<Box<dyn OperationRequest>>) {
        let send = move || {
            for request in group {
                request.send_output();
            }
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { send() })),
            None => send(),
        }
    }

    /// Runs the whole group in one transaction.
    fn commit(&mut self, group: &mut [Box<dyn OperationRequest>]) -> rusqlite::Result<Changes> {
        let mut changes = Changes::default();
        let unavailable = self.unavailable();
        if group.is_empty() && !unavailable {
            return Ok(changes);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if unavailable {
            // Writes something in any case, to find out whether the store can be written.
            transaction.pragma_update(None, "user_version", schema::VERSION)?;
        }
        let look = self.steps.look(&transaction)?;
        let scope = TransactionScope { connection: &transaction, now: look.now };
        for request in group {
            request.run(&scope, &mut changes)?;
        }
        transaction.commit()?;
        self.steps.keep(look);
        Ok(changes)
    }

    fn fail(&mut self, error: &rusqlite::Error, group: &mut Vec<Box<dyn OperationRequest>>) -> GroupOutcome {
        let path = &self.state.path;
        let now = self.clock.now();
        *group = mem::take(group).into_iter().filter_map(|request| request.send_or_wait(now)).collect();
        let is_transient = is_transient_store_error(error);
        match (is_transient, self.role) {
            (true, Role::Worker) => {
                self.state.set_condition(StoreCondition::Unavailable(format!(
                    "the store {path} cannot be written now: {error}"
                )));
                return GroupOutcome::Later;
            }
            // A person waits. They see the error at once, and may try again.
            (true, Role::Tool) => {}
            (false, _) => self.state.set_condition(StoreCondition::Failed(format!("the store {path} failed: {error}"))),
        }
        for request in group.drain(..) {
            request.fail(QueueError::Store { path: path.clone(), source: copy(error) });
        }
        if is_transient { GroupOutcome::Committed } else { GroupOutcome::Failed }
    }

    /// Returns the claimed rows, writes the log into the file and releases the lock.
    fn finish(self) {
        let Self { connection, role, state, lock, .. } = self;
        let released = match role {
            Role::Worker => release(&connection),
            Role::Tool => Ok(0),
        };
        let emptied = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        let closed = connection.close().map_err(|(_, error)| error);
        // Nothing is lost: the next process that opens the store repeats it.
        if let Err(error) = released.and(emptied).and(closed) {
            tracing::warn!(path = state.path, %error, "the store was not closed cleanly");
        }
        drop(lock);
        state.set_condition(StoreCondition::Closed);
    }
}

/// Returns all claimed rows. Each counts one more return.
pub(super) fn release(connection: &Connection) -> rusqlite::Result<usize> {
    // The inner query reads only the index.
    const SQL: &str = "UPDATE message SET claimed = 0, returns = returns + 1
        WHERE id IN (SELECT id FROM message WHERE claimed = 1)";
    connection.execute(SQL, [])
}

/// Waits for requests for at most `patience`, and takes all of them. While the store is unavailable, it waits the whole
/// time.
fn gather(
    commands: &Receiver<WriterCommand>,
    group: &mut Vec<Box<dyn OperationRequest>>,
    patience: Duration,
) -> GatherEnd {
    let patient = group.is_empty();
    let until = Instant::now() + patience;
    while group.len() < GROUP || !patient {
        let wait =
            if patient && !group.is_empty() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        match commands.recv_timeout(wait) {
            Ok(WriterCommand::Close(reply)) => return GatherEnd::Last(Some(reply)),
            Ok(WriterCommand::Run(request)) => group.push(request),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return GatherEnd::Last(None),
        }
    }
    GatherEnd::More
}

/// Detects writes of other processes to the same file.
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

/// Copies an error for another caller.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
