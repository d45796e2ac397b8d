//! The commands that jobs send to the coalescer.

use tokio::sync::oneshot;

use super::{
    entry::{PurgeOrder, PurgeOutcome},
    pack::JobKey,
};

#[derive(Debug)]
pub(super) enum Command {
    /// A job came.
    Submit { key: JobKey, order: PurgeOrder, reply: oneshot::Sender<PurgeOutcome> },
    /// It is to end as soon as its requests in flight did, and none of them is repeated.
    Withdraw(JobKey),
    /// It ends now.
    Leave(JobKey),
}
