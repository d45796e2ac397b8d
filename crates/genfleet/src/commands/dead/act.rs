//! `genfleet dead redrive` and `discard`: selection, limits and confirmation.

use genfleet_core::eprint_line;
use std::{process::ExitCode, time::Duration};

use genfleet_core::{
    audit::AuditOptions,
    job::Kind,
    options::{ConfigError, positive_duration},
    queue::QueueInspector,
    worker::{QueueOptions, Signals},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    action::{ActionPlan, DeadLetterAction},
    audit::ActionAudit,
};
use super::{
    filter::Filter,
    list::{self, Found, what},
    tally::{Action, Tally},
};
use crate::{
    commands::{EXIT_FAILED, block_on, rate::Rate},
    terminal::{self, Paint},
};

mod action;
mod audit;

/// The most dead letters that are published and not yet removed: a crash can duplicate as many.
const LARGEST_WINDOW: u16 = 10_000;

/// Options of `redrive`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Redrive {
    /// The most dead letters published and not yet removed: a larger number is faster, but a crash can duplicate as
    /// many
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=i64::from(LARGEST_WINDOW)), value_name = "N")]
    window: u16,

    /// The kind of messages that name none: unrouted ones and those of unknown kind. A body with another word in its
    /// member `kind` gets this one
    #[arg(long = "as", value_name = "KIND")]
    as_kind: Option<Kind>,

    #[command(flatten)]
    common: Common,
}

/// Options of both, and all options of `discard`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,

    /// The most dead letters, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// The most dead letters a second
    #[arg(long, value_name = "N")]
    rate: Option<Rate>,

    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    yes: bool,

    /// Maximum wait for a broker that is unavailable
    #[arg(long, default_value = "60s", value_parser = positive_duration, value_name = "DURATION")]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    queue: QueueOptions,
    #[command(flatten)]
    audit: AuditOptions,
}

/// Redrives dead letters.
pub(super) fn redrive(options: &Redrive) -> anyhow::Result<ExitCode> {
    if options.as_kind == Some(Kind::WebhookDeliver) {
        return Err(ConfigError::new("--as webhook.deliver: only workers make such jobs").into());
    }
    act(&options.common, Action::Redrive, usize::from(options.window), options.as_kind)
}

/// Discards dead letters.
pub(super) fn discard(options: &Common) -> anyhow::Result<ExitCode> {
    // A discard cannot duplicate anything, so a large window is safe.
    act(options, Action::Discard, 100, None)
}

fn act(common: &Common, action: Action, window: usize, as_kind: Option<Kind>) -> anyhow::Result<ExitCode> {
    let asking = !common.yes && !common.dry_run;
    if asking && !terminal::can_ask() {
        let message = format!(
            "dead {} changes dead letters, and there is no terminal for a confirmation: say --yes if this is intended, \
             or --dry-run to see what it would do",
            action.as_str()
        );
        return Err(ConfigError::new(message).into());
    }
    let filter = common.filter.to_act_on(action);
    block_on(async {
        let inspector = common.queue.inspect(&format!("genfleet dead {}", action.as_str()))?;
        let mut limit = common.limit;
        if common.dry_run || asking {
            let mut found = list::find(&inspector, &filter).await?;
            if action == Action::Discard || as_kind.is_some() {
                // Nothing is left out for its kind.
                found.without_kind = 0;
            }
            let selected = (found.groups.total() - found.without_kind).min(limit.unwrap_or(u64::MAX));
            if filter.unrouted && selected == 0 && found.without_kind > 0 {
                inspector.close().await;
                return Err(kind_missing(found.without_kind).into());
            }
            if common.dry_run {
                inspector.close().await;
                preview(common, action, &found, selected)?;
                return Ok(ExitCode::SUCCESS);
            }
            if selected > 0 && !confirm(common, action, &found, selected)? {
                eprint_line!("nothing was changed");
                return Ok(ExitCode::from(EXIT_FAILED));
            }
            limit = Some(selected);
        }
        let plan = ActionPlan { action, filter, as_kind, limit, rate: common.rate, window, timeout: common.timeout };
        carry_out(&inspector, &ActionAudit::open(&common.audit, action)?, plan, common.json).await
    })
}

/// Refuses a redrive of unrouted messages none of which names a kind.
fn kind_missing(messages: u64) -> ConfigError {
    let what = terminal::count(messages, "unrouted message");
    ConfigError::new(format!(
        "nothing was redriven: the kind of {what} is not known. Say with --as KIND as which they run; genfleet dead list \
         --unrouted shows them"
    ))
}

async fn carry_out(
    inspector: &QueueInspector,
    audit: &ActionAudit,
    plan: ActionPlan,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let (action, unrouted) = (plan.action, plan.filter.unrouted);
    let stop = stopped_by_signal()?;
    let mut running = DeadLetterAction::new(inspector, audit, plan, stop.clone());
    let ended = running.run().await;
    let tally = running.finish();
    inspector.close().await;
    let ended = ended.and(audit.close().await);
    let complete = ended.is_ok() && !stop.is_cancelled();
    ended.and(print(&tally, action, complete, as_json))?;
    if !complete {
        eprint_line!("stopped before the end: nothing is lost, run it again to continue");
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    if unrouted && tally.total() == 0 && tally.left.without_kind > 0 {
        return Err(kind_missing(tally.left.without_kind).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn print(tally: &Tally, action: Action, complete: bool, as_json: bool) -> anyhow::Result<()> {
    let message = if as_json { tally.json(action, complete).to_string() } else { tally.text(action) };
    terminal::print_line(message).map(drop)
}

/// Prints what would be done to `selected` dead letters.
fn preview(common: &Common, action: Action, found: &Found, selected: u64) -> anyhow::Result<()> {
    if common.json {
        terminal::print_line(json!({
            "action": action.as_str(), "dryRun": true, "would": selected, "held": found.held, "leftOut": found.spared,
            "foreign": found.foreign, "withoutKind": found.without_kind, "groups": found.groups.json(),
        }))?;
        return Ok(());
    }
    if found.groups.total() > 0 {
        terminal::print_escaped(found.groups.table(Paint::stdout()))?;
    }
    terminal::print_line(format_args!(
        "would {} {selected} of {}; nothing was changed",
        action.as_str(),
        terminal::count(found.groups.total(), what(&common.filter))
    ))?;
    found.warn();
    if found.without_kind > 0 {
        eprint_line!("note: the kind of {} is not known: they are redriven with --as KIND only", found.without_kind);
    }
    Ok(())
}

fn confirm(common: &Common, action: Action, found: &Found, selected: u64) -> anyhow::Result<bool> {
    eprint_line!("{}", found.groups.table(Paint::stderr()).trim_end());
    found.warn();
    Ok(terminal::ask(&format!("{} {}?", action.as_str(), terminal::count(selected, what(&common.filter))))?)
}

/// Set by the first signal; the second ends the process.
fn stopped_by_signal() -> anyhow::Result<CancellationToken> {
    let (stop, mut signals) = (CancellationToken::new(), Signals::listen()?);
    let cancel = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        eprint_line!("stopping after the dead letters in progress; send the signal again to stop at once");
        cancel.cancel();
        signals.next().await;
        std::process::exit(i32::from(EXIT_FAILED));
    });
    Ok(stop)
}
