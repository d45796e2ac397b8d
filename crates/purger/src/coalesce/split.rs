//! Finding the path that the API refuses among those of one request, by halves: first of the jobs, then of the
//! guilty job's paths. Pure; sending the halves is the driver's part.
//!
//! Halves are made at the border of two jobs, where the number of *paths* is halved: so a job with many paths is
//! found sooner, and all in all at most 13 further requests name one path of a hundred, however they are spread.

use std::collections::BTreeSet;

use super::pack::{JobKey, Line, jobs_on};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a half: [`Split::take_half`].
    Ask,
    /// A request with this one path alone was refused: [`Split::take_guilty`].
    Guilty,
    /// Nobody is suspected any more.
    Over,
}

/// The paths of one refused request that are still suspected.
#[derive(Debug)]
pub struct Split {
    suspects: Vec<Line>,
    /// Whether exactly the suspects were refused together; otherwise it is only concluded.
    refused: bool,
}

impl Split {
    /// The split of a request that was refused. `refused` is false where something of it is not here any more.
    /// Suspicion falls only on what was in the body: nothing that was merely covered may be in `lines`.
    pub fn new(lines: Vec<Line>, refused: bool) -> Self {
        Self { suspects: lines, refused }
    }

    /// What to do next.
    pub fn step(&self) -> Step {
        match self.suspects.len() {
            0 => Step::Over,
            1 if self.refused => Step::Guilty,
            _ => Step::Ask,
        }
    }

    /// Whether `job` is suspected, apart from what was taken.
    pub fn suspects(&self, job: JobKey) -> bool {
        self.suspects.iter().flat_map(Line::carried).any(|item| item.job == job)
    }

    /// All jobs that are.
    pub fn jobs(&self) -> BTreeSet<JobKey> {
        jobs_on(&self.suspects)
    }

    /// The lines to send next. Tell what came of it: [`Self::accepted`], [`Self::rejected`] or [`Self::returned`].
    pub fn take_half(&mut self) -> Vec<Line> {
        self.suspects.sort_by_key(Line::owner);
        self.suspects.drain(..self.middle()).collect()
    }

    /// The line that is guilty.
    pub fn take_guilty(&mut self) -> Option<Line> {
        self.suspects.pop()
    }

    /// The half was accepted: whoever is guilty is in the other one.
    pub fn accepted(&mut self) {
        self.refused = false;
    }

    /// The half, or what is left of it, was refused. Returns the other one, which nobody has judged.
    pub fn rejected(&mut self, half: Vec<Line>, refused: bool) -> Vec<Line> {
        self.refused = refused;
        std::mem::replace(&mut self.suspects, half)
    }

    /// The half comes back unjudged; `whole` where nothing of it is gone.
    pub fn returned(&mut self, half: Vec<Line>, whole: bool) {
        self.refused &= whole;
        self.suspects.extend(half);
    }

    /// Ends the split; returns those that nobody has judged.
    pub fn give_up(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.suspects)
    }

    /// Suspects `job` no longer. True where a path went with it.
    pub fn drop_job(&mut self, job: JobKey) -> bool {
        let lost = without(&mut self.suspects, |other| other == job);
        self.refused &= !lost;
        lost
    }

    /// How many of the suspects, in order, are the first half: all of a single one, a border of jobs, or half of
    /// one job's paths.
    fn middle(&self) -> usize {
        let len = self.suspects.len();
        let is_border = |at: &usize| self.suspects[*at - 1].owner() != self.suspects[*at].owner();
        let border = (1..len).filter(is_border).min_by_key(|at| (2 * at).abs_diff(len));
        border.unwrap_or(len.div_ceil(2))
    }
}

/// Takes the items of jobs that `is_gone` out of `lines`. True where a line went with them.
pub fn without(lines: &mut Vec<Line>, is_gone: impl Fn(JobKey) -> bool) -> bool {
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
