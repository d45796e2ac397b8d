//! The background task of the client: tries bad credentials again, applies changes that depend on time, and sets the
//! gauges.

use metrics::{counter, gauge};
use tokio::time::Instant;

use super::GenesysClient;
use genfleet_job::metric;

impl GenesysClient {
    /// Runs the background task. Never ends.
    pub async fn run(self) {
        let (mut changes, mut seconds_shown) = (self.changes(), 0);
        let mut audit = self.audit().conditions();
        loop {
            let now = Instant::now();
            changes.mark_unchanged();
            let trouble = audit.borrow_and_update().trouble();
            let (next, tries_credentials) = {
                let mut control = self.shared.admission.control();
                control.set_audit_trouble(trouble);
                (control.tick(now), control.take_credentials_try(now))
            };
            if tries_credentials {
                self.shared.tokens.retry_credentials();
            }
            self.show_gauges(now, &mut seconds_shown);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                // The senders live in `self`.
                _ = changes.changed() => {}
                _ = audit.changed() => {}
            }
        }
    }

    pub(super) fn show_gauges(&self, now: Instant, seconds_shown: &mut u64) {
        let gauges = self.shared.admission.control().gauges(now);
        for (reason, is_held) in gauges.holds {
            gauge!(metric::GATE_STATE, "reason" => reason.as_str()).set(f64::from(u8::from(is_held)));
        }
        gauge!(metric::API_BUDGET_REMAINING).set(f64::from(gauges.budget_left));
        let seconds = gauges.time_paused.as_secs();
        counter!(metric::API_THROTTLED).increment(seconds.saturating_sub(*seconds_shown));
        *seconds_shown = seconds;
    }
}
