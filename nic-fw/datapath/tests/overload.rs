//! Whoever is slow, or sends more than the card can take, is the only one who suffers: all others get on within a bounded number of polls.

mod common;

use common::{
    echo::{Echo, Echoes},
    *,
};
use toe_abi::{
    FlowId,
    control::{ControlMsg, kind, status},
    counters::Drop,
};
use toe_datapath::{Composition, Interleaving, Placement};
use toe_hal::{
    RxOffload,
    fake::{Chance, FakeFrame, MemoryKnobs},
};
use toe_wire::{Arp, ArpOp, TcpFlags};

/// Bytes that each flow carries each way meanwhile.
const TOTAL: u32 = 3000;

#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Old data of flow 0.
    Data,
    /// Of a thousand connections.
    Syn,
    Arp,
    Garbage,
}

impl Flood {
    fn frame(self, chance: &mut Chance) -> Vec<u8> {
        match self {
            Self::Data => peer_segment(0, 0, 0, TcpFlags::PSH, &stream(0, 100)),
            Self::Syn => peer_segment(100 + chance.below(1000) as u16, 0, 0, TcpFlags::SYN, b""),
            Self::Arp => arp(),
            Self::Garbage => {
                let mut frame = peer_segment(chance.below(40) as u16, 0, 0, TcpFlags::empty(), b"garbage");
                frame.truncate(chance.below(frame.len() as u64) as usize);
                frame
            }
        }
    }

    /// Frames that always wait at the port: many times what the card can take. What is spread over all groups takes its part of each group's
    /// places, so of such a flood less is borne.
    fn waiting(self) -> usize {
        match self {
            Self::Data | Self::Arp => 512,
            Self::Syn | Self::Garbage => 64,
        }
    }

    /// What of it may be dropped, and why, besides frames that the card had no room for.
    fn drops(self) -> &'static [Drop] {
        match self {
            Self::Data => &[Drop::Duplicate],
            Self::Syn => &[Drop::ExceptionRingFull],
            Self::Arp => &[],
            Self::Garbage => &[Drop::Truncated],
        }
    }

    fn go_on(self, b: &mut Bench<impl Fake>, chance: &mut Chance) {
        while b.port.waiting() < self.waiting() {
            let bytes = self.frame(chance);
            b.port.arrive(FakeFrame { bytes, offload: RxOffload::default() });
        }
        b.now = b.now.add_micros(20);
        b.exceptions();
    }
}

/// A request for the card's address.
fn arp() -> Vec<u8> {
    let request = Arp { op: ArpOp::Request, sender_mac: PEER_MAC, sender_ip: PEER_IP, target_mac: [0; 6], target_ip: CARD_IP };
    let mut bytes = [0; 64];
    let len = request.write(&[0xff; 6], None, &mut bytes).unwrap();
    bytes[..len].to_vec()
}

/// Two groups; at least one of everything else.
fn interleaving(seed: u64) -> Interleaving {
    let chosen = Interleaving::from_seed(seed);
    let count = |stage| chosen.placement.count(stage);
    use toe_abi::observe::stage::{DMA, POST, PRE};
    Interleaving { placement: Placement::spread(count(PRE), 2, count(POST), count(DMA)), ..chosen }
}

/// Flow 0, and two flows of the other group.
fn flow_and_others(b: &mut Bench<impl Fake>, region: u16, ctx: u16) -> (Echo, Vec<Echo>) {
    let first = Echo::new(b, 0, region, ctx);
    let others = (1..30).map(|n| Echo::new(b, n, 1, 2)).filter(|e| e.flow.index % 2 != first.flow.index % 2).take(2);
    let others = others.collect();
    (first, others)
}

/// Polls until the others are done, and the most that a request took.
fn flooded(seed: u64, flood: Flood) -> (u32, u32) {
    let mut chance = Chance::new(seed);
    let mut b = interleaving(seed).bench();
    let (victim, others) = flow_and_others(&mut b, 1, 1);
    let mut echoes = Echoes::new(others, TOTAL);
    b.memory.set_knobs(MemoryKnobs { max_delay: chance.below(20) as u32, full_percent: chance.below(20) as u8, ..Default::default() });
    // What the flood repeats.
    b.segment(0, 0, 0, TcpFlags::PSH, &stream(0, 100));
    b.run();
    let (mut polls, mut longest) = (0, 0);
    while !echoes.done() {
        polls += 1;
        assert!(
            polls < 100_000,
            "{flood:?}: {} of {}: {:?}",
            echoes.progress(),
            2 * TOTAL,
            b.card.counters().nonzero().collect::<Vec<_>>()
        );
        flood.go_on(&mut b, &mut chance);
        echoes.turn(&mut b, &mut chance);
        if polls % 100 == 0 {
            echoes.send_again(&mut b);
        }
        if polls % 40 == 0 {
            longest = longest.max(asked(&mut b, victim.flow, flood, &mut chance));
        }
    }
    rests(&mut b);
    for reason in Drop::ALL.iter().filter(|r| ![Drop::NoBuffer, Drop::Duplicate].contains(r) && !flood.drops().contains(r)) {
        assert_eq!(b.card.counters().drops(*reason), 0, "{flood:?}: {reason:?}");
    }
    (polls, longest)
}

/// How many polls a request about a flow takes.
fn asked(b: &mut Bench<impl Fake>, flow: FlowId, flood: Flood, chance: &mut Chance) -> u32 {
    let mut query = ControlMsg::new(kind::QUERY, 0);
    query.flow = flow;
    let mut polls = 0;
    let answer = b.request_while(query, |b| {
        polls += 1;
        flood.go_on(b, chance);
        b.card.poll(b.now);
    });
    assert_eq!(answer.status, status::OK);
    polls
}

fn rests(b: &mut Bench<impl Fake>) {
    for ctx in 1..3 {
        b.events(ctx, true);
    }
    b.run_for(200_000);
    assert_eq!(b.card.counters().unaccounted(), 0);
    assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0));
}

fn others_get_on(flood: Flood) {
    let (mut polls, mut longest) = (0, 0);
    let seeds = for_seeds(100, |seed| {
        let (p, l) = flooded(seed, flood);
        (polls, longest) = (polls.max(p), longest.max(l));
    });
    println!("{flood:?}: {seeds} seeds, {TOTAL} bytes each way in at most {polls} polls, a request in at most {longest}");
}

#[test]
fn a_flood_of_frames_of_one_group_stops_nobody_else() {
    others_get_on(Flood::Data);
}

#[test]
fn a_flood_of_syns_stops_no_flow() {
    others_get_on(Flood::Syn);
}

#[test]
fn a_flood_of_arp_stops_no_flow() {
    others_get_on(Flood::Arp);
}

#[test]
fn a_flood_of_garbage_stops_no_flow() {
    others_get_on(Flood::Garbage);
}

/// Polls until the card answers who it is, while each group always has more segments than it can take.
fn arp_in_a_flood(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = interleaving(seed).bench();
    (0..8).for_each(|n| _ = b.install(n, 1));
    for polls in 0..20_000 {
        if polls % 20 == 10 {
            b.arrive(arp());
        }
        while b.port.waiting() < 64 {
            b.segment(chance.below(8) as u16, 0, 0, TcpFlags::PSH, b"again");
        }
        b.card.poll(b.now);
        if b.sent().iter().any(|s| s.parsed.tcp().is_none()) {
            return polls;
        }
    }
    panic!("never: {:?}", b.card.counters().nonzero().collect::<Vec<_>>());
}

#[test]
fn arp_is_answered_in_a_flood_of_segments() {
    let mut longest = 0;
    let seeds = for_seeds(100, |seed| longest = longest.max(arp_in_a_flood(seed)));
    println!("{seeds} seeds, at most {longest} polls");
}

/// What was lost is sent again, and what is new is sent, whatever a flood does in the other group.
fn sent_in_a_flood(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = interleaving(seed).bench();
    let (_, others) = flow_and_others(&mut b, 1, 1);
    let (mut new, mut again) = (0, 0);
    b.fill(1, others[0].n, 0, &stream(0, 500));
    b.update(2, others[0].flow, 500, 0, 0);
    for polls in 0..20_000 {
        Flood::Data.go_on(&mut b, &mut chance);
        // No acknowledgement comes: the timer's 200 ms pass in 400 polls.
        b.now = b.now.add_micros(500);
        b.card.poll(b.now);
        let sent = b.sent();
        let segments = sent.iter().filter(|s| s.is_of(others[0].n) && !s.payload().is_empty()).count();
        (new, again) = if new == 0 { (segments.min(1), segments.saturating_sub(1)) } else { (1, again + segments) };
        if again > 0 {
            return polls;
        }
    }
    panic!("never: {new} new, {again} again: {:?}", b.card.counters().nonzero().collect::<Vec<_>>());
}

#[test]
fn retransmissions_leave_in_a_flood() {
    let mut longest = 0;
    let seeds = for_seeds(60, |seed| longest = longest.max(sent_in_a_flood(seed)));
    println!("{seeds} seeds, sent and sent again after at most {longest} polls");
}

/// Polls until a full buffer is sent, while old data for another flow of the only group comes in as fast as the card takes it.
fn new_data_under_load(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let placement = Placement::spread(1 + (seed % 2) as u16, 1, 1, 1);
    let mut b = Interleaving { placement, ..Interleaving::from_seed(seed) }.bench();
    b.install(0, 1);
    let sender = b.install(1, 2);
    for _ in 0..20 {
        Flood::Data.go_on(&mut b, &mut chance);
        b.card.poll(b.now);
    }
    b.fill(1, 1, 0, &stream(0, BUF as u32));
    b.update(2, sender, BUF as u32, 0, 0);
    let mut sent = 0;
    for polls in 0..20_000 {
        Flood::Data.go_on(&mut b, &mut chance);
        b.card.poll(b.now);
        sent += b.sent().iter().filter(|s| s.is_of(1)).map(|s| s.payload().len()).sum::<usize>();
        if sent >= BUF as usize {
            return polls;
        }
    }
    panic!("{sent} of {BUF}: {:?}", b.card.counters().nonzero().collect::<Vec<_>>());
}

#[test]
fn new_data_is_not_starved_by_what_comes_in() {
    let mut longest = 0;
    let seeds = for_seeds(60, |seed| longest = longest.max(new_data_under_load(seed)));
    println!("{seeds} seeds, a full buffer leaves in at most {longest} polls");
}

/// Polls until two flows are done, while memory of an application of the other group is slower by so many polls for each transfer, and its peer
/// has it written to all the time.
fn beside_slow_memory(seed: u64, slower: u32) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = interleaving(seed).bench();
    b.map_region(2);
    b.open_context(3, 2, 0);
    let (slow, others) = flow_and_others(&mut b, 2, 3);
    let mut echoes = Echoes::new(others, TOTAL);
    b.memory.slow_down(toe_abi::RegionId(2), slower);
    for polls in 0..100_000 {
        if echoes.done() {
            b.run();
            rests(&mut b);
            return polls;
        }
        // Behind a hole: it is written each time.
        for _ in 0..4 {
            b.segment(slow.n, 1000, 0, TcpFlags::PSH, &stream(1000, 100));
        }
        b.update(3, slow.flow, 0, 0, 0);
        b.now = b.now.add_micros(20);
        echoes.turn(&mut b, &mut chance);
        if polls % 200 == 199 {
            echoes.send_again(&mut b);
        }
    }
    panic!("slower by {slower}: {} of {}: {:?}", echoes.progress(), 2 * TOTAL, b.card.counters().nonzero().collect::<Vec<_>>());
}

#[test]
fn slow_memory_of_one_group_does_not_stop_another() {
    for slower in [0, 100, 1000] {
        let mut longest = 0;
        let seeds = for_seeds(60, |seed| longest = longest.max(beside_slow_memory(seed, slower)));
        println!("slower by {slower}: {seeds} seeds, {TOTAL} bytes each way in at most {longest} polls");
    }
}

/// Polls until two flows are done, while the application of others neither reads its events nor makes room.
fn beside_a_silent_application(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = interleaving(seed).bench();
    let mut silent: Vec<Echo> = (0..6).map(|n| Echo::new(&mut b, n, 1, 1)).collect();
    let mut echoes = Echoes::new([6, 7].map(|n| Echo::new(&mut b, n, 1, 2)).into(), TOTAL);
    for polls in 0..100_000 {
        if echoes.done() {
            return polls;
        }
        silent.iter_mut().for_each(|e| e.send(&mut b, TOTAL, &mut chance));
        echoes.turn(&mut b, &mut chance);
        if polls % 200 == 199 {
            echoes.send_again(&mut b);
        }
    }
    panic!("{} of {}: {:?}", echoes.progress(), 2 * TOTAL, b.card.counters().nonzero().collect::<Vec<_>>());
}

#[test]
fn an_application_that_does_nothing_stops_no_other() {
    let mut longest = 0;
    let seeds = for_seeds(60, |seed| longest = longest.max(beside_a_silent_application(seed)));
    println!("{seeds} seeds, {TOTAL} bytes each way in at most {longest} polls");
}

/// The most polls that a request takes, while events and frames for the control plane want every place on the way to the host.
fn answered_among_events(seed: u64) -> u32 {
    let mut chance = Chance::new(seed);
    let mut b = Interleaving { posting_entries: 4, ..interleaving(seed) }.bench();
    let mut flows: Vec<Echo> = (0..20).map(|n| Echo::new(&mut b, n, 1, 1 + n % 2)).collect();
    b.memory.set_knobs(MemoryKnobs { max_delay: 10, full_percent: 30, ..Default::default() });
    let mut longest = 0;
    for _ in 0..20 {
        let mut query = ControlMsg::new(kind::QUERY, 0);
        query.flow = flows[0].flow;
        let mut polls = 0;
        let answer = b.request_while(query, |b| {
            polls += 1;
            for e in &mut flows {
                e.send(b, 4000, &mut chance);
            }
            b.arrive(peer_segment(500, 0, 0, TcpFlags::SYN, b""));
            b.card.poll(b.now);
            b.events(1, true);
            b.events(2, true);
            b.exceptions();
        });
        assert_eq!(answer.status, status::OK);
        longest = longest.max(polls);
    }
    longest
}

#[test]
fn requests_are_answered_among_events() {
    let mut longest = 0;
    let seeds = for_seeds(100, |seed| longest = longest.max(answered_among_events(seed)));
    println!("{seeds} seeds, answers after at most {longest} polls");
}
