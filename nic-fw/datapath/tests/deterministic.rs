//! The pipelined stages in a seeded order, over memory that completes late and out of order: nobody is told of bytes that
//! are not there, nothing is lost, and it all comes to rest.

mod common;

use common::*;
use toe_abi::{
    control::{close_reason, kind, status},
    counters::{Counter, Drop},
    desc::hc_flags,
};
use toe_datapath::Composition;
use toe_hal::{
    RxOffload,
    fake::{Chance, FakeFrame, MemoryKnobs, PortKnobs},
};
use toe_wire::TcpFlags;

const SEEDS: u64 = 1200;

fn slow(chance: &mut Chance) -> MemoryKnobs {
    let min_delay = chance.below(4) as u32;
    MemoryKnobs { min_delay, max_delay: min_delay + 1 + chance.below(30) as u32, full_percent: chance.below(40) as u8, fault_percent: 0 }
}

/// One flow's traffic, and what everybody has been told so far.
struct Talk {
    n: u16,
    ctx: u16,
    told: u32,
    acked: u32,
    /// Right edge of the window that the card has offered.
    edge: u32,
    consumed: u32,
    /// Our bytes that the peer has acknowledged, as the events say.
    freed: u32,
    sent_by_peer: u32,
    echoed: u32,
    /// Times that nothing was to be done while the peer waited for an acknowledgement.
    waits: u32,
}

/// After so many the peer sends again: a frame was dropped before it had a number, as an overloaded card may.
const PATIENCE: u32 = 100;

impl Talk {
    /// Looks at what became visible: each byte that an event or an ACK covers must be in memory.
    fn check(&mut self, b: &mut Bench<Actors>, seed: u64, sent: &[Sent], events: &[toe_abi::desc::EventDesc]) {
        let before = self.told.max(self.acked);
        for s in sent.iter().filter(|s| s.parsed.tcp().unwrap().1.dst_port == 1000 + self.n) {
            self.acked = self.acked.max(s.acked());
            self.edge = self.edge.max(s.acked() + u32::from(s.parsed.tcp().unwrap().1.window));
            if !s.payload().is_empty() {
                assert_eq!(s.payload(), stream(s.pos(), s.payload().len() as u32), "seed {seed}: echoed bytes");
                self.echoed = self.echoed.max(s.pos() + s.payload().len() as u32);
            }
        }
        for e in events.iter().filter(|e| e.opaque == 100 + u32::from(self.n)) {
            self.told = self.told.max(e.rx_head);
            self.freed = self.freed.max(e.tx_tail);
        }
        let end = self.told.max(self.acked);
        if end == before {
            return;
        }
        let len = end - self.consumed;
        assert_eq!(b.received(1, self.n, self.consumed, len), stream(self.consumed, len), "seed {seed}: bytes told of are not there");
    }
}

/// Moves data both ways through one card; returns how many polls it took.
fn talk(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = actors(seed);
    let flows = [b.install(0, 1), b.install(1, 2)];
    let mut talks = [0, 1].map(|n| Talk {
        n,
        ctx: n + 1,
        told: 0,
        acked: 0,
        edge: BUF as u32,
        consumed: 0,
        freed: 0,
        sent_by_peer: 0,
        echoed: 0,
        waits: 0,
    });
    b.memory.set_knobs(slow(&mut chance));
    let busy_percent = chance.below(50) as u8;
    b.port.set_knobs(PortKnobs { tx_room: 1 + chance.below(4) as usize, busy_percent, rx_burst: 8, ..Default::default() });
    let total = 6000;
    let mut polls = 0;
    while talks.iter().any(|t| t.echoed < total || t.consumed < total) {
        polls += 1;
        assert!(
            polls < 200_000,
            "seed {seed}: never done: {:?} {:?}",
            talks.map(|t| (t.sent_by_peer, t.told, t.acked, t.consumed, t.echoed)),
            b.card.counters().nonzero().collect::<Vec<_>>()
        );
        for t in &mut talks {
            let room = t.edge.min(total) - t.sent_by_peer;
            if room > 0 && chance.percent(20) {
                arrive(&mut b, t, room, &mut chance);
            }
        }
        let any = b.card.poll(b.now);
        let sent = b.sent();
        for (t, flow) in talks.iter_mut().zip(flows) {
            let events = b.events(t.ctx, chance.percent(50));
            t.check(&mut b, seed, &sent, &events);
            let upto = t.told.min(t.freed + BUF as u32);
            if upto > t.consumed && b.has_room(t.ctx) && chance.percent(30) {
                let bytes = b.received(1, t.n, t.consumed, upto - t.consumed);
                assert_eq!(bytes, stream(t.consumed, upto - t.consumed), "seed {seed}: bytes changed after they were told of");
                b.fill(1, t.n, t.consumed, &bytes);
                t.consumed = upto;
                b.update(t.ctx, flow, t.consumed, t.consumed, hc_flags::NODELAY);
            }
        }
        if !any {
            step_time(&mut b, &mut talks);
        }
    }
    b.run_for(100_000);
    b.events(1, true);
    b.events(2, true);
    assert_eq!(b.card.counters().unaccounted(), 0, "seed {seed}");
    assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0), "seed {seed}");
    for (n, flow) in [(0, flows[0]), (1, flows[1])] {
        assert_eq!(b.ask(kind::ABORT, flow, [0; 5]).status, status::OK, "seed {seed}, flow {n}");
    }
    // A queue that was full is tried again after a while.
    b.run_for(100_000);
    let mut closed = b.closed();
    closed.sort_by_key(|(flow, _)| *flow != flows[0]);
    assert_eq!(closed, flows.map(|f| (f, close_reason::ABORTED.into())), "seed {seed}");
    polls
}

/// Two segments of what comes next, in order, swapped, or twice.
fn arrive(b: &mut Bench<Actors>, t: &mut Talk, room: u32, chance: &mut Chance) {
    let first = (1 + chance.below(900) as u32).min(room);
    let second = (chance.below(900) as u32).min(room - first);
    let at = t.sent_by_peer;
    let mut frames = vec![(at, first), (at + first, second)];
    if chance.percent(30) {
        frames.swap(0, 1);
    }
    if chance.percent(20) {
        frames.push((at, first));
    }
    for (at, len) in frames.into_iter().filter(|f| f.1 > 0) {
        b.segment(t.n, at, t.echoed, TcpFlags::PSH, &stream(at, len));
    }
    t.sent_by_peer += first + second;
}

/// Nothing to do: on to the next deadline; what the card has sent is acknowledged, and what it says that it dropped is sent again.
fn step_time(b: &mut Bench<Actors>, talks: &mut [Talk]) {
    let next = b.card.next_deadline(b.now).unwrap_or(b.now.add_micros(1000));
    b.now = next.max(b.now.add_micros(100));
    let dropped = b.card.counters().drops(Drop::NoBuffer) > 0;
    for t in talks {
        t.waits = if t.acked < t.sent_by_peer { t.waits + 1 } else { 0 };
        if t.waits == PATIENCE {
            t.waits = 0;
            b.segment(t.n, t.acked, t.echoed, TcpFlags::PSH, &stream(t.acked, (t.sent_by_peer - t.acked).min(900)));
        }
        b.segment(t.n, t.sent_by_peer, t.echoed, TcpFlags::empty(), b"");
        if dropped && t.acked < t.sent_by_peer {
            let len = (t.sent_by_peer - t.acked).min(900);
            b.segment(t.n, t.acked, t.echoed, TcpFlags::PSH, &stream(t.acked, len));
        }
    }
}

#[test]
fn nobody_is_told_of_bytes_that_are_not_in_memory() {
    let mut polls = 0;
    let seeds = for_seeds(SEEDS, |seed| polls += u64::from(talk(seed)));
    println!("{seeds} seeds, {polls} polls");
}

#[test]
fn a_region_is_unmapped_while_payload_is_on_its_way() {
    for_seeds(300, |seed| {
        let mut chance = Chance::new(seed);
        let mut b = actors(seed);
        b.map_region(2);
        b.open_context(3, 2, 0);
        let state = b.flow_state(0, 2, 3);
        let gone = b.install_state(&state).flow;
        let kept = b.install(1, 1);
        b.memory.set_knobs(slow(&mut chance));
        for at in 0..6 {
            b.segment(0, at * 100, 0, TcpFlags::empty(), &stream(at * 100, 100));
            b.segment(1, at * 100, 0, TcpFlags::empty(), &stream(at * 100, 100));
        }
        for _ in 0..chance.below(30) {
            b.card.poll(b.now);
        }
        assert_eq!(b.ok(kind::UNMAP_REGION, [2, 0, 0, 0, 0]).status, status::OK);
        // Whatever is written from now on, is not written there.
        b.run_for(200_000);
        assert_eq!(b.closed(), [(gone, close_reason::REGION_GONE.into())], "seed {seed}");
        assert_eq!(b.received(1, 1, 0, 600), stream(0, 600), "seed {seed}");
        assert_eq!(b.ask(kind::QUERY, kept, [0; 5]).status, status::OK);
        assert_eq!(b.card.counters().unaccounted(), 0, "seed {seed}");
        assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0), "seed {seed}");
    });
}

#[test]
fn a_lost_payload_write_resets_the_flow_and_is_never_acknowledged() {
    let mut faults = 0;
    let seeds = for_seeds(300, |seed| {
        let mut chance = Chance::new(seed);
        let mut b = actors(seed);
        let flow = b.install(0, 1);
        b.memory.set_knobs(MemoryKnobs { fault_percent: 10, min_delay: 0, max_delay: 20, full_percent: 0 });
        let mut told = 0;
        for at in 0..8 {
            b.segment(0, at * 100, 0, TcpFlags::PSH, &stream(at * 100, 100));
            for _ in 0..chance.below(20) {
                b.card.poll(b.now);
                told = b.sent().iter().filter(|s| !s.flags().contains(TcpFlags::RST)).map(Sent::acked).fold(told, u32::max);
                assert_eq!(b.received(1, 0, 0, told), stream(0, told), "seed {seed}");
            }
        }
        b.memory.set_knobs(MemoryKnobs::default());
        b.run_for(100_000);
        // Room for the last event.
        b.events(1, true);
        b.run_for(100_000);
        if b.card.counters().drops(Drop::DmaFault) > 0 && b.card.counters().get(Counter::ContextsFailed) == 0 {
            faults += 1;
            assert_eq!(b.closed(), [(flow, close_reason::ABORTED.into())], "seed {seed}");
        }
        assert_eq!(b.card.counters().unaccounted(), 0, "seed {seed}");
    });
    assert!(faults * 15 > seeds, "only {faults} of {seeds} seeds lost payload");
}

#[test]
fn garbage_and_floods_leave_nothing_behind() {
    for_seeds(200, |seed| {
        let mut chance = Chance::new(seed);
        let mut b = actors(seed);
        b.install(0, 1);
        b.memory.set_knobs(slow(&mut chance));
        for _ in 0..60 {
            let mut frame = peer_segment(
                chance.below(3) as u16,
                chance.below(2000) as u32,
                0,
                TcpFlags::from_bits_retain(chance.draw() as u8),
                &stream(0, chance.below(300) as u32),
            );
            for _ in 0..chance.below(4) {
                let at = chance.below(frame.len() as u64) as usize;
                frame[at] ^= chance.draw() as u8;
            }
            frame.truncate(frame.len() - chance.below(frame.len() as u64 / 4) as usize);
            let csum_ok = chance.percent(50);
            b.port.arrive(FakeFrame { bytes: frame, offload: RxOffload { csum_ok, ..Default::default() } });
            b.card.poll(b.now);
            if chance.percent(20) {
                b.exceptions();
                b.events(1, true);
            }
        }
        b.run();
        b.closed();
        assert_eq!(b.card.counters().unaccounted(), 0, "seed {seed}");
        assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0), "seed {seed}");
    });
}
