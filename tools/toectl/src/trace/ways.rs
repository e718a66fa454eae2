//! Visits put together to ways: what happened to one segment, or to one descriptor, from stage to stage.
//!
//! ```text
//!   (group, number)   ingress ─ pre ─┐
//!                                protocol ─ post ─ dma ─ egress ─ ctxq (event)   (group, out)
//!   flow, in order    ctxq (hc) ─────┘
//! ```
//!
//! Visits come in any order, twice, or not at all. What is not there is not made up: a way may have gaps, or be a part only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use toed::admin::{Visit, VisitKind};

/// What began a way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// A segment came in.
    Received,
    /// An application said something.
    Descriptor,
    /// Protocol let the connection send.
    Sent,
    /// Protocol's record is missing.
    Unknown,
}

/// The visits of one piece of work, by time.
#[derive(Clone, PartialEq, Debug)]
pub struct Way {
    pub cause: Cause,
    pub visits: Vec<Visit>,
}

impl Way {
    fn new(mut visits: Vec<Visit>) -> Way {
        visits.sort_by_key(|v| (v.begin_ns, v.end_ns));
        let cause = visits.iter().find_map(|v| match v.kind {
            VisitKind::Rx | VisitKind::RxOut => Some(Cause::Received),
            VisitKind::Hc | VisitKind::HcOut | VisitKind::HcDone => Some(Cause::Descriptor),
            VisitKind::TxOut => Some(Cause::Sent),
            VisitKind::Out | VisitKind::Event | VisitKind::Other => None,
        });
        Way { cause: cause.unwrap_or(Cause::Unknown), visits }
    }

    pub fn begin_ns(&self) -> u64 {
        self.visits.iter().map(|v| v.begin_ns).min().unwrap_or(0)
    }

    pub fn end_ns(&self) -> u64 {
        self.visits.iter().map(|v| v.end_ns.max(v.begin_ns)).max().unwrap_or(0)
    }

    /// The first visit of this kind.
    pub fn first(&self, kind: VisitKind) -> Option<&Visit> {
        self.visits.iter().find(|v| v.kind == kind)
    }

    /// Protocol's own visit, which knows the connection.
    pub fn protocol(&self) -> Option<&Visit> {
        self.visits.iter().find(|v| matches!(v.kind, VisitKind::RxOut | VisitKind::HcOut | VisitKind::HcDone | VisitKind::TxOut))
    }

    pub fn flow(&self) -> Option<u32> {
        self.visits.iter().find_map(|v| v.flow)
    }

    /// Local port of the connection.
    pub fn port(&self) -> Option<u16> {
        self.visits.iter().find_map(|v| v.port)
    }

    /// Bytes of payload.
    pub fn len(&self) -> u32 {
        self.visits.iter().map(|v| v.len).max().unwrap_or(0)
    }

    pub fn is_segment(&self) -> bool {
        matches!(self.cause, Cause::Received | Cause::Sent)
    }

    /// Stages that work of this cause passes, as far as protocol's record says; all of them, if it says nothing.
    pub fn expected(&self) -> Vec<&'static str> {
        let first: &[&str] = match self.cause {
            Cause::Received => &["ingress", "pre", "protocol"],
            Cause::Descriptor => &["ctxq", "protocol"],
            Cause::Sent => &["protocol"],
            Cause::Unknown => return vec!["protocol"],
        };
        let passes = |stage: &&&str| match self.protocol() {
            Some(v) if v.kind == VisitKind::HcDone => false,
            Some(v) if !v.next.is_empty() => v.next.iter().any(|next| next == **stage),
            _ => true,
        };
        first.iter().chain(["post", "dma", "egress"].iter().filter(passes)).copied().collect()
    }

    /// Those of them that left no record.
    pub fn missing(&self) -> Vec<&'static str> {
        self.expected().into_iter().filter(|stage| !self.has(stage)).collect()
    }

    /// Seen from its beginning through protocol to its end.
    pub fn is_complete(&self) -> bool {
        let expected = self.expected();
        let (first, last) = (expected.first(), expected.last());
        self.protocol().is_some() && first.into_iter().chain(last).all(|stage| self.has(stage))
    }

    fn has(&self, stage: &str) -> bool {
        self.visits.iter().any(|v| v.stage == stage)
    }
}

/// Puts visits together, the earliest way first.
pub fn assemble(visits: &[Visit]) -> Vec<Way> {
    let mut received: BTreeMap<(u16, u32), Vec<Visit>> = BTreeMap::new();
    let mut out: BTreeMap<(u16, u32), Vec<Visit>> = BTreeMap::new();
    let mut taken: Vec<Visit> = Vec::new();
    let mut done: Vec<Visit> = Vec::new();
    let mut seen = HashSet::with_capacity(visits.len());
    // The same record twice says nothing more.
    for v in visits.iter().filter(|v| seen.insert(*v)) {
        match (v.kind, v.number, v.out) {
            (VisitKind::Hc, ..) => taken.push(v.clone()),
            (VisitKind::HcDone, ..) => done.push(v.clone()),
            (VisitKind::Rx, Some(number), _) => received.entry((v.group, number)).or_default().push(v.clone()),
            (VisitKind::Rx | VisitKind::Other, ..) | (_, _, None) => {}
            (_, _, Some(number)) => out.entry((v.group, number)).or_default().push(v.clone()),
        }
    }
    for visits in out.values_mut() {
        let came_as: BTreeSet<(u16, u32)> =
            visits.iter().filter(|v| v.kind == VisitKind::RxOut).filter_map(|v| Some((v.group, v.number?))).collect();
        visits.extend(came_as.iter().filter_map(|key| received.remove(key)).flatten());
    }
    let mut ways: Vec<Way> =
        out.into_values().chain(received.into_values()).chain(done.into_iter().map(|v| vec![v])).map(Way::new).collect();
    let alone = link_descriptors(&mut ways, taken);
    ways.extend(alone.map(|v| Way::new(vec![v])));
    ways.sort_by_key(Way::begin_ns);
    ways
}

/// Protocol handles the descriptors of a connection in the order in which they were taken. Answers those it has not handled.
fn link_descriptors(ways: &mut [Way], mut taken: Vec<Visit>) -> impl Iterator<Item = Visit> + use<> {
    taken.sort_by_key(|v| v.begin_ns);
    let mut waiting: BTreeMap<Option<u32>, VecDeque<Visit>> = BTreeMap::new();
    for v in taken {
        waiting.entry(v.flow).or_default().push_back(v);
    }
    let descriptor = |v: &&Visit| matches!(v.kind, VisitKind::HcOut | VisitKind::HcDone) && v.flow.is_some();
    let mut handled: Vec<(u64, &mut Way)> = ways.iter_mut().filter_map(|w| Some((w.protocol().filter(descriptor)?.begin_ns, w))).collect();
    handled.sort_by_key(|(begin_ns, _)| *begin_ns);
    for (begin_ns, way) in handled {
        let queue = waiting.entry(way.flow()).or_default();
        if queue.front().is_some_and(|v| v.begin_ns <= begin_ns)
            && let Some(v) = queue.pop_front()
        {
            way.visits.insert(0, v);
        }
    }
    waiting.into_values().flatten()
}

/// A request that came in and what an application made of it, as far as it was seen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Exchange<'a> {
    pub received: Option<&'a Way>,
    pub descriptor: Option<&'a Way>,
    pub sent: Option<&'a Way>,
}

impl<'a> Exchange<'a> {
    /// The parts that were seen, in order.
    pub fn ways(&self) -> impl Iterator<Item = &'a Way> + use<'a> {
        [self.received, self.descriptor, self.sent].into_iter().flatten()
    }

    /// How much of it was seen: parts, complete ones, those with payload, visits.
    fn worth(&self) -> [usize; 4] {
        let count = |has: fn(&Way) -> bool| self.ways().filter(|w| has(w)).count();
        [count(|_| true), count(Way::is_complete), count(|w| w.len() > 0), self.ways().map(|w| w.visits.len()).sum()]
    }

    /// The one that tells most; of equal ones the last: the first often had cold caches. `ways` as [`assemble`] sorts them.
    pub fn best(ways: &'a [Way]) -> Option<Exchange<'a>> {
        let mut of_flow: Ways<'a> = HashMap::new();
        for way in ways {
            if let Some(flow) = way.flow() {
                of_flow.entry((flow, way.cause)).or_default().push(way);
            }
        }
        ways.iter().map(|way| Exchange::from(way, &of_flow)).max_by_key(Exchange::worth)
    }

    fn from(way: &'a Way, of_flow: &Ways<'a>) -> Exchange<'a> {
        let mut exchange = Exchange { received: None, descriptor: None, sent: None };
        match way.cause {
            Cause::Received => exchange.received = Some(way),
            Cause::Descriptor => exchange.descriptor = Some(way),
            Cause::Sent | Cause::Unknown => exchange.sent = Some(way),
        }
        // The next one of the same connection. Lists are sorted as `ways` is.
        let next = |cause, after_ns: u64| {
            let list = of_flow.get(&(way.flow()?, cause))?;
            list.get(list.partition_point(|w| w.begin_ns() < after_ns)).copied()
        };
        if let Some(event) = way.first(VisitKind::Event).filter(|_| way.cause == Cause::Received) {
            exchange.descriptor = next(Cause::Descriptor, event.begin_ns);
        }
        if let Some(handled) = exchange.descriptor.and_then(Way::protocol) {
            exchange.sent = next(Cause::Sent, handled.begin_ns);
        }
        exchange
    }
}

/// By connection and cause, by time.
type Ways<'a> = HashMap<(u32, Cause), Vec<&'a Way>>;
