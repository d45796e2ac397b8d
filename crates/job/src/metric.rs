//! Every metric's name, in one list (SPEC 9). What is said of it in `/metrics` is in [`genfleet_telemetry`].

/// Jobs that ended: `kind`, `outcome`, `code`.
pub const JOBS: &str = "genfleet_jobs_total";
/// From first start to end, over all attempts: `kind`.
pub const JOB_DURATION: &str = "genfleet_job_duration_seconds";
/// From being enqueued to the first start: `kind`.
pub const JOB_QUEUE_WAIT: &str = "genfleet_job_queue_wait_seconds";
/// Jobs in a handler now: `kind`.
pub const JOBS_IN_FLIGHT: &str = "genfleet_jobs_in_flight";
/// Deliveries that this process holds unsettled, whatever they wait for: `kind`.
pub const JOBS_HELD: &str = "genfleet_jobs_held";
/// Jobs sent back to the queue to wait: `kind`, `class`.
pub const JOB_RETRIES: &str = "genfleet_job_retries_total";
/// Dead letters written: `kind`, `reason`.
pub const DEAD_LETTERS: &str = "genfleet_dead_letters_total";
/// Requests sent: `endpoint`, `method`, `status` (a number or `error`).
pub const API_REQUESTS: &str = "genfleet_api_requests_total";
/// From sending a request to its answer: `endpoint`, `method`.
pub const API_REQUEST_DURATION: &str = "genfleet_api_request_duration_seconds";
/// Time the gate was shut.
pub const API_THROTTLED: &str = "genfleet_api_throttled_seconds_total";
/// Requests that may be sent now, by the token's limit and this process's part of the client's.
pub const API_BUDGET_REMAINING: &str = "genfleet_api_budget_remaining";
/// 1 while nothing is sent: `reason`.
pub const GATE_STATE: &str = "genfleet_gate_state";
/// Seconds by which this machine's clock is ahead of the API's; NaN until the API answered.
pub const CLOCK_OFFSET: &str = "genfleet_clock_offset_seconds";
/// Tokens asked for: `result`.
pub const TOKEN_REFRESHES: &str = "genfleet_token_refreshes_total";
/// Messages ready in a queue: `kind`, `queue` (jobs, resume, suspect, dead; unrouted, of no kind). NaN while this
/// process cannot count them, so that nothing old stands for what is.
pub const QUEUE_MESSAGES: &str = "genfleet_queue_messages";
/// Messages in a step of the delays, not yet due there: `queue` (`00` to `15`). NaN as above.
pub const DELAYED_MESSAGES: &str = "genfleet_delayed_messages";
/// Begun jobs put into the delays by this process whose time is over: `kind`, `queue`, the step they were put into.
pub const DELAYS_DUE: &str = "genfleet_delays_due_total";
/// Begun jobs handed to this process that came out of the delays: `kind`, `queue`, the step they were put into.
pub const DELAYS_ENDED: &str = "genfleet_delays_ended_total";
/// Age of the last delivered job: `kind`.
pub const OLDEST_JOB_AGE: &str = "genfleet_oldest_job_age_seconds";
/// Paths purged.
pub const PURGE_PATHS: &str = "genfleet_purge_paths_total";
/// Paths in one purge request.
pub const PURGE_BATCH_PATHS: &str = "genfleet_purge_batch_paths";
/// Scans that passed through this process and are expected back: best effort.
pub const SCANS_IN_FLIGHT: &str = "genfleet_scans_in_flight";
/// Verdicts that name a threat.
pub const THREATS_DETECTED: &str = "genfleet_threats_detected_total";
/// Tries of deliveries that ended: `outcome` (delivered, retried, failed, gone, refused).
pub const WEBHOOK_DELIVERIES: &str = "genfleet_webhook_deliveries_total";
/// Events made durable.
pub const EVENTS_PUBLISHED: &str = "genfleet_events_published_total";
/// From sending a publication to its confirm.
pub const PUBLISH_CONFIRM: &str = "genfleet_publish_confirm_seconds";
/// Publications sent and not confirmed yet.
pub const PUBLISH_UNCONFIRMED: &str = "genfleet_publish_unconfirmed";
/// Replies that their producers did not get: `reason` (`not_allowed`, unroutable, failed, dropped).
pub const REPLIES_GIVEN_UP: &str = "genfleet_replies_given_up_total";
/// Of these, those whose queue was gone.
pub const REPLIES_UNROUTABLE: &str = "genfleet_replies_unroutable_total";
/// Facts written to the audit.
pub const AUDIT_RECORDS: &str = "genfleet_audit_records_total";
/// 1 while connected: `role` (consume, publish).
pub const BROKER_CONNECTED: &str = "genfleet_broker_connected";
/// Sessions rebuilt: `role`.
pub const BROKER_RECONNECTS: &str = "genfleet_broker_reconnects_total";
/// Acknowledgements that came too late: the message is delivered again.
pub const STALE_ACKS: &str = "genfleet_stale_acks_total";
/// 1 while `/readyz` says 200.
pub const READY: &str = "genfleet_ready";
/// Processes of the fleet that are alive, this one included.
pub const FLEET_PROCESSES: &str = "genfleet_fleet_processes";
/// Requests this process may send of the client's limit in any minute.
pub const FLEET_SHARE: &str = "genfleet_fleet_share";
/// 1 while the fleet is heard, or there is none to hear (embedded queue).
pub const FLEET_HEARD: &str = "genfleet_fleet_heard";
/// Words on the fleet's exchange that were not believed: `reason` (unsigned, forged, replayed, unproven, senseless).
pub const FLEET_REFUSED: &str = "genfleet_fleet_words_refused_total";
/// 1, with the `version`.
pub const BUILD_INFO: &str = "genfleet_build_info";
