//! Many jobs at once: how many requests are in flight, and what an event costs.

use super::{
    pack::JobKey,
    request::{RequestId, RequestPurpose},
    state::{CoalescerState, PermitAsk},
    *,
};
use crate::{
    cdn::{Capacity, PurgeAccepted},
    progress::PurgeStatus,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn every_job_has_its_request_in_flight_where_requests_are_not_shared() {
    for jobs in [1, 16, 17, 256, 1_000] {
        let cdn = FakeCdn::admitting(jobs, SECOND);
        let coalescer = start(&cdn, Duration::ZERO);
        let began = Instant::now();
        let outcomes = purge_all(&coalescer, (0..jobs).map(|n| vec![format!("/{n}")]).collect()).await;
        assert!(outcomes.iter().all(|outcome| outcome.error.is_none()));
        assert_eq!(cdn.books().most_in_flight, jobs);
        assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn full_requests_are_all_in_flight_and_never_more_than_the_api_admits() {
    for (admitted, expected) in [(50, 20), (7, 7)] {
        let cdn = FakeCdn::admitting(admitted, SECOND);
        let outcomes = purge_all(&start(&cdn, LINGER), vec![paths("a", 2_000)]).await;
        assert!(outcomes[0].error.is_none());
        let books = cdn.books();
        assert_eq!((books.most_in_flight, books.requests.len()), (expected, 20));
    }
}

/// Many jobs of one path each, half of whose requests are in flight while the others wait for permits.
struct Crowd {
    state: CoalescerState,
    asks: Vec<PermitAsk>,
    sent: Vec<RequestId>,
    replies: Vec<oneshot::Receiver<PurgeOutcome>>,
}

impl Crowd {
    fn new(jobs: u64, linger: Duration) -> Self {
        let state = CoalescerState::new(Capacity::of(100), linger, Instant::now());
        let mut crowd = Self { state, asks: Vec::new(), sent: Vec::new(), replies: Vec::new() };
        (0..jobs).for_each(|job| crowd.submit(job));
        crowd.settle();
        for _ in 0..crowd.asks.len() / 2 {
            crowd.send();
        }
        crowd.settle();
        crowd
    }

    fn submit(&mut self, job: u64) {
        let (reply, outcome) = oneshot::channel();
        self.replies.push(outcome);
        self.state.submit(JobKey(job), order(&format!("job-{job}"), &[format!("/{job}")]), reply);
    }

    fn send(&mut self) {
        let ask = self.asks.remove(0);
        self.sent.extend(self.state.begin_request(ask.id, ask.purpose).map(|request| request.id));
    }

    /// Does what the driver does after every event.
    fn settle(&mut self) {
        self.state.answer_finished();
        self.state.ask_when_due(Instant::now());
        self.asks.extend(self.state.take_new_asks());
    }

    fn accept(&mut self, request: RequestId) {
        let (_, shares) = self.state.end_request(request, 1).unwrap();
        let accepted =
            PurgeAccepted { status: PurgeStatus::Code(202), request_ids: Vec::new(), requests: 1, trace: None };
        self.state.note_accepted(&shares, &accepted);
        self.state.clear_half(RequestPurpose::Pool);
    }

    fn refuse(&mut self, request: RequestId) {
        let (request, _) = self.state.end_request(request, 1).unwrap();
        self.state.investigate(request, JobError::permanent("rejected", "no"));
    }

    fn a_job_on(&self, request: RequestId) -> JobKey {
        *self.state.requests[&request].jobs().first().unwrap()
    }
}

type Event = Box<dyn Fn(&mut Crowd)>;

/// Counts what each event touches among so many jobs.
fn costs(jobs: u64, linger: Duration) -> Vec<usize> {
    let mut crowd = Crowd::new(jobs, linger);
    let (waiting, flying) = (JobKey(jobs - 1), crowd.a_job_on(crowd.sent[2]));
    let [accepted, refused] = [crowd.sent[0], crowd.sent[1]];
    let events: Vec<Event> = vec![
        Box::new(move |crowd| crowd.submit(jobs)),
        Box::new(Crowd::send),
        Box::new(move |crowd| crowd.accept(accepted)),
        Box::new(move |crowd| crowd.refuse(refused)),
        Box::new(move |crowd| crowd.state.withdraw(waiting)),
        Box::new(move |crowd| crowd.state.withdraw(flying)),
        Box::new(move |crowd| crowd.state.leave(flying)),
    ];
    let cost = |event: &Event| {
        visits::during(|| {
            event(&mut crowd);
            crowd.settle();
        })
    };
    events.iter().map(cost).collect()
}

#[test]
fn an_event_costs_what_it_touches_however_many_jobs_there_are() {
    for linger in [LINGER, Duration::ZERO] {
        let few = costs(1_000, linger);
        println!("linger {linger:?}: {few:?} visits");
        assert!(few.iter().all(|cost| *cost > 0 && *cost < 3_000), "{few:?}");
        assert_eq!(few, costs(20_000, linger));
    }
}
