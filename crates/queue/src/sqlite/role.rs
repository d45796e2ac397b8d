/// The use that a process makes of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Works its jobs: one process at a time. Waits while the disk is full.
    Worker,
    /// Inspects, enqueues and redrives beside a worker. Fails at once while the disk is full.
    Tool,
}
