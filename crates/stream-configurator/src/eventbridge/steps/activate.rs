//! The last step: the integration is switched on or off, and its state is waited for.

use std::time::Duration;

use genfleet_core::error::{ErrorClass, JobError};

use super::{BETWEEN_LOOKS, Halt, IntegrationSteps};

/// Looks at a state in memory; further ones wait in the queue.
const LOOKS: u32 = 10;
/// An integration that is not in its state after this fails the attempt.
const ACTIVATE_TIMEOUT: Duration = Duration::from_secs(180);

impl IntegrationSteps<'_> {
    /// Says which state is intended, and waits until it is reported.
    pub(super) async fn activate(&mut self, id: &str) -> Result<String, Halt> {
        let (intended, reported) =
            if self.payload.is_enabled() { ("ENABLED", "ACTIVE") } else { ("DISABLED", "INACTIVE") };
        // A new integration is not enabled.
        let mut intended_now = self.intended_state.take().or_else(|| self.state.created.then(|| "DISABLED".to_owned()));
        let mut had_error = self.state.waits > 0;
        let mut looks = 0;
        loop {
            if !self.state.intended && intended_now.as_deref().is_some_and(|now| now != intended) {
                self.api.intend(id, intended).await?;
                (self.state.intended, self.state.wrote) = (true, true);
            }
            let integration = self.api.read(id).await?.unwrap_or_default();
            intended_now.clone_from(&integration.intended_state);
            if !self.state.intended && intended_now.as_deref().is_some_and(|now| now != intended) {
                continue;
            }
            let code = integration.reported_state();
            if code == reported {
                return Ok(code);
            }
            // One look may still show what was wrong before this job changed something.
            if code == "ERROR" && had_error {
                let message = format!(
                    "integration {id} reports ERROR: {:.300}; correct the job or the AWS account, and send it again",
                    integration.reason()
                );
                return Err(JobError::permanent("integration_error", message).into());
            }
            had_error = code == "ERROR";
            looks += 1;
            if looks >= LOOKS || self.state.waits > 0 {
                return Err(self.not_yet(id, &code, reported));
            }
            self.state.waiting_since.get_or_insert_with(|| self.job.now());
            self.pause(BETWEEN_LOOKS).await?;
        }
    }

    fn not_yet(&mut self, id: &str, code: &str, wanted: &str) -> Halt {
        let since = *self.state.waiting_since.get_or_insert_with(|| self.job.now());
        let age = self.since(since);
        if age < ACTIVATE_TIMEOUT {
            return self.later();
        }
        // The next attempt begins with what is there then.
        self.state.configured = None;
        (self.state.intended, self.state.waits, self.state.waiting_since) = (false, 0, None);
        let code = if code.is_empty() { "nothing" } else { code };
        let message = format!("integration {id} reports {code}, not {wanted}, after {} s", age.as_secs());
        JobError::new(ErrorClass::Transient, "not_active", message).into()
    }
}
