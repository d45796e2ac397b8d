//! `genfleet dead list`: counts dead letters, grouped by cause. Listing removes nothing.

use genfleet_core::tell;
use std::process::ExitCode;

use genfleet_core::{
    clock::{Clock, SystemClock},
    queue::{
        QueueInspector,
        dead_letters::{DeadLetter, DeadLetterQueue, FOREIGN},
    },
    worker::QueueOptions,
};
use serde_json::json;

use super::{filter::Filter, groups::Groups, queues::existing};
use crate::{
    commands::block_on,
    terminal::{self, Paint, count},
};

/// Options of `list`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    queue: QueueOptions,
}

/// What a look came by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What matched.
    pub groups: Groups,
    /// What was there and could not be looked at: somebody else holds it.
    pub held: u64,
    /// What is left out for its reason, and for which reasons.
    pub spared: u64,
    /// See `spared`.
    pub left_out: &'static [&'static str],
    /// What is not redriven, whoever asks for it.
    pub foreign: u64,
    /// What could not be shown as it was sent, by place.
    pub flawed: Vec<String>,
}

/// Prints the groups.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    block_on(async {
        let shelves = options.queue.inspect("genfleet dead list")?;
        let seen = seen(&shelves, &options.filter).await?;
        let unrouted =
            if options.filter.unrouted { 0 } else { shelves.count(DeadLetterQueue::Unrouted).await.unwrap_or(0) };
        shelves.close().await;
        if options.json {
            let (total, groups) = (seen.groups.total(), seen.groups.json());
            terminal::say(json!({ "total": total, "held": seen.held, "unrouted": unrouted, "groups": groups }))?;
        } else {
            tell(&seen, unrouted, &options.filter)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Looks at everything that matches.
pub(super) async fn seen(shelves: &QueueInspector, filter: &Filter) -> anyhow::Result<Seen> {
    let (mut seen, now) = (Seen { left_out: filter.left_out(), ..Seen::default() }, SystemClock.now());
    for shelf in existing(shelves, filter.shelves()).await? {
        let mut look = shelves.browse(shelf, 0).await?;
        let (lay_there, mut looked) = (look.total(), 0);
        while let Some(shelved) = look.next().await? {
            look.keep(&shelved);
            looked += 1;
            let letter = DeadLetter::read(shelved);
            seen.spared += u64::from(filter.spares(&letter));
            seen.foreign += u64::from(filter.bars(&letter) && filter.names(&letter, now));
            if filter.matches(&letter, now) {
                seen.groups.add(&letter);
                seen.note_flawed(&letter);
            }
        }
        look.close().await?;
        seen.held += lay_there.saturating_sub(looked);
    }
    Ok(seen)
}

impl Seen {
    fn note_flawed(&mut self, letter: &DeadLetter) {
        if letter.stored.defect.is_some() && self.flawed.len() < 10 {
            self.flawed.push(format!("number {} of {}", letter.stored.position, letter.stored.queue));
        }
    }

    /// What has to be known beside the groups, on stderr.
    pub(super) fn warn(&self) {
        if self.held > 0 {
            tell!("warning: {} more could not be seen: another process looks at them right now", self.held);
        }
        if self.spared > 0 {
            let reasons = self.left_out.join(",");
            genfleet_core::tell!("note: {} more are left out; --reason {reasons} brings them in", self.spared);
        }
        if self.foreign > 0 {
            tell!(
                "note: {} more never were jobs of the kind on whose shelf they lie and are not redriven: dead list \
                 --reason {FOREIGN} shows them, dead discard takes them away",
                self.foreign
            );
        }
        if !self.flawed.is_empty() {
            let places = self.flawed.join(", ");
            tell!("warning: not shown as sent, see `genfleet dead show`: {places}");
        }
    }
}

fn tell(seen: &Seen, unrouted: u64, filter: &Filter) -> anyhow::Result<()> {
    let (paint, total) = (Paint::stdout(), seen.groups.total());
    if total > 0 {
        terminal::put(seen.groups.table(paint))?;
    }
    let (what, matching) = (what(filter), if filter.is_everything() || filter.unrouted { "" } else { " that match" });
    match total {
        0 => terminal::say(format_args!("no {what}s{matching}"))?,
        1 => terminal::say(format_args!("1 {what}{matching}"))?,
        _ => terminal::say(format_args!("{total} {what}s{matching}, in {}", count(seen.groups.len(), "group")))?,
    };
    seen.warn();
    let hint = Paint::stderr();
    if unrouted > 0 {
        let details = format!("hint: {} matched no queue: genfleet dead list --unrouted", count(unrouted, "message"));
        tell!("{}", hint.yellow(&details));
    }
    if total > 0 {
        tell!("{}", hint.dim("hint: genfleet dead show FINGERPRINT shows them whole; dead redrive runs them again"));
    }
    Ok(())
}

/// What is looked at, in the singular.
pub(super) fn what(filter: &Filter) -> &'static str {
    if filter.unrouted { "unrouted message" } else { "dead letter" }
}
