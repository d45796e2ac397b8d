//! Work on large bodies, on a thread of its own: to decode and validate a megabyte takes many times its memory, and time
//! in which the executor would do nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{LazyLock, mpsc},
    thread,
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// A body longer than this, in bytes, is large.
const LARGE: usize = 64 * 1024;
/// Size of all large bodies that are processed at the same time, in KiB. A larger body is processed alone.
const MEMORY_KIB: u32 = 4 * 1024;
static FREE: Semaphore = Semaphore::const_new(MEMORY_KIB as usize);

type Work = Box<dyn FnOnce() + Send>;

/// One thread, so that one body is processed at a time; and always the same one, since the allocator does not at once give
/// the memory that one thread has freed to another.
static THREAD: LazyLock<mpsc::Sender<Work>> = LazyLock::new(|| {
    let (sender, waiting) = mpsc::channel::<Work>();
    thread::spawn(move || waiting.into_iter().for_each(|work| work()));
    sender
});

/// Runs `work`, which processes a body of this many bytes: off the executor if the body is large. Panics if `work` does.
pub async fn offload<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= LARGE {
        return work();
    }
    let (done, result) = oneshot::channel();
    let work = Box::new(move || {
        // The caller may have been dropped.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let _ = THREAD.send(work);
    match result.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        // The thread never ends.
        Err(_) => std::future::pending().await,
    }
}

/// Reserves memory for the processing of a body of this many bytes; a small one needs none. Whoever waits for it holds the
/// body only.
pub(crate) async fn reserve_memory(bytes: usize) -> Option<SemaphorePermit<'static>> {
    if bytes <= LARGE {
        return None;
    }
    let needed = u32::try_from(bytes.div_ceil(1024)).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
    // The semaphore is never closed.
    FREE.acquire_many(needed).await.ok()
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, thread};

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn small_bodies_are_processed_here_and_large_ones_elsewhere() {
        let here = thread::current().id();
        assert_eq!(offload(LARGE, || thread::current().id()).await, here);
        assert_ne!(offload(LARGE + 1, || thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn a_panic_comes_out_where_it_was_asked_for() {
        let panicking = tokio::spawn(offload(LARGE + 1, || panic!("a defect")));
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(offload(LARGE + 1, || 7).await, 7, "the thread goes on");
    }

    #[tokio::test]
    async fn large_bodies_share_the_memory_and_small_ones_need_none() {
        const MEGABYTE: usize = 1024 * 1024;
        let three = [reserve_memory(MEGABYTE).await, reserve_memory(MEGABYTE).await, reserve_memory(MEGABYTE).await];
        assert!(three.iter().all(Option::is_some));
        assert!(reserve_memory(LARGE).await.is_none());
        let mut oversized = pin!(reserve_memory(20 * MEGABYTE));
        assert!(poll!(oversized.as_mut()).is_pending(), "it is alone");
        drop(three);
        let alone = oversized.await;
        assert!(poll!(pin!(reserve_memory(LARGE + 1))).is_pending());
        drop(alone);
        assert!(reserve_memory(LARGE + 1).await.is_some());
    }
}
