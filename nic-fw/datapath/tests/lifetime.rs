//! What ends leaves nothing behind: whoever owns memory, a flow's place or the card next finds only what is its own, whatever was under way.

mod common;

use common::{
    echo::{Echo, Echoes},
    threads::Threads,
    *,
};
use toe_abi::{
    CtxId, FlowId, HostAddr, RegionId,
    control::{ControlMsg, close_reason, kind, status},
    desc::{HostDesc, hc, hc_flags},
};
use toe_datapath::{Composition, Interleaving};
use toe_hal::fake::{Chance, MemoryKnobs, PortKnobs};
use toe_wire::TcpFlags;

/// What is in memory that nobody may write to any more.
const POISON: u8 = 0xa5;

fn slow(chance: &mut Chance) -> MemoryKnobs {
    MemoryKnobs { max_delay: 1 + chance.below(40) as u32, full_percent: chance.below(40) as u8, ..Default::default() }
}

/// Each case with the pipelined stages, now and then with the fused card, or on threads.
macro_rules! on_seeds {
    ($seeds:expr, $case:ident) => {
        for_seeds($seeds, |seed| match seed % 8 {
            _ if seed % 80 == 3 => $case(&Threads(Interleaving::from_seed(seed)), seed),
            7 => $case(&OneCore, seed),
            6 => $case(&tiny(seed), seed),
            _ => $case(&Interleaving::from_seed(seed), seed),
        })
    };
}

/// A card at work over slow memory: flows 0 and 1 of region 2, flows 2 and 3 of region 1.
fn at_work<K: Kind>(kind: &K, chance: &mut Chance) -> (Bench<K::Card>, Echoes) {
    let mut b = kind.bench();
    b.map_region(2);
    b.open_context(3, 2, 0);
    let flows = [(0, 2, 3), (1, 2, 3), (2, 1, 1), (3, 1, 2)].map(|(n, region, ctx)| Echo::new(&mut b, n, region, ctx));
    b.memory.set_knobs(slow(chance));
    b.port.set_knobs(PortKnobs { tx_room: 1 + chance.below(8) as usize, busy_percent: chance.below(30) as u8, ..Default::default() });
    (b, Echoes::new(flows.into(), BUF as u32))
}

fn turns(b: &mut Bench<impl Fake>, echoes: &mut Echoes, chance: &mut Chance, most: u64) {
    for _ in 0..chance.below(most) {
        echoes.turn(b, chance);
    }
}

/// Lets all that lives come to its end, and the card to rest: nothing is missing or left.
fn finish(b: &mut Bench<impl Fake>, echoes: &mut Echoes, chance: &mut Chance) {
    for turn in 0.. {
        if echoes.flows.iter().all(|e| e.dead || e.echoed == echoes.total) {
            break;
        }
        assert!(turn < 100_000, "never done: {:?} {:?}", echoes.flows, b.card.counters().nonzero().collect::<Vec<_>>());
        echoes.turn(b, chance);
    }
    at_rest(b, echoes);
    assert!(!echoes.broken.writes);
}

fn at_rest(b: &mut Bench<impl Fake>, echoes: &Echoes) {
    for e in &echoes.flows {
        b.events(e.ctx, true);
    }
    b.exceptions();
    b.run_for(200_000);
    assert_eq!(b.card.counters().unaccounted(), 0);
    assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0));
    assert!(credits_are_home(b));
}

/// Whether all boxes are in their pools and all numbers in order.
fn credits_are_home(b: &mut Bench<impl Fake>) -> bool {
    let mut from = 0;
    loop {
        let answer = b.ask(kind::STAGES, FlowId::NONE, [from, 0, 0, 0, 0]);
        let left = answer.args[0] - from;
        if left == 0 {
            return true;
        }
        let records: Vec<toe_abi::observe::StageRecord> = answer.records(left as usize).collect();
        if records.iter().any(|r| r.stage != toe_abi::observe::stage::CTXQ && r.credits != r.credits_max) {
            return false;
        }
        from += records.len() as u64;
    }
}

/// Memory number `place`, full of poison.
fn poison(b: &mut Bench<impl Fake>, place: u64) -> RegionId {
    let region = b.see(place);
    b.memory.poke(HostAddr::new(region, 0), &vec![POISON; b.header.len as usize]);
    region
}

fn is_intact(b: &Bench<impl Fake>, region: RegionId) -> bool {
    b.memory.peek(HostAddr::new(region, 0), b.header.len as usize).iter().all(|&byte| byte == POISON)
}

/// An application is killed: its region is unmapped with everything under way, and its name is the next one's at once.
fn killed(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut b, mut echoes) = at_work(kind, &mut chance);
    let mut left = Vec::new();
    for life in 1..4 {
        turns(&mut b, &mut echoes, &mut chance, 400);
        assert!(echoes.flows[..2].iter().all(|e| e.is_alone(&mut b)), "seed {seed}, life {life}");
        let gone = [0, 1].map(|i| {
            echoes.flows[i].dead = true;
            echoes.flows[i].flow
        });
        let mut unmap = ControlMsg::new(kind::UNMAP_REGION, 0);
        unmap.args[0] = 2;
        assert_eq!(b.request_while(unmap, |b| echoes.turn(b, &mut chance)).status, status::OK);
        left.push(poison(&mut b, if life == 1 { 2 } else { 2 + life }));
        b.sent();
        for _ in 0..chance.below(30) {
            b.card.poll(b.now);
        }
        // A peer that goes on is told again that it has been reset.
        let sends = |s: &Sent| (s.is_of(0) || s.is_of(1)) && !s.flags().contains(TcpFlags::RST);
        assert!(!b.sent().iter().any(sends), "seed {seed}: a segment of a flow whose memory is gone");
        let mut reasons: Vec<(FlowId, u64)> = b.notices.drain(..).map(|n| (n.flow, n.args[0])).collect();
        reasons.sort_by_key(|(flow, _)| *flow != gone[0]);
        assert_eq!(reasons, gone.map(|flow| (flow, close_reason::REGION_GONE.into())), "seed {seed}");
        b.map_region_at(2, 3 + life);
        b.open_context(3, 2, 0);
        for n in 0..2 {
            echoes.flows[usize::from(n)] = Echo::of_life(&mut b, n, 2, 3, life as u32);
        }
    }
    finish(&mut b, &mut echoes, &mut chance);
    assert!(echoes.flows.iter().all(|e| e.is_alone(&mut b)), "seed {seed}");
    assert!(left.iter().all(|&region| is_intact(&b, region)), "seed {seed}: memory was written that belongs to somebody else");
}

#[test]
fn memory_of_a_killed_application_is_not_touched_any_more() {
    on_seeds!(240, killed);
}

/// Flows end and their tuples, places and buffers are used again at once, while frames of the old ones still arrive.
fn reused(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut b, mut echoes) = at_work(kind, &mut chance);
    for life in 1..8 {
        turns(&mut b, &mut echoes, &mut chance, 200);
        let i = chance.below(4) as usize;
        let Echo { n, region, ctx, flow, .. } = echoes.flows[i];
        assert!(echoes.flows[i].is_alone(&mut b), "seed {seed}, life {life}");
        echoes.flows[i].dead = true;
        let released = chance.percent(50);
        let mut end = ControlMsg::new(if released { kind::RELEASE } else { kind::ABORT }, 0);
        end.flow = flow;
        assert_eq!(b.request_while(end, |b| echoes.turn(b, &mut chance)).status, status::OK, "seed {seed}");
        if !released {
            ended(&mut b, &mut echoes, &mut chance, ctx, flow);
        }
        // The next owner's buffers.
        let (tx, _) = b.buffers(n);
        b.memory.poke(HostAddr::new(RegionId(region), tx), &[0; 2 * BUF as usize]);
        b.sent();
        echoes.flows[i] = Echo::of_life(&mut b, n, region, ctx, life);
        let next = echoes.flows[i].flow;
        assert_eq!((next.index, next.generation), (flow.index, flow.generation + 1), "seed {seed}, life {life}");
        // Its application has not heard of it yet.
        if b.has_room(ctx) {
            b.update(ctx, flow, 500, 0, hc_flags::FIN);
        }
    }
    finish(&mut b, &mut echoes, &mut chance);
    assert!(echoes.flows.iter().all(|e| e.is_alone(&mut b)), "seed {seed}");
}

/// Traffic goes on until the control plane is told that a flow of `ctx` has ended.
fn ended(b: &mut Bench<impl Fake>, echoes: &mut Echoes, chance: &mut Chance, ctx: u16, flow: FlowId) {
    for _ in 0..100_000 {
        echoes.turn(b, chance);
        b.events(ctx, true);
        while let Some(msg) = b.completion() {
            assert_eq!(msg.kind, kind::FLOW_CLOSED);
            b.notices.push(msg);
        }
        if b.notices.iter().any(|n| n.flow == flow) {
            return;
        }
    }
    panic!("{flow:?} never ends");
}

#[test]
fn a_flows_place_and_buffers_are_the_next_ones_at_once() {
    on_seeds!(240, reused);
}

fn rebind(e: &Echo) -> HostDesc {
    HostDesc { kind: hc::REBIND, flow: e.flow, tx_head: e.consumed, rx_tail: e.consumed, flags: hc_flags::NODELAY, ..Default::default() }
}

/// A context is closed with descriptors and events under way: its queues are not touched any more, and no flow is left bound to it.
fn context_closed(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut b, mut echoes) = at_work(kind, &mut chance);
    turns(&mut b, &mut echoes, &mut chance, 400);
    while b.has_room(3) {
        b.post(3, rebind(&echoes.flows[chance.below(2) as usize]));
    }
    turns(&mut b, &mut echoes, &mut chance, 20);
    echoes.flows[..2].iter_mut().for_each(|e| e.ctx = CtxId::NONE.0);
    let mut close = ControlMsg::new(kind::CLOSE_CONTEXT, 0);
    close.args[0] = 3;
    assert_eq!(b.request_while(close, |b| echoes.turn(b, &mut chance)).status, status::OK);
    let h = b.header;
    let queues = [(h.context_page(0), 4096), (h.hc_queue(0), h.hc_entries * 64), (h.ev_queue(0), h.ev_entries * 64)];
    for (at, len) in queues {
        b.memory.poke(HostAddr::new(RegionId(2), at), &vec![POISON; len as usize]);
    }
    for i in 0..2 {
        let bound = b.ask(kind::QUERY, echoes.flows[i].flow, [0; 5]).flow_state().id.ctx;
        assert_eq!(bound, CtxId::NONE, "seed {seed}: bound to a context that is closed");
    }
    turns(&mut b, &mut echoes, &mut chance, 100);
    b.open_context(4, 2, 1);
    for e in &mut echoes.flows[..2] {
        b.post(4, rebind(e));
        e.ctx = 4;
    }
    finish(&mut b, &mut echoes, &mut chance);
    for (at, len) in queues {
        let left = b.memory.peek(HostAddr::new(RegionId(2), at), len as usize);
        assert!(left.iter().all(|&byte| byte == POISON), "seed {seed}: a queue of a closed context was written");
    }
}

#[test]
fn a_closed_contexts_queues_are_not_touched_and_no_flow_stays_bound_to_it() {
    on_seeds!(240, context_closed);
}

/// The card is reset in the middle of everything, its host begins anew.
fn reset(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut b, mut echoes) = at_work(kind, &mut chance);
    for life in 1..4 {
        turns(&mut b, &mut echoes, &mut chance, 300);
        if chance.percent(50) {
            let mut unmap = ControlMsg::new([kind::UNMAP_REGION, kind::CLOSE_CONTEXT, kind::ABORT][chance.below(3) as usize], 0);
            (unmap.flow, unmap.args[0]) = (echoes.flows[0].flow, 2);
            b.submit(unmap);
        }
        for _ in 0..chance.below(20) {
            b.arrive(peer_segment(9, 0, 0, TcpFlags::SYN, b""));
            b.card.poll(b.now);
        }
        b.card.reset();
        let left = poison(&mut b, 2);
        assert_eq!((b.port.leases_out(), b.memory.in_flight()), (0, 0), "seed {seed}, life {life}");
        for _ in 0..50 {
            b.card.poll(b.now);
        }
        b.sent();
        assert!(is_intact(&b, left), "seed {seed}, life {life}: memory was written after a reset");
        b.memory.poke(HostAddr::new(left, 0), &vec![0; b.header.len as usize]);
        b.restart();
        b.map_region(2);
        b.open_context(3, 2, 0);
        echoes.flows =
            [(0, 2, 3), (1, 2, 3), (2, 1, 1), (3, 1, 2)].map(|(n, region, ctx)| Echo::of_life(&mut b, n, region, ctx, life)).into();
    }
    finish(&mut b, &mut echoes, &mut chance);
}

#[test]
fn a_card_that_is_reset_at_work_has_forgotten_everything_and_works() {
    on_seeds!(240, reset);
}

/// The control plane goes and another comes, while flows work and frames of nobody arrive.
fn reattached(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut b, mut echoes) = at_work(kind, &mut chance);
    let mut syns = 0u32;
    for _ in 0..4 {
        for _ in 0..chance.below(200) {
            if chance.percent(20) {
                syns += 1;
                b.arrive(syn(syns));
            }
            echoes.turn(&mut b, &mut chance);
        }
        if chance.percent(50) {
            b.submit(ControlMsg::new([kind::COUNTERS, kind::NEXT_FLOW, kind::STAGES][chance.below(3) as usize], 0));
            turns(&mut b, &mut echoes, &mut chance, 8);
        }
        // A burst, of which some is still to be written when the next one comes.
        for _ in 0..chance.below(20) {
            syns += 1;
            b.arrive(syn(syns));
        }
        turns(&mut b, &mut echoes, &mut chance, 10);
        b.detach();
        turns(&mut b, &mut echoes, &mut chance, 4);
        b.reattach();
        for _ in 0..chance.below(100) {
            if chance.percent(50) {
                syns += 1;
                b.arrive(syn(syns));
            }
            echoes.turn(&mut b, &mut chance);
            whole(&mut b, syns);
        }
        assert_eq!(b.ask(kind::QUERY, echoes.flows[2].flow, [0; 5]).status, status::OK, "seed {seed}");
    }
    finish(&mut b, &mut echoes, &mut chance);
}

/// SYN number `n`, of any length.
fn syn(n: u32) -> Vec<u8> {
    peer_segment(9, n, 0, TcpFlags::SYN, &stream(n, n * 61 % 1200))
}

#[test]
fn flows_work_on_while_control_planes_come_and_go() {
    on_seeds!(240, reattached);
}

/// Whatever is in the exception ring is one of the SYNs that came.
fn whole(b: &mut Bench<impl Fake>, syns: u32) {
    for (record, frame) in b.exceptions() {
        assert!((1..=syns).any(|n| frame == syn(n)), "not a frame that came: {record:?} {frame:x?}");
    }
}

/// Control planes that live so shortly that their rings are in the same places of memory still.
fn reattached_at_once(kind: &impl Kind, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut b = kind.bench();
    b.memory.set_knobs(MemoryKnobs { full_percent: 70, ..slow(&mut chance) });
    let mut syns = 0;
    for _ in 0..20 {
        for _ in 0..chance.below(8) {
            syns += 1;
            b.arrive(syn(syns));
        }
        for _ in 0..chance.below(8) {
            b.card.poll(b.now);
            whole(&mut b, syns);
        }
        b.detach();
        b.reattach();
    }
    b.run();
    whole(&mut b, syns);
    assert_eq!(b.card.counters().unaccounted(), 0);
}

#[test]
fn what_was_under_way_to_one_control_plane_is_not_written_to_the_next() {
    on_seeds!(240, reattached_at_once);
}
