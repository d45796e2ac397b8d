//! How many requests many small jobs need.

use super::*;

/// Ten thousand one-path jobs, 256 at a time; a job that is done takes a while to be settled and replaced.
async fn requests_needed(latency: Duration, settling: Duration) -> usize {
    let cdn = FakeCdn::new(latency);
    let coalescer = start(&cdn, LINGER);
    let mut running = JoinSet::new();
    for n in 0..10_000_u64 {
        if running.len() == 256 {
            running.join_next().await;
        }
        let coalescer = coalescer.clone();
        running.spawn(async move {
            let outcome = coalescer.purge(order("job", &[format!("/{n}")]), &CancellationToken::new()).await;
            assert_eq!(outcome.error, None);
            // Spread evenly: a trickle, the hardest case.
            tokio::time::sleep(settling * u32::try_from(n * 7919 % 256).unwrap() / 256).await;
        });
    }
    running.join_all().await;
    let books = cdn.books();
    assert_eq!(books.purged.len(), 10_000);
    assert!(books.purged.values().all(|times| *times == 1));
    books.requests.len()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_small_jobs_need_at_most_150_requests() {
    for (latency, settling) in [(0, 0), (1, 100), (5, 20), (20, 0), (50, 5), (200, 50), (1000, 100)] {
        let needed = requests_needed(Duration::from_millis(latency), Duration::from_millis(settling)).await;
        println!("latency {latency} ms, settling up to {settling} ms: {needed} requests");
        assert!(needed <= 150, "latency {latency} ms, settling up to {settling} ms: {needed}");
    }
}
