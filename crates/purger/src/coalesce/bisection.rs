//! The bisection of a refused request: finds the path that the API rejects by halves, first of the jobs, then of one
//! job's paths. Pure.
//!
//! A half ends where one job's paths end and another's begin, as near to half of the *paths* as possible: so a job with
//! many paths is found sooner, and at most 13 further requests name one path of a hundred, however they are spread.

use std::collections::BTreeSet;

use super::pack::{JobKey, RequestLine, jobs_on};

/// The next step of a bisection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BisectionStep {
    /// Send a half: [`Bisection::take_half`].
    SendHalf,
    /// A request with one path alone was refused: [`Bisection::take_rejected`].
    Found,
    /// No path is suspected any more.
    Over,
}

/// The paths of one refused request that are still suspected.
#[derive(Debug)]
pub(super) struct Bisection {
    suspects: Vec<RequestLine>,
    /// Exactly the suspects were refused together; otherwise it is only concluded.
    refused: bool,
}

impl Bisection {
    /// Begins with the lines of a refused request. `refused` is false if something of it is not here any more. Only
    /// paths of the body are suspected: nothing that was merely covered may be in `lines`.
    pub(super) fn new(lines: Vec<RequestLine>, refused: bool) -> Self {
        Self { suspects: lines, refused }
    }

    /// Returns the next step.
    pub(super) fn step(&self) -> BisectionStep {
        match self.suspects.len() {
            0 => BisectionStep::Over,
            1 if self.refused => BisectionStep::Found,
            _ => BisectionStep::SendHalf,
        }
    }

    /// Lists the suspected jobs, apart from what was taken.
    pub(super) fn jobs(&self) -> BTreeSet<JobKey> {
        jobs_on(&self.suspects)
    }

    /// Takes the lines to send next. [`Self::note_accepted`], [`Self::note_refused`] or [`Self::put_back`] follows.
    pub(super) fn take_half(&mut self) -> Vec<RequestLine> {
        self.suspects.sort_by_key(RequestLine::owner);
        self.suspects.drain(..self.middle()).collect()
    }

    /// Takes the line that was refused alone.
    pub(super) fn take_rejected(&mut self) -> Option<RequestLine> {
        self.suspects.pop()
    }

    /// Records that the half was accepted: the rejected path is in the other one.
    pub(super) fn note_accepted(&mut self) {
        self.refused = false;
    }

    /// Records that the half, or what is left of it, was refused. Returns the other one, about which nothing is known.
    pub(super) fn note_refused(&mut self, half: Vec<RequestLine>, refused: bool) -> Vec<RequestLine> {
        self.refused = refused;
        std::mem::replace(&mut self.suspects, half)
    }

    /// Takes a half back that got no answer; `whole` if nothing of it is gone.
    pub(super) fn put_back(&mut self, half: Vec<RequestLine>, whole: bool) {
        self.refused &= whole;
        self.suspects.extend(half);
    }

    /// Ends the bisection; returns the lines about which nothing is known.
    pub(super) fn give_up(&mut self) -> Vec<RequestLine> {
        std::mem::take(&mut self.suspects)
    }

    /// Removes `job`. True if a path went with it.
    pub(super) fn drop_job(&mut self, job: JobKey) -> bool {
        let lost = remove_jobs(&mut self.suspects, |other| other == job);
        self.refused &= !lost;
        lost
    }

    /// Returns how many of the suspects, in order, are the first half: all of a single one, a border of jobs, or half
    /// of one job's paths.
    fn middle(&self) -> usize {
        let len = self.suspects.len();
        let is_border = |at: &usize| self.suspects[*at - 1].owner() != self.suspects[*at].owner();
        let border = (1..len).filter(is_border).min_by_key(|at| (2 * at).abs_diff(len));
        border.unwrap_or(len.div_ceil(2))
    }
}

/// Removes the paths of jobs that `is_gone` from `lines`. True if a line went with them.
pub(super) fn remove_jobs(lines: &mut Vec<RequestLine>, is_gone: impl Fn(JobKey) -> bool) -> bool {
    let before = lines.len();
    lines.retain_mut(|line| {
        line.items.retain(|item| !is_gone(item.job));
        line.covered.retain(|item| !is_gone(item.job));
        !line.items.is_empty()
    });
    lines.len() < before
}

#[cfg(test)]
mod tests;
