//! The intent to send a call that changes something, and its effect.

use std::sync::Arc;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{
    Audit, Unwritten,
    record::{Detail, Fact},
    subject::SubjectState,
};

/// The effect of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The change was made.
    Done,
    /// The change was not made, according to the answer.
    Refused,
    /// It is unknown whether the change was made.
    Unknown,
    /// The call was not sent.
    Unsent,
}

impl Effect {
    /// The value in the effect's detail.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Unsent => "unsent",
        }
    }
}

/// The intent to send a call, appended for every job of the call. If it is dropped before its effect is known, it
/// appends an unknown effect.
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

    /// Waits until the intent is in the file. [`Unwritten`] if `stop` is cancelled first.
    pub async fn wait_until_written(&self, stop: &CancellationToken) -> Result<(), Unwritten> {
        let Some(last) = self.facts.last().map(|(_, seq)| *seq) else { return Ok(()) };
        // What other tasks append meanwhile needs no further wake-up of the writer.
        yield_now().await;
        self.audit.shared.wake_lingering_writer();
        let mut written = self.audit.shared.written.subscribe();
        tokio::select! {
            biased;
            () = self.audit.wait_until_failed() => Err(Unwritten),
            reached = written.wait_for(|mark| mark.written >= last) => reached.map(drop).map_err(|_| Unwritten),
            () = stop.cancelled() => Err(Unwritten),
        }
    }

    /// Marks the call as sent: until its [`effect`](Self::effect) is appended, its effect is unknown.
    pub fn mark_sent(&mut self) {
        self.sent = true;
        for (subject, _) in &self.facts {
            subject.record_sent();
        }
    }

    /// Appends the effect.
    pub fn effect(mut self, effect: Effect, detail: &Detail) {
        self.write(effect, detail);
    }

    fn write(&mut self, effect: Effect, detail: &Detail) {
        let result = effect.as_str();
        let effect = |(subject, seq): (Arc<SubjectState>, u64)| {
            (subject, detail.clone().with("intent", seq).with("result", result))
        };
        let facts = std::mem::take(&mut self.facts);
        if !facts.is_empty() {
            self.audit.append(facts.into_iter().map(effect), Fact::Effect);
        }
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        let effect = if self.sent { Effect::Unknown } else { Effect::Unsent };
        self.write(effect, &Detail::default());
    }
}
