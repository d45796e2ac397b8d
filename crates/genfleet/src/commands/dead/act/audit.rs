//! The audit of an operator's actions: as for a worker's changes, an intent before and an effect after (SPEC 8).

use std::sync::Arc;

use anyhow::bail;
use genfleet_core::{
    audit::{Audit, AuditOptions, AuditSubject, Detail, Fact, default_file, operator},
    clock::{SharedClock, SystemClock},
    job::Kind,
    options::ConfigError,
    queue::dead_letters::DeadLetter,
    supervisor::{Supervisor, TaskExits},
    worker::readable_payload_sha256,
};

use super::super::tally::Action;

/// The audit of this process.
pub(super) struct ActionAudit {
    audit: Audit,
    supervisor: Supervisor,
    _exits: TaskExits,
    action: &'static str,
    /// The operator's name.
    pub operator: String,
}

/// A dead letter, and the action on it.
pub(super) struct Entry {
    about: AuditSubject,
    detail: Detail,
}

impl ActionAudit {
    /// Opens the audit. Fails if it cannot be written.
    pub(super) fn open(options: &AuditOptions, action: Action) -> Result<Self, ConfigError> {
        if options.uses_stdout() {
            return Err(ConfigError::new("--audit-log -: the result is written to stdout; name a file, or off"));
        }
        let clock: SharedClock = Arc::new(SystemClock);
        let opened = options.open(&default_file("dead"), &clock);
        let opened = opened.map_err(|error| {
            ConfigError::new(format!(
                "{error}. Actions of operators are audited, too: name a file with --audit-log, or off"
            ))
        })?;
        let (supervisor, exits) = Supervisor::new();
        let action = match action {
            Action::Redrive => "dead_redrive",
            Action::Discard => "dead_discard",
        };
        Ok(Self { audit: opened.start(&supervisor), supervisor, _exits: exits, action, operator: operator() })
    }

    /// Creates the entry for `letter`. If it is redriven, `redriven_as` is its kind.
    pub(super) fn entry(&self, letter: &DeadLetter, redriven_as: Option<Kind>) -> Entry {
        let kind = redriven_as.map_or(letter.kind_name(), Kind::as_str);
        let about = AuditSubject {
            job: Some(letter.id.clone()),
            kind,
            worker: "genfleet",
            action: self.action,
            payload_sha256: readable_payload_sha256(&letter.stored.message.body),
        };
        let detail = Detail::default()
            .with("fingerprint", letter.fingerprint.as_str())
            .with("generation", letter.generation)
            .with("operator", self.operator.as_str())
            .with("reason", letter.reason.as_str());
        Entry { about, detail }
    }

    /// Records the intents, and waits until they are durable.
    pub(super) async fn record_intents<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> anyhow::Result<()> {
        for Entry { about, detail } in entries {
            self.audit.fact(about, Fact::Intent, detail);
        }
        self.durable().await
    }

    /// Records that the action was carried out, or that the dead letter was gone.
    pub(super) fn record_effect(&self, entry: Entry, found: bool) {
        let result = if found { "done" } else { "gone" };
        self.audit.fact(&entry.about, Fact::Effect, &entry.detail.with("result", result));
    }

    async fn durable(&self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            written = self.audit.wait_until_all_durable() => Ok(written?),
            why = self.audit.trouble() => {
                bail!("{why}. Nothing more is done: free some disk space, or name another file with --audit-log, and run it again to continue")
            }
        }
    }

    /// Waits until all records are durable, and closes the audit.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        let durable = self.durable().await;
        self.supervisor.stop().await;
        durable
    }
}
