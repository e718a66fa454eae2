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
pub struct Echo {
    pub n: u16,
    pub region: u16,
    pub ctx: u16,
    pub flow: FlowId,
    /// Bytes that the application has been told of, and how many of ours it knows to be acknowledged.
    told: u32,
    freed: u32,
    /// Bytes that the application has read and sent back.
    pub consumed: u32,
    /// What the card has acknowledged, and the right edge of its window.
    acked: u32,
    edge: u32,
    sent: u32,
    /// Bytes that have come back.
    pub echoed: u32,
}

impl Echo {
    pub fn new(b: &mut Bench<impl Fake>, n: u16, region: u16, ctx: u16) -> Self {
        let answer = b.install_state(&b.flow_state(n, region, ctx));
        assert_eq!(answer.status, status::OK);
        Self { n, region, ctx, flow: answer.flow, told: 0, freed: 0, consumed: 0, acked: 0, edge: BUF as u32, sent: 0, echoed: 0 }
    }

    /// Bytes of the stream of this flow.
    pub fn stream(&self, pos: u32, len: u32) -> Vec<u8> {
        stream(pos + (u32::from(self.n) << 20), len)
    }

    /// Up to three segments of what comes next, none beyond `total`.
    pub fn send(&mut self, b: &mut Bench<impl Fake>, total: u32, chance: &mut Chance) {
        for _ in 0..1 + chance.below(3) {
            let len = (1 + chance.below(900) as u32).min(self.edge.min(total) - self.sent);
            if len > 0 {
                b.segment(self.n, self.sent, self.echoed, TcpFlags::PSH, &self.stream(self.sent, len));
                self.sent += len;
            }
        }
    }

    /// The peer takes what is for it, and acknowledges it.
    pub fn receive(&mut self, b: &mut Bench<impl Fake>, sent: &[Sent], broken: &mut Broken) {
        let before = self.echoed;
        for s in sent.iter().filter(|s| s.parsed.tcp().unwrap().1.dst_port == 1000 + self.n) {
            broken.tx |= s.pos() != self.echoed || s.acked() < self.acked;
            self.acked = self.acked.max(s.acked());
            self.edge = self.edge.max(s.acked() + u32::from(s.parsed.tcp().unwrap().1.window));
            if s.pos() == self.echoed {
                broken.writes |= s.payload() != self.stream(s.pos(), s.payload().len() as u32);
                self.echoed += s.payload().len() as u32;
            }
        }
        if self.echoed > before {
            b.segment(self.n, self.sent, self.echoed, TcpFlags::empty(), b"");
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

/// Several flows, each of which is to carry `total` bytes each way.
pub struct Echoes {
    pub flows: Vec<Echo>,
    pub total: u32,
    pub broken: Broken,
}

impl Echoes {
    pub fn new(flows: Vec<Echo>, total: u32) -> Self {
        Self { flows, total, broken: Broken::default() }
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
        if !any {
            b.pass_time();
        }
    }

    /// What everybody makes of what the card has done.
    pub fn after(&mut self, b: &mut Bench<impl Fake>, chance: &mut Chance) {
        let sent = b.sent();
        for e in &mut self.flows {
            e.receive(b, &sent, &mut self.broken);
            e.events(&b.events(e.ctx, chance.percent(50)));
            e.look(b, &mut self.broken);
            if chance.percent(30) {
                e.answer(b);
            }
        }
        let c = b.card.counters();
        self.broken.rx |= c.get(Counter::RxOutOfOrder) + c.drops(Drop::Duplicate) > 0;
        self.broken.tx |= c.get(Counter::TxFastRetransmits) + c.get(Counter::TxTimeouts) > 0;
    }
}
