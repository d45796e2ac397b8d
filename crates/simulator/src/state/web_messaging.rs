//! Web messaging channels and their routing queues.
//!
//! Every queue exists unless a test excludes it. The number of channels is not limited, because licences are
//! a matter of the contract.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::errors::ApiError;

const MOST_IN_A_PAGE: u64 = 100;

/// The channels, oldest first, and the settings for reads.
#[derive(Debug, Default)]
pub(crate) struct WebMessaging {
    channels: Vec<Channel>,
    missing_queues: BTreeSet<String>,
    /// Time for which reads do not show a new channel.
    read_lag: Duration,
    /// True if channels cannot be listed.
    unlisted: bool,
}

#[derive(Debug)]
struct Channel {
    id: String,
    members: Value,
    created: Instant,
}

/// The settings that a test or a rehearsal can change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChannelsChange {
    missing_queues: Option<BTreeSet<String>>,
    read_lag_ms: Option<u64>,
    listing: Option<bool>,
}

impl WebMessaging {
    /// Returns the state for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let channels: Vec<&Value> = self.channels.iter().map(|channel| &channel.members).collect();
        json!({
            "channels": channels,
            "missingQueues": self.missing_queues,
            "readLagMs": u64::try_from(self.read_lag.as_millis()).unwrap_or(u64::MAX),
            "listing": !self.unlisted,
        })
    }

    /// Changes `missingQueues`, `readLagMs` and `listing`. Fails with a message if `change` is invalid.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let ChannelsChange { missing_queues, read_lag_ms, listing } =
            ChannelsChange::deserialize(change).map_err(|error| error.to_string())?;
        if let Some(ids) = missing_queues {
            self.missing_queues = ids.iter().map(|id| id.to_ascii_lowercase()).collect();
        }
        self.read_lag = read_lag_ms.map_or(self.read_lag, Duration::from_millis);
        self.unlisted = listing.map_or(self.unlisted, |listing| !listing);
        Ok(())
    }

    /// Returns a queue.
    pub(crate) fn queue(&self, id: &str) -> Result<Value, ApiError> {
        if !self.has_queue(id) {
            return Err(ApiError::not_found());
        }
        Ok(json!({"id": id, "name": format!("Queue {id}"), "memberCount": 0}))
    }

    fn has_queue(&self, id: &str) -> bool {
        Uuid::try_parse(id).is_ok() && !self.missing_queues.contains(&id.to_ascii_lowercase())
    }

    /// Returns a channel, if reads show it.
    pub(crate) fn channel(&self, id: &str, now: Instant) -> Result<Value, ApiError> {
        let found = self.visible_channels(now).find(|channel| channel.id.eq_ignore_ascii_case(id));
        found.map(|channel| channel.members.clone()).ok_or_else(ApiError::not_found)
    }

    /// Returns a page of the channels that reads show.
    pub(crate) fn page(&self, size: u64, number: u64, now: Instant) -> Result<Value, ApiError> {
        if self.unlisted {
            return Err(ApiError::not_found());
        }
        if !(1..=MOST_IN_A_PAGE).contains(&size) || number == 0 {
            return Err(ApiError::invalid_value(format!("pageSize is 1 to {MOST_IN_A_PAGE}, pageNumber at least 1")));
        }
        let all: Vec<&Value> = self.visible_channels(now).map(|channel| &channel.members).collect();
        let skipped = usize::try_from((number - 1).saturating_mul(size)).unwrap_or(usize::MAX);
        let entities: Vec<&Value> =
            all.iter().skip(skipped).take(usize::try_from(size).unwrap_or(0)).copied().collect();
        let total = all.len();
        let pages = u64::try_from(total).unwrap_or(u64::MAX).div_ceil(size);
        Ok(json!({
            "entities": entities,
            "pageSize": size,
            "pageNumber": number,
            "total": total,
            "pageCount": pages,
        }))
    }

    /// Creates a channel. Reads show it after the read lag.
    pub(crate) fn create(&mut self, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let id = self.check_channel(body)?;
        if self.channels.iter().any(|channel| channel.id == id) {
            let message = format!("A channel with id {id} exists already.");
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message));
        }
        let mut members = body.clone();
        members["id"] = id.as_str().into();
        members["status"] = "active".into();
        self.channels.push(Channel { id, members: members.clone(), created: now });
        Ok(members)
    }

    /// Returns the id for a new channel: the given one, or a random one.
    fn check_channel(&self, body: &Value) -> Result<String, ApiError> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let missing = |name: &str| ApiError::invalid_value(format!("{name} is missing or not allowed"));
        for name in ["name", "routingEmail"] {
            text(&body[name]).ok_or_else(|| missing(name))?;
        }
        text(&body["queueId"]).filter(|id| self.has_queue(id)).ok_or_else(|| missing("queueId"))?;
        let domains = body["security"]["allowedDomains"].as_array();
        domains.filter(|domains| !domains.is_empty()).ok_or_else(|| missing("security.allowedDomains"))?;
        let given = match &body["id"] {
            Value::Null => return Ok(Uuid::new_v4().to_string()),
            given => text(given).and_then(|id| Uuid::try_parse(&id).ok()),
        };
        given.map(|id| id.to_string()).ok_or_else(|| missing("id"))
    }

    fn visible_channels(&self, now: Instant) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(move |channel| now.saturating_duration_since(channel.created) >= self.read_lag)
    }
}
