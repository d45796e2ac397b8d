//! `genfleet dead list`: counts dead letters, grouped by cause. Listing removes nothing.

use genfleet_core::eprint_line;
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

/// The dead letters that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The dead letters that match the filter.
    pub groups: Groups,
    /// Number of dead letters that could not be read because another process holds them.
    pub held: u64,
    /// Number of dead letters that are left out for their reasons.
    pub spared: u64,
    /// The reasons that are left out.
    pub left_out: &'static [&'static str],
    /// Number of foreign messages, which cannot be redriven.
    pub foreign: u64,
    /// Number of dead letters in the groups whose kind is not known.
    pub without_kind: u64,
    /// The positions of the first messages that cannot be shown as they were sent.
    pub flawed: Vec<String>,
}

/// Prints the groups.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    block_on(async {
        let inspector = options.queue.inspect("genfleet dead list")?;
        let found = find(&inspector, &options.filter).await?;
        let unrouted =
            if options.filter.unrouted { 0 } else { inspector.count(DeadLetterQueue::Unrouted).await.unwrap_or(0) };
        inspector.close().await;
        if options.json {
            let (total, groups) = (found.groups.total(), found.groups.json());
            terminal::print_line(
                json!({ "total": total, "held": found.held, "unrouted": unrouted, "groups": groups }),
            )?;
        } else {
            print(&found, unrouted, &options.filter)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Reads all dead letters and counts those that match the filter.
pub(super) async fn find(inspector: &QueueInspector, filter: &Filter) -> anyhow::Result<Found> {
    let (mut found, now) = (Found { left_out: filter.left_out, ..Found::default() }, SystemClock.now());
    for queue in existing(inspector, filter.queues()).await? {
        let mut browser = inspector.browse(queue, 0).await?;
        let (total, mut read) = (browser.total(), 0);
        while let Some(stored) = browser.next().await? {
            browser.keep(&stored);
            read += 1;
            let letter = DeadLetter::read(stored);
            found.spared += u64::from(filter.leaves_out(&letter));
            found.foreign += u64::from(filter.excludes(&letter) && filter.selects(&letter, now));
            if filter.matches(&letter, now) {
                found.groups.add(&letter);
                found.without_kind += u64::from(letter.kind.is_none());
                found.note_flawed(&letter);
            }
        }
        browser.close().await?;
        found.held += total.saturating_sub(read);
    }
    Ok(found)
}

impl Found {
    fn note_flawed(&mut self, letter: &DeadLetter) {
        if letter.stored.defect.is_some() && self.flawed.len() < 10 {
            self.flawed.push(format!("number {} of {}", letter.stored.position, letter.stored.queue));
        }
    }

    /// Prints warnings and notes about dead letters that are not in the groups, on stderr.
    pub(super) fn warn(&self) {
        if self.held > 0 {
            eprint_line!("warning: {} more could not be read, because another process is reading them", self.held);
        }
        if self.spared > 0 {
            let reasons = self.left_out.join(",");
            eprint_line!("note: {} more are left out; --reason {reasons} includes them", self.spared);
        }
        if self.foreign > 0 {
            eprint_line!(
                "note: {} more never were jobs of their queue's kind and are not redriven: dead list --reason {FOREIGN} \
                 shows them, dead discard removes them",
                self.foreign
            );
        }
        if !self.flawed.is_empty() {
            let places = self.flawed.join(", ");
            eprint_line!("warning: not shown as sent, see `genfleet dead show`: {places}");
        }
    }
}

fn print(found: &Found, unrouted: u64, filter: &Filter) -> anyhow::Result<()> {
    let (paint, total) = (Paint::stdout(), found.groups.total());
    if total > 0 {
        terminal::print_escaped(found.groups.table(paint))?;
    }
    let (what, matching) = (what(filter), if filter.is_everything() || filter.unrouted { "" } else { " that match" });
    match total {
        0 => terminal::print_line(format_args!("no {what}s{matching}"))?,
        1 => terminal::print_line(format_args!("1 {what}{matching}"))?,
        _ => {
            terminal::print_line(format_args!("{total} {what}s{matching}, in {}", count(found.groups.len(), "group")))?
        }
    };
    found.warn();
    let hint = Paint::stderr();
    if unrouted > 0 {
        let unrouted = count(unrouted, "message");
        eprint_line!("{}", hint.yellow(&format!("hint: {unrouted} matched no queue: genfleet dead list --unrouted")));
    }
    if total > 0 {
        let next = if filter.unrouted {
            "hint: genfleet dead show --unrouted shows them in full; dead redrive --unrouted --as KIND runs them"
        } else {
            "hint: genfleet dead show FINGERPRINT shows them in full; dead redrive runs them again"
        };
        eprint_line!("{}", hint.dim(next));
    }
    Ok(())
}

/// The name of what is listed, in the singular.
pub(super) fn what(filter: &Filter) -> &'static str {
    if filter.unrouted { "unrouted message" } else { "dead letter" }
}
