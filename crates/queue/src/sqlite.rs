//! The embedded queue: the same promises as `RabbitMQ`, from one file and without a server (SPEC 6.2).
//!
//! ```text
//! Consumer ─ consumer ─┐                    ┌─ claim    claims rows for a consumer
//! Settler ── settler ──┼─ handle ─ writer ──┼─ change   publishes and settles
//! publish ── store ────┘                    └─ batch    loads what `genfleet run` was given
//! counts, events ───── inspect (a connection of its own, read-only)
//! ```

mod batch;
mod change;
mod changes;
mod claim;
mod clock_steps;
mod consumer;
mod count;
mod dead_letters;
mod examine;
mod handle;
mod inspect;
mod lock;
mod role;
mod row;
mod schema;
mod settler;
mod status_file;
mod store;
#[cfg(test)]
mod tests;
mod work;
mod writer;

pub use self::{
    batch::{Batch, LoadOutcome},
    examine::{StoreExamination, examine},
    inspect::{LaneCount, StoreCounts, StoredEvent, WaitingJob},
    role::Role,
    store::SqliteQueue,
};
pub(crate) use self::{
    consumer::{Consumer, Suspects},
    dead_letters::StoreBrowser,
};
