/// The use of the store by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Works the store's jobs, one process at a time. Waits while the disk is full.
    Worker,
    /// Inspects, enqueues and redrives, also while a worker runs. Fails at once while the disk is full.
    Tool,
}
