//! Ends that the chain once had, as a log told them: they have to be in the files still.

use super::{LinePlace, LineProblem};
use crate::{read::AuditRecord, record::ChainLink};

/// The anchors that were not met.
#[derive(Debug)]
pub(super) struct Anchors(Vec<Anchor>);

#[derive(Debug)]
struct Anchor {
    link: ChainLink,
    /// Lines of this number with another hash. Of several chains each may have one.
    others: Vec<LinePlace>,
}

impl Anchors {
    pub(super) fn new(links: &[ChainLink]) -> Self {
        Self(links.iter().map(|link| Anchor { link: link.clone(), others: Vec::new() }).collect())
    }

    pub(super) fn met(&mut self, place: &LinePlace, record: &AuditRecord) {
        self.0.retain(|anchor| anchor.link != record.link());
        for anchor in self.0.iter_mut().filter(|anchor| anchor.link.seq == record.seq) {
            anchor.others.push(place.clone());
        }
    }

    /// What is not there, told at the line that is there instead, else at `nowhere`.
    pub(super) fn end(self, nowhere: LinePlace) -> impl Iterator<Item = LineProblem> {
        self.0.into_iter().map(move |Anchor { link, others }| {
            if let Some(place) = others.into_iter().next() {
                let problem = format!("the anchor {link} has another hash than this line: the file was written anew");
                return LineProblem { place, problem };
            }
            let problem = format!("the anchor {link} is not in the files: lines were cut off, or files are not given");
            LineProblem { place: nowhere.clone(), problem }
        })
    }
}
