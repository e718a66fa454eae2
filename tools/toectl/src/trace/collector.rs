//! What a trace has brought so far, in bounds.

use toed::admin::{Visit, VisitKind, Visits};

use super::ways::{Way, assemble};

/// Visits that are kept: a card at full speed makes so many in a fraction of a second.
const KEEP: usize = 1 << 16;

pub struct Collector {
    /// Only connections with this local port.
    port: Option<u16>,
    visits: Vec<Visit>,
    /// Left out here, for want of room.
    dropped: usize,
    /// Left out by the card.
    lost: u64,
    unknown: usize,
}

impl Collector {
    pub fn new(port: Option<u16>) -> Self {
        Self { port, visits: Vec::new(), dropped: 0, lost: 0, unknown: 0 }
    }

    /// Takes a part of the trace; whether there was something in it.
    pub fn add(&mut self, part: Visits) -> bool {
        let news = !part.visits.is_empty();
        self.lost = self.lost.max(part.lost);
        for visit in part.visits {
            if visit.kind == VisitKind::Other {
                self.unknown += 1;
            } else {
                self.visits.push(visit);
            }
        }
        if self.visits.len() > KEEP {
            self.forget();
        }
        news
    }

    /// The ways that were asked for.
    pub fn ways(&self) -> Vec<Way> {
        let mut ways = assemble(&self.visits);
        ways.retain(|way| self.port.is_none() || way.port() == self.port);
        ways
    }

    /// Makes room: of the older half stays what was asked for by its port.
    fn forget(&mut self) {
        let before = self.visits.len();
        let newer = self.visits.split_off(before / 2);
        let mut kept: Vec<Visit> = if self.port.is_some() { self.ways().into_iter().flat_map(|w| w.visits).collect() } else { Vec::new() };
        kept.truncate(KEEP / 4);
        kept.extend(newer);
        self.visits = kept;
        self.dropped += before - self.visits.len();
    }

    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What is known to be missing.
    pub fn gaps(&self) -> String {
        let gaps = [
            (self.lost, "records lost by the card"),
            (self.dropped as u64, "records left out, as they were too many"),
            (self.unknown as u64, "records of an unknown kind"),
        ];
        gaps.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("; {what}: {n}")).collect()
    }
}
