//! Work on large bodies, away from the threads that everything else runs on: what a megabyte becomes when it is judged
//! takes many times its room, and time in which nothing else would move.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{LazyLock, mpsc},
    thread,
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// A body longer than this is looked into aside.
const LARGE: usize = 64 * 1024;
/// In KiB: room for the large bodies that are worked at once, whatever becomes of them. What is larger than all of it is
/// alone.
const ROOM: u32 = 4 * 1024;
static FREE: Semaphore = Semaphore::const_new(ROOM as usize);

type Work = Box<dyn FnOnce() + Send>;

/// One thread, so that one body is looked into at a time; and always the same, since memory that one thread has used is
/// not at once another's.
static JUDGE: LazyLock<mpsc::Sender<Work>> = LazyLock::new(|| {
    let (judge, waiting) = mpsc::channel::<Work>();
    thread::spawn(move || waiting.into_iter().for_each(|work| work()));
    judge
});

/// What `work` comes to, which looks into a body of this many bytes. A panic in it is one here.
pub async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= LARGE {
        return work();
    }
    let (done, result) = oneshot::channel();
    let work = Box::new(move || {
        // Whoever asked may have gone away.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let _ = JUDGE.send(work);
    match result.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        // The thread never ends.
        Err(_) => std::future::pending().await,
    }
}

/// Room for a body of this many bytes, for as long as it is worked; none is needed for a small one. Those that wait for it
/// are their bytes and no more.
pub async fn room(bytes: usize) -> Option<SemaphorePermit<'static>> {
    if bytes <= LARGE {
        return None;
    }
    let needed = u32::try_from(bytes.div_ceil(1024)).unwrap_or(ROOM).min(ROOM);
    // The semaphore is never closed.
    FREE.acquire_many(needed).await.ok()
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, thread};

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn what_is_small_is_done_here_and_what_is_large_elsewhere() {
        let here = thread::current().id();
        assert_eq!(aside(LARGE, || thread::current().id()).await, here);
        assert_ne!(aside(LARGE + 1, || thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn a_panic_comes_out_where_it_was_asked_for() {
        let panicking = tokio::spawn(aside(LARGE + 1, || panic!("a defect")));
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(aside(LARGE + 1, || 7).await, 7, "the thread goes on");
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_and_small_ones_need_none() {
        const MEGABYTE: usize = 1024 * 1024;
        let three = [room(MEGABYTE).await, room(MEGABYTE).await, room(MEGABYTE).await];
        assert!(three.iter().all(Option::is_some));
        assert!(room(LARGE).await.is_none());
        let mut oversized = pin!(room(20 * MEGABYTE));
        assert!(poll!(oversized.as_mut()).is_pending(), "it is alone");
        drop(three);
        let alone = oversized.await;
        assert!(poll!(pin!(room(LARGE + 1))).is_pending());
        drop(alone);
        assert!(room(LARGE + 1).await.is_some());
    }
}
