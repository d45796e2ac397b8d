//! How many requests the token may still send, and when (SPEC 4): a state machine over the time, without I/O.
//!
//! The API counts requests in windows of a length it does not tell, and says with each answer how many it counted
//! and how many whole seconds are left. What this keeps is an upper bound of the API's own count: what it told
//! last, plus all that it may have counted since: requests in flight, and those whose answer did not tell. So
//! latency, answers out of order and lost answers cost budget, never a 429.
//!
//! Beside the token's limit stands the client's, which all its tokens share: [`allotment`] keeps this process's part.
//!
//! Does not wait ([`crate::client`]), knows nothing of 429 ([`crate::gate`]), and does not decide how
//! large the part is ([`crate::fleet`]).

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{RESET_SLACK, RateLimitHeaders};

mod allotment;
mod window;

use allotment::Allotment;
pub use allotment::LimitShare;
use window::{WindowEnd, Window};

/// A window of which no answer told anything lasts this long from its first request, and the slack.
const ASSUMED: Duration = Duration::from_secs(60);
/// A limit that the API told counts for this time, unless it is told again: longer than a window.
const ALLOWED_FOR: Duration = Duration::from_secs(90);
/// The last 1/5 of the budget is spread over what is left of the window.
const RESERVE: u32 = 5;

/// The token's budget.
#[derive(Debug)]
pub struct Budget {
    /// What we were told to use at most.
    ours: u32,
    /// What the API allows, and when it said so.
    allowed: Option<(u32, Instant)>,
    /// Counts tokens: what belongs to an earlier one does not count.
    token: u64,
    window: Option<Window>,
    /// The window before: its answers may still come.
    ended: Option<WindowEnd>,
    in_flight: u32,
    /// When each request ended whose answer did not tell whether it was counted.
    untold: Vec<Instant>,
    /// Of the client's limit.
    allotment: Allotment,
}

/// What was spent, and what may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUsage {
    /// Requests sent in the last minute, with whatever token.
    pub last_minute: u32,
    /// What the token's limit lets through in a window.
    pub token_limit: u32,
    /// What this process may send of the client's limit in any minute.
    pub allotted: u32,
    /// What can be sent now before either says "later".
    pub left: u32,
}

/// May a request go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTime {
    /// Now.
    Now,
    /// Not before this, unless an answer changes it.
    At(Instant),
}

impl SendTime {
    /// When both say so.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, other) => other,
            (at, Self::Now) => at,
            (Self::At(one), Self::At(another)) => Self::At(one.max(another)),
        }
    }
}

/// One request's share of the budget. Handed back once it is known what became of it.
#[derive(Debug)]
#[must_use]
pub struct BudgetReservation {
    token: u64,
    taken: Instant,
}

impl Budget {
    /// At most `per_token` requests a window of the token's, or what the API allows where that is less, and at most
    /// `of_client` in any minute whatever the token.
    pub fn new(per_token: u32, of_client: u32) -> Self {
        Self {
            ours: per_token.max(1),
            allowed: None,
            token: 0,
            window: None,
            ended: None,
            in_flight: 0,
            untold: Vec::new(),
            allotment: Allotment::new(of_client),
        }
    }

    /// What is the process's of the client's limit from now on.
    pub fn allot(&mut self, part: LimitShare, now: Instant) {
        self.allotment.set(part, now);
    }

    /// What was spent, and what may be.
    pub fn spending(&mut self, now: Instant) -> BudgetUsage {
        BudgetUsage {
            last_minute: self.allotment.sent(now),
            token_limit: self.limit(),
            allotted: self.allotment.per_minute(),
            left: self.left(now),
        }
    }

    /// Requests in a window of the token's.
    pub fn limit(&self) -> u32 {
        self.allowed.map_or(self.ours, |(allowed, _)| allowed.clamp(1, self.ours))
    }

    /// What is left of this window, and of the process's part of the client's limit.
    pub fn left(&mut self, now: Instant) -> u32 {
        self.left_of_token(now).min(self.allotment.left(now))
    }

    fn left_of_token(&mut self, now: Instant) -> u32 {
        self.roll(now);
        let counted = self.window.as_ref().map_or(0, |window| window.counted);
        let untold = u32::try_from(self.untold.len()).unwrap_or(u32::MAX);
        self.limit().saturating_sub(counted.saturating_add(self.in_flight).saturating_add(untold))
    }

    /// May a request go now?
    pub fn ready(&mut self, now: Instant) -> SendTime {
        self.ready_of_token(now).and(self.allotment.ready(now))
    }

    fn ready_of_token(&mut self, now: Instant) -> SendTime {
        let left = self.left_of_token(now);
        let reserve = (self.limit() / RESERVE).max(1);
        let Some(window) = &mut self.window else {
            // Requests of the window before may fill it alone: their answers say more.
            return if left > 0 { SendTime::Now } else { SendTime::At(now + RESET_SLACK) };
        };
        if left == 0 { SendTime::At(window.end) } else { window.spread(now, left, reserve) }
    }

    /// Takes one request's share, at once.
    pub fn take(&mut self, now: Instant) -> BudgetReservation {
        self.roll(now);
        self.window.get_or_insert_with(|| Window::assumed(now + ASSUMED + RESET_SLACK));
        self.in_flight += 1;
        self.allotment.took(now);
        BudgetReservation { token: self.token, taken: now }
    }

    /// A share that was not used: nothing was sent.
    pub fn give_back(&mut self, share: BudgetReservation) {
        self.allotment.unsent(share.taken);
        if self.is_current(share) {
            self.in_flight = self.in_flight.saturating_sub(1);
            let idle = self.in_flight == 0 && self.untold.is_empty();
            if idle && self.window.as_ref().is_some_and(Window::is_untouched) {
                self.window = None;
            }
        }
    }

    /// A request that was sent ended without an answer: the API may have counted it.
    pub fn lost(&mut self, share: BudgetReservation, now: Instant) {
        if self.is_current(share) {
            self.roll(now);
            self.in_flight = self.in_flight.saturating_sub(1);
            self.untold.push(now);
        }
    }

    /// A request sent at `sent` was answered.
    pub fn answered(&mut self, share: BudgetReservation, sent: Instant, now: Instant, rates: RateLimitHeaders) {
        if !self.is_current(share) {
            return;
        }
        self.roll(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.allowed = rates.allowed.map(|allowed| (allowed, now)).or(self.allowed);
        if let Some(reset) = rates.reset
            && !self.place(WindowEnd::told(sent, now, reset))
        {
            return;
        }
        match (rates.count, &mut self.window) {
            (Some(count), Some(window)) => {
                window.counted = window.counted.max(count);
                // What ended before this was sent is in its count.
                self.untold.retain(|ended| *ended > sent);
            }
            (Some(_), None) => {}
            (None, _) => self.untold.push(now),
        }
    }

    /// From now on another token is used: its window begins with its first request.
    pub fn new_token(&mut self) {
        self.token += 1;
        self.window = None;
        self.ended = None;
        self.in_flight = 0;
        self.untold.clear();
    }

    #[expect(clippy::needless_pass_by_value, reason = "a share is used once")]
    fn is_current(&self, share: BudgetReservation) -> bool {
        share.token == self.token
    }

    /// Finds the window an answer speaks of; false where it is over.
    fn place(&mut self, told: WindowEnd) -> bool {
        if let Some(current) = self.window.as_ref().and_then(|window| window.span) {
            if told.is_before(current) {
                return false;
            }
            if current.is_before(told) {
                self.close(current.earliest, Some(current));
            }
        } else if self.ended.is_some_and(|ended| !ended.is_before(told)) {
            return false;
        }
        self.window.get_or_insert_with(|| Window::assumed(told.latest)).narrow(told);
        true
    }

    /// Ends a window whose time is over.
    fn roll(&mut self, now: Instant) {
        self.allowed.take_if(|(_, told)| now > *told + ALLOWED_FOR);
        if let Some(window) = self.window.take_if(|window| window.end <= now) {
            let earliest = window.span.map_or(window.end - RESET_SLACK, |span| span.earliest);
            self.close(earliest, window.span);
        }
    }

    /// Keeps of the untold requests those that the next window may have counted.
    fn close(&mut self, earliest_end: Instant, span: Option<WindowEnd>) {
        self.window = None;
        self.ended = span;
        self.untold.retain(|ended| *ended > earliest_end);
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rates(allowed: u32, count: u32, reset: u64) -> RateLimitHeaders {
        RateLimitHeaders { allowed: Some(allowed), count: Some(count), reset: Some(seconds(reset)) }
    }

    /// Takes all that goes at `now`.
    fn drain(budget: &mut Budget, now: Instant) -> u32 {
        let mut taken = 0;
        while budget.ready(now) == SendTime::Now {
            let _in_flight = budget.take(now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn four_fifths_go_at_once_and_the_rest_is_spread_to_the_windows_end() {
        let (mut budget, start) = (Budget::new(100, u32::MAX), Instant::now());
        assert_eq!(drain(&mut budget, start), 81, "the first of the spread ones goes at once");
        let mut now = start;
        for _ in 81..100 {
            let SendTime::At(next) = budget.ready(now) else { panic!("it is spread") };
            let wait = next - now;
            assert!(wait > Duration::from_millis(2900) && wait < Duration::from_millis(3200), "{wait:?}");
            now = next;
            assert_eq!(drain(&mut budget, now), 1);
        }
        assert_eq!(budget.ready(now), SendTime::At(start + seconds(61)));
    }

    #[test]
    fn before_any_header_a_window_lasts_sixty_seconds_from_its_first_request() {
        let (mut budget, start) = (Budget::new(10, u32::MAX), Instant::now());
        let later = start + seconds(500);
        for _ in 0..10 {
            let share = budget.take(later);
            budget.lost(share, later + seconds(1));
        }
        assert_eq!(budget.left(later + seconds(59)), 0);
        assert_eq!(budget.left(later + seconds(62)), 10);
    }

    #[test]
    fn the_apis_limit_counts_where_it_is_smaller_and_never_where_it_is_larger() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        for (allowed, limit) in [(180, 180), (1000, 300), (0, 1)] {
            let share = budget.take(now);
            budget.answered(share, now, now, rates(allowed, 1, 60));
            assert_eq!(budget.limit(), limit);
        }
    }

    #[test]
    fn the_apis_limit_is_forgotten_once_it_is_not_told_for_some_windows() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let share = budget.take(now);
        budget.answered(share, now, now, rates(1, 1, 60));
        assert_eq!((budget.left(now + seconds(59)), budget.left(now + seconds(62))), (0, 1));
        assert_eq!(budget.left(now + ALLOWED_FOR + seconds(1)), 300);
    }

    #[test]
    fn what_another_process_spent_of_the_token_counts() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let share = budget.take(now);
        budget.answered(share, now, now, rates(300, 250, 40));
        assert_eq!(budget.left(now), 50);
    }

    #[test]
    fn an_answer_of_the_window_before_does_not_disturb_the_new_one() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let (slow, quick) = (budget.take(start), budget.take(start));
        budget.answered(quick, start, start, rates(300, 290, 5));
        let later = start + seconds(10);
        let share = budget.take(later);
        budget.answered(share, later, later, rates(300, 1, 60));
        budget.answered(slow, start, later, rates(300, 291, 5));
        assert_eq!(budget.left(later), 299);
    }

    #[test]
    fn a_late_answer_of_an_old_window_does_not_begin_a_new_one() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let (slow, quick) = (budget.take(start), budget.take(start));
        budget.answered(quick, start, start, rates(300, 290, 5));
        let later = start + seconds(7);
        budget.answered(slow, start, later, rates(300, 291, 5));
        assert_eq!(budget.left(later), 300);
    }

    #[test]
    fn answers_out_of_order_never_lower_the_count() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let (first, second) = (budget.take(now), budget.take(now));
        budget.answered(second, now, now, rates(300, 2, 60));
        budget.answered(first, now, now, rates(300, 1, 60));
        assert_eq!(budget.left(now), 298);
    }

    #[test]
    fn a_lost_answer_costs_until_a_later_request_tells_the_count() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let lost = budget.take(start);
        budget.lost(lost, start + seconds(1));
        assert_eq!(budget.left(start + seconds(1)), 299);
        let share = budget.take(start + seconds(2));
        budget.answered(share, start + seconds(2), start + seconds(3), rates(300, 1, 57));
        assert_eq!(budget.left(start + seconds(3)), 299, "the API never saw the lost one");
    }

    #[test]
    fn an_unused_share_leaves_no_trace() {
        let (mut budget, start) = (Budget::new(1, u32::MAX), Instant::now());
        let share = budget.take(start);
        budget.give_back(share);
        assert_eq!(budget.ready(start), SendTime::Now);
        let later = start + seconds(30);
        let _share = budget.take(later);
        assert_eq!(budget.ready(later), SendTime::At(later + seconds(61)), "no window was begun before");
    }

    #[test]
    fn a_new_token_begins_a_new_window_and_forgets_the_old_ones_requests() {
        let (mut budget, now) = (Budget::new(50, u32::MAX), Instant::now());
        let old = budget.take(now);
        while budget.left(now) > 0 {
            let _in_flight = budget.take(now);
        }
        budget.new_token();
        assert_eq!(budget.left(now), 50);
        budget.answered(old, now, now, rates(50, 50, 60));
        assert_eq!(budget.left(now), 50);
    }

    #[test]
    fn the_clients_part_holds_whatever_the_token_allows_and_outlives_tokens() {
        let (mut budget, start) = (Budget::new(300, 500), Instant::now());
        assert_eq!(drain(&mut budget, start), 10, "and then at its pace");
        budget.new_token();
        assert_eq!(budget.left(start), 300);
        assert!(matches!(budget.ready(start), SendTime::At(_)));
        let spending = BudgetUsage { last_minute: 10, token_limit: 300, allotted: 500, left: 300 };
        assert_eq!(budget.spending(start), spending);
    }

    #[test]
    fn an_unused_share_is_given_back_to_the_clients_part_too() {
        let (mut budget, now) = (Budget::new(300, 1), Instant::now());
        let share = budget.take(now);
        assert_eq!(budget.left(now), 0);
        budget.give_back(share);
        assert_eq!(budget.ready(now), SendTime::Now);
    }
}
