//! The budget: how many requests the token may still send, and when (SPEC 4). A state machine over the time, without
//! I/O.
//!
//! The API counts requests in windows and names with each answer its count and the whole seconds that are left. The
//! budget keeps an upper bound of that count: the last one named, plus all that the API may have counted since, that is
//! requests in flight and those whose answer named no count. So latency, answers out of order and lost answers cost
//! budget, never a 429.
//!
//! Beside the token's limit stands the client's, which all its tokens share: [`share`] counts what this process sends of
//! its share.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    limits::{RESET_SLACK, RateLimitHeaders},
    send_time::SendTime,
};

pub(crate) mod share;
mod window;

use share::{LimitShare, ShareUse};
use window::{Window, WindowEnd};

/// A window that no answer described lasts this long from its first request, and the slack.
const ASSUMED: Duration = Duration::from_secs(60);
/// A limit that the API named counts for this time, longer than a window, unless it is named again.
const ALLOWED_FOR: Duration = Duration::from_secs(90);
/// The last 1/5 of the budget is spread over what is left of the window.
const RESERVE: u32 = 5;

/// The token's budget.
#[derive(Debug)]
pub struct Budget {
    /// The limit of the settings.
    configured: u32,
    /// The limit that the API named, and when.
    allowed: Option<(u32, Instant)>,
    /// Counts tokens: requests with an earlier one do not count.
    token: u64,
    window: Option<Window>,
    /// The window before: its answers may still come.
    ended: Option<WindowEnd>,
    in_flight: u32,
    /// The end of each request whose answer named no count.
    uncounted: Vec<Instant>,
    share: ShareUse,
}

/// The use of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUsage {
    /// Requests sent in the last minute, with any token.
    pub last_minute: u32,
    /// Requests that the token's limit lets through in a window.
    pub token_limit: u32,
    /// This process's share of the client's limit, in requests of any minute.
    pub allotted: u32,
    /// Requests that may be sent now by both limits.
    pub left: u32,
}

/// The budget of one request. It is handed back with the request's outcome.
#[derive(Debug)]
#[must_use]
pub struct BudgetReservation {
    token: u64,
    taken: Instant,
}

impl Budget {
    /// Allows `per_token` requests in a window of the token's, or what the API allows if that is less, and `of_client`
    /// in any minute, with any token.
    pub fn new(per_token: u32, of_client: u32) -> Self {
        Self {
            configured: per_token.max(1),
            allowed: None,
            token: 0,
            window: None,
            ended: None,
            in_flight: 0,
            uncounted: Vec::new(),
            share: ShareUse::new(of_client),
        }
    }

    /// Sets this process's share of the client's limit.
    pub fn set_limit_share(&mut self, share: LimitShare, now: Instant) {
        self.share.set(share, now);
    }

    pub(crate) fn usage(&mut self, now: Instant) -> BudgetUsage {
        BudgetUsage {
            last_minute: self.share.count_sent(now),
            token_limit: self.limit(),
            allotted: self.share.per_minute(),
            left: self.remaining(now),
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.allowed.map_or(self.configured, |(allowed, _)| allowed.clamp(1, self.configured))
    }

    /// Returns what is left of this window, and of this process's share of the client's limit.
    pub(crate) fn remaining(&mut self, now: Instant) -> u32 {
        self.remaining_of_token(now).min(self.share.remaining(now))
    }

    fn remaining_of_token(&mut self, now: Instant) -> u32 {
        self.expire(now);
        let counted = self.window.as_ref().map_or(0, |window| window.counted);
        let uncounted = u32::try_from(self.uncounted.len()).unwrap_or(u32::MAX);
        self.limit().saturating_sub(counted.saturating_add(self.in_flight).saturating_add(uncounted))
    }

    /// Returns when the next request may go.
    pub fn ready(&mut self, now: Instant) -> SendTime {
        self.ready_of_token(now).and(self.share.ready(now))
    }

    fn ready_of_token(&mut self, now: Instant) -> SendTime {
        let left = self.remaining_of_token(now);
        let reserve = (self.limit() / RESERVE).max(1);
        let Some(window) = &mut self.window else {
            // The requests of the previous window may already fill this one. Their answers will show how much is left.
            return if left > 0 { SendTime::Now } else { SendTime::At(now + RESET_SLACK) };
        };
        if left == 0 { SendTime::At(window.end) } else { window.spread(now, left, reserve) }
    }

    /// Reserves the budget of one request, at once.
    pub fn take(&mut self, now: Instant) -> BudgetReservation {
        self.expire(now);
        self.window.get_or_insert_with(|| Window::with_assumed_end(now + ASSUMED + RESET_SLACK));
        self.in_flight += 1;
        self.share.take(now);
        BudgetReservation { token: self.token, taken: now }
    }

    /// Takes a reservation back with which nothing was sent.
    pub(crate) fn give_back(&mut self, reservation: BudgetReservation) {
        self.share.give_back(reservation.taken);
        if self.is_current(reservation) {
            self.in_flight = self.in_flight.saturating_sub(1);
            let idle = self.in_flight == 0 && self.uncounted.is_empty();
            if idle && self.window.as_ref().is_some_and(Window::is_untouched) {
                self.window = None;
            }
        }
    }

    /// Records that a request ended without an answer: the API may have counted it.
    pub(crate) fn record_loss(&mut self, reservation: BudgetReservation, now: Instant) {
        if self.is_current(reservation) {
            self.expire(now);
            self.in_flight = self.in_flight.saturating_sub(1);
            self.uncounted.push(now);
        }
    }

    /// Records the answer to a request sent at `sent`.
    pub(crate) fn record_answer(
        &mut self,
        reservation: BudgetReservation,
        sent: Instant,
        now: Instant,
        limits: RateLimitHeaders,
    ) {
        if !self.is_current(reservation) {
            return;
        }
        self.expire(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.allowed = limits.allowed.map(|allowed| (allowed, now)).or(self.allowed);
        if let Some(reset) = limits.reset
            && !self.find_window(WindowEnd::estimate(sent, now, reset))
        {
            return;
        }
        match (limits.count, &mut self.window) {
            (Some(count), Some(window)) => {
                window.counted = window.counted.max(count);
                // What ended before this was sent is in its count.
                self.uncounted.retain(|ended| *ended > sent);
            }
            (Some(_), None) => {}
            (None, _) => self.uncounted.push(now),
        }
    }

    /// Begins with another token: its window begins with its first request.
    pub(crate) fn new_token(&mut self) {
        self.token += 1;
        self.window = None;
        self.ended = None;
        self.in_flight = 0;
        self.uncounted.clear();
    }

    #[expect(clippy::needless_pass_by_value, reason = "a reservation is used once")]
    fn is_current(&self, reservation: BudgetReservation) -> bool {
        reservation.token == self.token
    }

    /// Finds the window that an answer describes; false if it is over.
    fn find_window(&mut self, end: WindowEnd) -> bool {
        if let Some(current) = self.window.as_ref().and_then(|window| window.ends) {
            if end.is_before(current) {
                return false;
            }
            if current.is_before(end) {
                self.close(current.earliest, Some(current));
            }
        } else if self.ended.is_some_and(|ended| !ended.is_before(end)) {
            return false;
        }
        self.window.get_or_insert_with(|| Window::with_assumed_end(end.latest)).narrow(end);
        true
    }

    /// Ends a window whose time is over.
    fn expire(&mut self, now: Instant) {
        self.allowed.take_if(|(_, named)| now > *named + ALLOWED_FOR);
        if let Some(window) = self.window.take_if(|window| window.end <= now) {
            let earliest = window.ends.map_or(window.end - RESET_SLACK, |ends| ends.earliest);
            self.close(earliest, window.ends);
        }
    }

    /// Keeps of the uncounted requests those that the next window may have counted.
    fn close(&mut self, earliest_end: Instant, ends: Option<WindowEnd>) {
        self.window = None;
        self.ended = ends;
        self.uncounted.retain(|ended| *ended > earliest_end);
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
            budget.record_loss(share, later + seconds(1));
        }
        assert_eq!(budget.remaining(later + seconds(59)), 0);
        assert_eq!(budget.remaining(later + seconds(62)), 10);
    }

    #[test]
    fn the_apis_limit_counts_where_it_is_smaller_and_never_where_it_is_larger() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        for (allowed, limit) in [(180, 180), (1000, 300), (0, 1)] {
            let share = budget.take(now);
            budget.record_answer(share, now, now, rates(allowed, 1, 60));
            assert_eq!(budget.limit(), limit);
        }
    }

    #[test]
    fn the_apis_limit_is_forgotten_once_it_is_not_told_for_some_windows() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let share = budget.take(now);
        budget.record_answer(share, now, now, rates(1, 1, 60));
        assert_eq!((budget.remaining(now + seconds(59)), budget.remaining(now + seconds(62))), (0, 1));
        assert_eq!(budget.remaining(now + ALLOWED_FOR + seconds(1)), 300);
    }

    #[test]
    fn what_another_process_spent_of_the_token_counts() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let share = budget.take(now);
        budget.record_answer(share, now, now, rates(300, 250, 40));
        assert_eq!(budget.remaining(now), 50);
    }

    #[test]
    fn an_answer_of_the_window_before_does_not_disturb_the_new_one() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let (slow, quick) = (budget.take(start), budget.take(start));
        budget.record_answer(quick, start, start, rates(300, 290, 5));
        let later = start + seconds(10);
        let share = budget.take(later);
        budget.record_answer(share, later, later, rates(300, 1, 60));
        budget.record_answer(slow, start, later, rates(300, 291, 5));
        assert_eq!(budget.remaining(later), 299);
    }

    #[test]
    fn a_late_answer_of_an_old_window_does_not_begin_a_new_one() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let (slow, quick) = (budget.take(start), budget.take(start));
        budget.record_answer(quick, start, start, rates(300, 290, 5));
        let later = start + seconds(7);
        budget.record_answer(slow, start, later, rates(300, 291, 5));
        assert_eq!(budget.remaining(later), 300);
    }

    #[test]
    fn answers_out_of_order_never_lower_the_count() {
        let (mut budget, now) = (Budget::new(300, u32::MAX), Instant::now());
        let (first, second) = (budget.take(now), budget.take(now));
        budget.record_answer(second, now, now, rates(300, 2, 60));
        budget.record_answer(first, now, now, rates(300, 1, 60));
        assert_eq!(budget.remaining(now), 298);
    }

    #[test]
    fn a_lost_answer_costs_until_a_later_request_tells_the_count() {
        let (mut budget, start) = (Budget::new(300, u32::MAX), Instant::now());
        let lost = budget.take(start);
        budget.record_loss(lost, start + seconds(1));
        assert_eq!(budget.remaining(start + seconds(1)), 299);
        let share = budget.take(start + seconds(2));
        budget.record_answer(share, start + seconds(2), start + seconds(3), rates(300, 1, 57));
        assert_eq!(budget.remaining(start + seconds(3)), 299, "the API never saw the lost one");
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
        while budget.remaining(now) > 0 {
            let _in_flight = budget.take(now);
        }
        budget.new_token();
        assert_eq!(budget.remaining(now), 50);
        budget.record_answer(old, now, now, rates(50, 50, 60));
        assert_eq!(budget.remaining(now), 50);
    }

    #[test]
    fn the_clients_part_holds_whatever_the_token_allows_and_outlives_tokens() {
        let (mut budget, start) = (Budget::new(300, 500), Instant::now());
        assert_eq!(drain(&mut budget, start), 10, "and then at its pace");
        budget.new_token();
        assert_eq!(budget.remaining(start), 300);
        assert!(matches!(budget.ready(start), SendTime::At(_)));
        let usage = BudgetUsage { last_minute: 10, token_limit: 300, allotted: 500, left: 300 };
        assert_eq!(budget.usage(start), usage);
    }

    #[test]
    fn an_unused_share_is_given_back_to_the_clients_part_too() {
        let (mut budget, now) = (Budget::new(300, 1), Instant::now());
        let share = budget.take(now);
        assert_eq!(budget.remaining(now), 0);
        budget.give_back(share);
        assert_eq!(budget.ready(now), SendTime::Now);
    }
}
