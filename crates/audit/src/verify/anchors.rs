//! Anchors: earlier ends of the chain, as they were logged. The files must still contain them.

use super::{LinePlace, LineProblem};
use crate::{read::AuditRecord, record::ChainLink};

/// The anchors that have not been found yet.
#[derive(Debug)]
pub(super) struct Anchors(Vec<Anchor>);

#[derive(Debug)]
struct Anchor {
    link: ChainLink,
    /// Lines with the same number and another hash. There may be one in each chain.
    others: Vec<LinePlace>,
}

impl Anchors {
    pub(super) fn new(links: &[ChainLink]) -> Self {
        Self(links.iter().map(|link| Anchor { link: link.clone(), others: Vec::new() }).collect())
    }

    /// Compares a line with the anchors.
    pub(super) fn compare(&mut self, place: &LinePlace, record: &AuditRecord) {
        self.0.retain(|anchor| anchor.link != record.link());
        for anchor in self.0.iter_mut().filter(|anchor| anchor.link.seq == record.seq) {
            anchor.others.push(place.clone());
        }
    }

    /// Returns a problem for each missing anchor, at the line that has its number, or else at `nowhere`.
    pub(super) fn end(self, nowhere: LinePlace) -> impl Iterator<Item = LineProblem> {
        self.0.into_iter().map(move |Anchor { link, others }| {
            if let Some(place) = others.into_iter().next() {
                let problem = format!("the anchor {link} has another hash than this line: the file was rewritten");
                return LineProblem { place, problem };
            }
            let problem =
                format!("the anchor {link} is not in the files: lines were cut off, or not all files were given");
            LineProblem { place: nowhere.clone(), problem }
        })
    }
}
