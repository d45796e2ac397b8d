//! The table of all metrics (SPEC 9): the name in code, the name on the wire, the labels and the help text.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric, as `/metrics` describes it.
#[derive(Clone, Copy, Debug)]
pub struct MetricDescription {
    /// The type.
    pub kind: MetricKind,
    /// The name on the wire; names with `_seconds` are in seconds.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $constant:ident $name:literal [$($label:ident)*] $help:literal)*) => {
        $(#[doc = concat!($help, " Labels:" $(, " `", stringify!($label), "`")*, ".")]
        pub const $constant: &str = $name;)*

        /// All metrics.
        pub const ALL: &[MetricDescription] =
            &[$(MetricDescription { kind: MetricKind::$kind, name: $name, help: $help }),*];
    };
}

metrics! {
    Counter JOBS "genfleet_jobs_total" [kind outcome code] "Jobs that ended."
    Histogram JOB_DURATION "genfleet_job_duration_seconds" [kind]
        "Time from a job's first start to its end, over all attempts."
    Histogram JOB_QUEUE_WAIT "genfleet_job_queue_wait_seconds" [kind]
        "Time from being enqueued, or from notBefore, to the first start; up to a second too long if the producer sends no genfleet-enqueued-ms."
    Gauge JOBS_IN_FLIGHT "genfleet_jobs_in_flight" [kind] "Jobs in a handler."
    Gauge JOBS_HELD "genfleet_jobs_held" [kind] "Deliveries that this process has not acknowledged yet."
    Counter JOB_RETRIES "genfleet_job_retries_total" [kind class] "Jobs sent back to the queue to wait."
    Counter DEAD_LETTERS "genfleet_dead_letters_total" [kind reason] "Dead letters written."
    Counter API_REQUESTS "genfleet_api_requests_total" [endpoint method status] "Requests sent to Genesys Cloud."
    Histogram API_REQUEST_DURATION "genfleet_api_request_duration_seconds" [endpoint method]
        "Time from sending a request to its answer."
    Counter API_THROTTLED "genfleet_api_throttled_seconds_total" [] "Time during which the API accepted no requests (429)."
    Gauge API_BUDGET_REMAINING "genfleet_api_budget_remaining" []
        "Requests that may be sent now, by the token's limit and the client's."
    Gauge GATE_STATE "genfleet_gate_state" [reason] "1 while no request is sent for this reason."
    Gauge CLOCK_OFFSET "genfleet_clock_offset_seconds" []
        "Time by which this machine's clock is ahead of the API's, negative if it is behind; NaN until the API answered."
    Counter TOKEN_REFRESHES "genfleet_token_refreshes_total" [result] "Requests for a token."
    Gauge QUEUE_MESSAGES "genfleet_queue_messages" [kind queue]
        "Messages ready in a queue, as last counted; NaN while this process does not count them."
    Gauge DELAYED_MESSAGES "genfleet_delayed_messages" [queue]
        "Jobs in a delay queue, as last counted; NaN while this process does not count them."
    Counter DELAYS_DUE "genfleet_delays_due_total" [kind queue]
        "Jobs that this process delayed and whose delay is over, by the step it began in."
    Counter DELAYS_ENDED "genfleet_delays_ended_total" [kind queue]
        "Jobs that this process received from the delay queues, by the queue in which their delay started."
    Gauge OLDEST_JOB_AGE "genfleet_oldest_job_age_seconds" [kind] "How long the new job delivered last had waited, from being enqueued or from its notBefore."
    Counter PURGE_PATHS "genfleet_purge_paths_total" [] "Paths purged."
    Histogram PURGE_BATCH_PATHS "genfleet_purge_batch_paths" [] "Paths in one purge request."
    Gauge SCANS_IN_FLIGHT "genfleet_scans_in_flight" []
        "Scans that passed through this process and are expected back: best effort."
    Counter THREATS_DETECTED "genfleet_threats_detected_total" [] "Verdicts that name a threat."
    Counter MEDIA_SCANS "genfleet_media_scans_total" [result] "Files scanned by media.scan jobs, by result."
    Gauge SCANNER_DATABASE_AGE "genfleet_scanner_database_age_seconds" []
        "Age of the virus database of the engine that scans; NaN where it has no official one, and until it is known."
    Counter WEBHOOK_DELIVERIES "genfleet_webhook_deliveries_total" [outcome] "Attempts to deliver a webhook."
    Counter EVENTS_PUBLISHED "genfleet_events_published_total" [] "Events made durable."
    Histogram PUBLISH_CONFIRM "genfleet_publish_confirm_seconds" [] "Time from sending a publication to its confirm."
    Gauge PUBLISH_UNCONFIRMED "genfleet_publish_unconfirmed" [] "Publications sent and not confirmed yet."
    Counter REPLIES_GIVEN_UP "genfleet_replies_given_up_total" [reason] "Replies that their producers did not get."
    Counter REPLIES_UNROUTABLE "genfleet_replies_unroutable_total" [] "Replies whose queue was gone."
    Counter AUDIT_RECORDS "genfleet_audit_records_total" [] "Facts written to the audit."
    Gauge BROKER_CONNECTED "genfleet_broker_connected" [role] "1 while connected."
    Counter BROKER_RECONNECTS "genfleet_broker_reconnects_total" [role] "Broker sessions built again."
    Counter STALE_ACKS "genfleet_stale_acks_total" []
        "Acknowledgements that came too late: the message is delivered again."
    Gauge READY "genfleet_ready" [] "1 while /readyz answers 200."
    Gauge FLEET_PROCESSES "genfleet_fleet_processes" [] "Processes of the fleet that are alive, including this one."
    Gauge FLEET_SHARE "genfleet_fleet_share" []
        "Requests that this process may send of the client's limit in any minute."
    Gauge FLEET_HEARD "genfleet_fleet_heard" [] "1 while the other processes of the fleet are heard."
    Counter FLEET_REFUSED "genfleet_fleet_words_refused_total" [reason]
        "Messages on the fleet's exchange that were rejected."
    Gauge BUILD_INFO "genfleet_build_info" [version] "1, with the version."
}
