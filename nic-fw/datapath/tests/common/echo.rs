//! Flows over a perfect wire: a peer that sends a stream, an application that sends it back, and everything that each has been told.

use super::*;
use toe_abi::{counters::Counter, counters::Drop, desc::hc_flags};
use toe_hal::fake::Chance;

/// What has been seen that an order of the pipeline is to prevent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Broken {
    /// Frames came in order, but protocol saw them out of order.
    pub rx: bool,
    /// A segment left out of its turn, or twice; or an ACK went back.
    pub tx: bool,
    /// The application was told of bytes, or the peer got an ACK for them, that were not in memory.
    pub writes: bool,
}

/// One flow.
#[derive(Debug)]
pub struct Echo {
    pub n: u16,
    pub region: u16,
    pub ctx: u16,
    pub flow: FlowId,
    /// Which connection of this tuple it is: sequence numbers and bytes are its own.
    life: u32,
    /// Nobody is left but the peer.
    pub dead: bool,
    /// Bytes that the application has been told of, and how many of ours it knows to be acknowledged.
    told: u32,
    freed: u32,
    /// Bytes that the application has read and sent back.
    pub consumed: u32,
    /// What the card has acknowledged, and the right edge of its window.
    acked: u32,
    edge: u32,
    pub sent: u32,
    /// Bytes that have come back.
    pub echoed: u32,
}

impl Echo {
    pub fn new(b: &mut Bench<impl Fake>, n: u16, region: u16, ctx: u16) -> Self {
        Self::of_life(b, n, region, ctx, 0)
    }

    /// The tuple's connection number `life`.
    pub fn of_life(b: &mut Bench<impl Fake>, n: u16, region: u16, ctx: u16, life: u32) -> Self {
        let answer = b.install_state(&b.flow_state_from(n, region, ctx, IRS.wrapping_add(start(life))));
        assert_eq!(answer.status, status::OK);
        let (flow, edge) = (answer.flow, BUF as u32);
        Self { n, region, ctx, flow, life, dead: false, told: 0, freed: 0, consumed: 0, acked: 0, edge, sent: 0, echoed: 0 }
    }

    /// Bytes of the stream of this flow.
    pub fn stream(&self, pos: u32, len: u32) -> Vec<u8> {
        stream(pos + (u32::from(self.n) << 20) + (self.life << 24), len)
    }

    /// A segment of the peer.
    fn segment(&self, b: &mut Bench<impl Fake>, pos: u32, len: u32) {
        b.segment(self.n, start(self.life).wrapping_add(pos), self.echoed, TcpFlags::PSH, &self.stream(pos, len));
    }

    /// Whether an application has it.
    pub fn is_bound(&self) -> bool {
        self.ctx != CtxId::NONE.0
    }

    /// Up to three segments of what comes next, none beyond `total`.
    pub fn send(&mut self, b: &mut Bench<impl Fake>, total: u32, chance: &mut Chance) {
        if self.dead {
            let pos = chance.below(self.sent.into()) as u32;
            return self.segment(b, pos, (self.sent - pos).min(900));
        }
        for _ in 0..1 + chance.below(3) {
            let len = (1 + chance.below(900) as u32).min(self.edge.min(total) - self.sent);
            if len > 0 {
                self.segment(b, self.sent, len);
                self.sent += len;
            }
        }
    }

    /// The peer takes what is for it, and acknowledges it.
    pub fn receive(&mut self, b: &mut Bench<impl Fake>, sent: &[Sent], broken: &mut Broken) {
        let mut any_data = false;
        for s in sent.iter().filter(|s| s.is_of(self.n) && !s.flags().contains(TcpFlags::RST)) {
            let acked = s.acked().wrapping_sub(start(self.life));
            broken.tx |= s.pos() != self.echoed || acked < self.acked;
            self.acked = self.acked.max(acked);
            self.edge = self.edge.max(acked + u32::from(s.parsed.tcp().unwrap().1.window));
            any_data |= !s.payload().is_empty();
            if s.pos() == self.echoed {
                broken.writes |= s.payload() != self.stream(s.pos(), s.payload().len() as u32);
                self.echoed += s.payload().len() as u32;
            }
        }
        if any_data {
            self.segment(b, self.sent, 0);
        }
    }

    pub fn events(&mut self, events: &[EventDesc]) {
        for e in events.iter().filter(|e| e.flow == self.flow) {
            self.told = self.told.max(e.rx_head);
            self.freed = self.freed.max(e.tx_tail);
        }
    }

    /// Each byte that an event or an ACK covers must be in memory.
    pub fn look(&mut self, b: &mut Bench<impl Fake>, broken: &mut Broken) {
        let len = self.told.max(self.acked) - self.consumed;
        broken.writes |= b.received(self.region, self.n, self.consumed, len) != self.stream(self.consumed, len);
    }

    /// Whether nothing has ever been written to its buffers but its own bytes. Before the first lap is over.
    pub fn is_alone(&self, b: &mut Bench<impl Fake>) -> bool {
        let (tx, rx) = b.buffers(self.n);
        let own = |at: u64, len: u32| {
            let buffer = b.memory.peek(HostAddr::new(RegionId(self.region), at), BUF as usize);
            let (own, rest) = buffer.split_at(len as usize);
            own.iter().zip(self.stream(0, len)).all(|(&is, wanted)| is == wanted || is == 0) && rest.iter().all(|&is| is == 0)
        };
        own(tx, self.consumed) && own(rx, self.sent)
    }

    /// The application sends back what it has been told of, as far as there is room.
    pub fn answer(&mut self, b: &mut Bench<impl Fake>) {
        let upto = self.told.min(self.freed + BUF as u32);
        if upto > self.consumed && b.has_room(self.ctx) {
            let bytes = b.received(self.region, self.n, self.consumed, upto - self.consumed);
            b.fill(self.region, self.n, self.consumed, &bytes);
            self.consumed = upto;
            b.update(self.ctx, self.flow, upto, upto, hc_flags::NODELAY);
        }
    }
}

/// Where in sequence space, from `IRS` on, the peer's stream of a life begins.
fn start(life: u32) -> u32 {
    life << 24
}

/// Several flows, each of which is to carry `total` bytes each way.
pub struct Echoes {
    pub flows: Vec<Echo>,
    pub total: u32,
    pub broken: Broken,
    /// Turns in a row in which the card had nothing to do.
    idle: u32,
}

/// After so many idle turns peers send again what was not acknowledged: it was lost, in a card that had more than it could do.
const PATIENCE: u32 = 20;

impl Echoes {
    pub fn new(flows: Vec<Echo>, total: u32) -> Self {
        Self { flows, total, broken: Broken::default(), idle: 0 }
    }

    pub fn done(&self) -> bool {
        self.flows.iter().all(|e| e.echoed >= self.total)
    }

    /// Bytes that have come back, of all flows.
    pub fn progress(&self) -> u32 {
        self.flows.iter().map(|e| e.echoed).sum()
    }

    /// One poll of the card, and what everybody makes of it.
    pub fn turn(&mut self, b: &mut Bench<impl Fake>, chance: &mut Chance) {
        for e in &mut self.flows {
            if chance.percent(20) {
                e.send(b, self.total, chance);
            }
        }
        let any = b.card.poll(b.now);
        self.after(b, chance);
        self.idle = if any { 0 } else { self.idle + 1 };
        if !any {
            b.pass_time();
        }
        if self.idle >= PATIENCE {
            self.idle = 0;
            self.send_again(b);
        }
    }

    /// Peers send again what was not acknowledged, and acknowledge again.
    pub fn send_again(&mut self, b: &mut Bench<impl Fake>) {
        self.flows.iter().for_each(|e| e.segment(b, e.acked, e.sent - e.acked));
    }

    /// What everybody makes of what the card has done.
    pub fn after(&mut self, b: &mut Bench<impl Fake>, chance: &mut Chance) {
        let sent = b.sent();
        let mut contexts: Vec<u16> = self.flows.iter().filter(|e| !e.dead && e.is_bound()).map(|e| e.ctx).collect();
        contexts.dedup();
        let events: Vec<EventDesc> = contexts.into_iter().flat_map(|ctx| b.events(ctx, chance.percent(50))).collect();
        for e in self.flows.iter_mut().filter(|e| !e.dead) {
            e.receive(b, &sent, &mut self.broken);
            e.events(&events);
            e.look(b, &mut self.broken);
            if e.is_bound() && chance.percent(30) {
                e.answer(b);
            }
        }
        let c = b.card.counters();
        self.broken.rx |= c.get(Counter::RxOutOfOrder) + c.drops(Drop::Duplicate) > 0;
        self.broken.tx |= c.get(Counter::TxFastRetransmits) + c.get(Counter::TxTimeouts) > 0;
    }
}
