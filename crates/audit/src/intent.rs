//! A call that is about to be sent, and what came of it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    Audit, Unwritten,
    record::{Detail, Fact},
    subject::SubjectState,
};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did what was asked.
    Done,
    /// It was answered that it did not.
    Refused,
    /// No answer, or none that says.
    Unknown,
    /// It was not sent.
    Unsent,
}

impl Effect {
    /// The word in the effect's detail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Unsent => "unsent",
        }
    }
}

/// A call that is about to be sent, written down for every job it is sent for. Dropped before it is known what came
/// of it, it writes that down, too.
#[derive(Debug)]
#[must_use]
pub struct Intent {
    audit: Audit,
    facts: Vec<(Arc<SubjectState>, u64)>,
    sent: bool,
}

impl Intent {
    pub(super) fn new(audit: Audit, facts: Vec<(Arc<SubjectState>, u64)>) -> Self {
        Self { audit, facts, sent: false }
    }

    /// Waits until it is in the file. [`Unwritten`] where `stop` is cancelled first.
    pub async fn written(&self, stop: &CancellationToken) -> Result<(), Unwritten> {
        let Some(last) = self.facts.last().map(|(_, seq)| *seq) else { return Ok(()) };
        let mut written = self.audit.shared.written.subscribe();
        tokio::select! {
            biased;
            () = self.audit.failed() => Err(Unwritten),
            reached = written.wait_for(|mark| mark.written >= last) => reached.map(drop).map_err(|_| Unwritten),
            () = stop.cancelled() => Err(Unwritten),
        }
    }

    /// The call goes out now: until its [`effect`](Self::effect) is written, nobody knows what came of it.
    pub fn sent(&mut self) {
        self.sent = true;
        for (subject, _) in &self.facts {
            subject.sent();
        }
    }

    /// Writes down what came of it.
    pub fn effect(mut self, effect: Effect, detail: &Detail) {
        self.write(effect, detail);
    }

    fn write(&mut self, effect: Effect, detail: &Detail) {
        let told = |(subject, seq): (Arc<SubjectState>, u64)| {
            (subject, detail.clone().with("intent", seq).with("result", effect.as_str()))
        };
        let facts = std::mem::take(&mut self.facts);
        if !facts.is_empty() {
            self.audit.append(facts.into_iter().map(told), Fact::Effect);
        }
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        let effect = if self.sent { Effect::Unknown } else { Effect::Unsent };
        self.write(effect, &Detail::default());
    }
}
