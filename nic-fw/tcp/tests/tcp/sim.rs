//! Two flows joined by a wire that loses, duplicates, delays and reorders, in virtual time.
//!
//! Payload is not carried: the byte at position p of a direction *is* p. So a placement is right if it puts position p of the sender to
//! position p of the receiver, and complete if every position below rx_head was placed.

use crate::choices::{Choices, Random};
use crate::flow::setup;
use std::collections::BTreeMap;
use toe_abi::desc::hc_flags;
use toe_abi::flow::FlowState;
use toe_tcp::{CloseReason, HostUpdate, Input, Now, Output, Pools, SegmentIn, SegmentOut, Setup, Timestamping, input, next_deadline};
use toe_wire::{SeqNum, TcpFlags};

/// What the wire and the applications are like.
#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    /// Percent.
    pub loss: u32,
    pub duplicate: u32,
    pub delay_us: u64,
    pub jitter_us: u64,
    /// Percent of data segments that get CE.
    pub ce: u32,
    /// Announcements of a larger window (no payload, same ack) are lost.
    pub lose_window_updates: bool,
    pub max_payload: u32,
    /// Records of each end's pools.
    pub records: u32,
    /// Segments of end 0, counted from 0, that are lost on their first way.
    pub lose: Vec<u32>,
    pub ends: [EndConfig; 2],
}

#[derive(Clone, Debug)]
pub struct EndConfig {
    /// Bytes to send.
    pub total: u32,
    pub tx_log2: u8,
    pub rx_log2: u8,
    pub mss: u16,
    /// The application writes and reads at most this much at a time, and then waits.
    pub write_chunk: u32,
    pub write_wait_us: u64,
    pub read_chunk: u32,
    pub read_wait_us: u64,
    /// Percent of writes that are urgent.
    pub urgent: u32,
    /// hc_flags.
    pub options: u32,
    pub timestamps: bool,
    pub sack: bool,
    pub ecn: bool,
    pub algorithm: u8,
}

impl EndConfig {
    pub fn plain(total: u32) -> Self {
        Self {
            total,
            tx_log2: 17,
            rx_log2: 17,
            mss: 1000,
            write_chunk: 1 << 16,
            write_wait_us: 10,
            read_chunk: 1 << 17,
            read_wait_us: 10,
            urgent: 0,
            options: hc_flags::NODELAY,
            timestamps: true,
            sack: true,
            ecn: false,
            algorithm: 1,
        }
    }
}

impl World {
    /// A good wire: 10 Gbit/s never matters, 1 ms each way.
    pub fn plain(seed: u64, totals: [u32; 2]) -> Self {
        Self {
            seed,
            loss: 0,
            duplicate: 0,
            delay_us: 1000,
            jitter_us: 0,
            ce: 0,
            lose_window_updates: false,
            max_payload: 64_000,
            records: 1024,
            lose: vec![],
            ends: totals.map(EndConfig::plain),
        }
    }
}

struct End {
    s: FlowState,
    pools: Pools,
    config: EndConfig,
    tx_head: u32,
    rx_tail: u32,
    /// What the events said.
    rx_head: u32,
    tx_tail: u32,
    rx_fin: bool,
    /// End of what was written urgently.
    mark: u32,
    /// The last mark of the peer's that was told.
    heard: u32,
    placed: Vec<bool>,
    closed: Option<CloseReason>,
    next_write: u64,
    next_read: u64,
    last_ack: SeqNum,
    last_edge: SeqNum,
    stats: Stats,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub timeouts: u32,
    pub fast_retransmits: u32,
    pub probes: u32,
    pub tail_probes: u32,
    /// Recoveries and timeouts that were taken back.
    pub spurious: u32,
    pub spurious_timeouts: u32,
    pub dsacks: u32,
    /// Payload bytes sent again.
    pub resent: u64,
    pub sent: u32,
    pub largest: u32,
    pub bytes_sent: u64,
}

pub struct Report {
    pub finished_us: u64,
    pub closed: [Option<CloseReason>; 2],
    pub stats: [Stats; 2],
    /// Data segments of end 0 that the wire lost.
    pub lost: u32,
}

pub struct Sim {
    world: World,
    random: Random,
    now: u64,
    ends: [End; 2],
    wire: BTreeMap<(u64, u64), (usize, SegmentOut, bool)>,
    serial: u64,
    /// Data segments put on the wire towards each end.
    segments: [u32; 2],
    lost: u32,
}

/// Start of virtual time: the millisecond clock wraps soon after in some runs.
const STARTS: [u64; 3] = [1_000_000, (u32::MAX as u64 - 2000) * 1000, (1 << 32) - 5_000_000];
const GIVE_UP_US: u64 = 4_000_000_000;

fn make_end(world: &World, me: usize, random: &mut Random, iss: [SeqNum; 2], now: u64) -> End {
    let (mine, theirs) = (&world.ends[me], &world.ends[1 - me]);
    let both = |f: fn(&EndConfig) -> bool| f(mine) && f(theirs);
    let timestamps = both(|e| e.timestamps);
    let shift = |log2: u8| log2.saturating_sub(15);
    let s = toe_tcp::establish(&Setup {
        iss: iss[me],
        irs: iss[1 - me],
        tx_buf_log2: mine.tx_log2,
        rx_buf_log2: mine.rx_log2,
        snd_wnd: (1u32 << theirs.rx_log2).min(65_535),
        snd_wscale: shift(theirs.rx_log2),
        rcv_wnd: (1u32 << mine.rx_log2).min(65_535),
        rcv_wscale: shift(mine.rx_log2),
        mss: mine.mss.min(theirs.mss),
        timestamps: timestamps.then_some(Timestamping { recent: (now / 1000) as u32, offset: 0 }),
        sack: both(|e| e.sack),
        ecn: both(|e| e.ecn),
        algorithm: mine.algorithm,
        rtt_us: (2 * world.delay_us) as u32,
        now: Now(now),
        ..setup()
    });
    End {
        s,
        pools: Pools::new(world.records, 4),
        tx_head: 0,
        rx_tail: 0,
        rx_head: 0,
        tx_tail: 0,
        rx_fin: false,
        mark: 0,
        heard: 0,
        placed: vec![false; theirs.total as usize],
        closed: None,
        next_write: now + random.range(0, 100),
        next_read: now,
        last_ack: SeqNum(0),
        last_edge: SeqNum(0),
        stats: Stats::default(),
        config: mine.clone(),
    }
}

impl Sim {
    pub fn new(world: World) -> Self {
        let mut random = Random(world.seed);
        let now = STARTS[random.range(0, 3) as usize];
        let iss = [SeqNum(random.next() as u32), SeqNum(random.next() as u32)];
        let ends = [0, 1].map(|me| make_end(&world, me, &mut random, iss, now));
        Self { world, random, now, ends, wire: BTreeMap::new(), serial: 0, segments: [0; 2], lost: 0 }
    }

    /// Until both ends are closed. Panics if a byte is wrong, or nothing moves any more.
    pub fn run(mut self) -> Report {
        let start = self.now;
        while self.ends.iter().any(|e| e.closed.is_none()) {
            let next = self.next_event().unwrap_or_else(|| panic!("seed {}: stalled for ever: {}", self.world.seed, self.describe()));
            self.now = self.now.max(next);
            assert!(self.now - start < GIVE_UP_US, "seed {}: not done in time: {}", self.world.seed, self.describe());
            self.step();
        }
        for e in 0..2 {
            let (end, peer) = (&self.ends[e], &self.ends[1 - e]);
            assert_eq!(end.rx_head, peer.config.total, "seed {}: end {e} lacks bytes: {}", self.world.seed, self.describe());
            assert_eq!(end.heard, peer.mark, "seed {}: end {e} has missed the mark: {}", self.world.seed, self.describe());
            assert!(end.rx_fin, "seed {}: end {e} saw no FIN", self.world.seed);
            assert_eq!(end.pools.left().0, self.world.records, "seed {}: end {e} keeps records", self.world.seed);
        }
        Report {
            finished_us: self.now - start,
            closed: [self.ends[0].closed, self.ends[1].closed],
            stats: [self.ends[0].stats, self.ends[1].stats],
            lost: self.lost,
        }
    }

    fn describe(&self) -> String {
        let end = |e: &End| {
            format!("head {} tail {} fin {} closed {:?} {:?} {:?} {:?}", e.rx_head, e.tx_tail, e.rx_fin, e.closed, e.s.rx, e.s.tx, e.s.cc)
        };
        format!("t {}\n{}\n{}\n{:?}", self.now, end(&self.ends[0]), end(&self.ends[1]), self.world)
    }

    fn next_event(&self) -> Option<u64> {
        let wire = self.wire.keys().next().map(|k| k.0);
        let mut times: Vec<u64> = wire.into_iter().collect();
        for end in self.ends.iter().filter(|e| e.closed.is_none()) {
            times.extend(next_deadline(&end.s, Now(self.now)).map(|n| n.0));
            if self.may_write(end) {
                times.push(end.next_write);
            }
            if end.rx_head != end.rx_tail {
                times.push(end.next_read);
            }
        }
        times.into_iter().min()
    }

    fn may_write(&self, end: &End) -> bool {
        let used = end.tx_head.wrapping_sub(end.tx_tail);
        end.tx_head < end.config.total && used < 1 << end.config.tx_log2
            || (end.tx_head == end.config.total && end.config.total == 0 && end.next_write != u64::MAX)
    }

    fn step(&mut self) {
        if let Some((&key, &(to, seg, ce))) = self.wire.iter().next().filter(|(k, _)| k.0 <= self.now) {
            self.wire.remove(&key);
            self.deliver(to, &seg, ce);
            return;
        }
        for e in 0..2 {
            if self.ends[e].closed.is_some() {
                continue;
            }
            if next_deadline(&self.ends[e].s, Now(self.now)).is_some_and(|d| d.0 <= self.now) {
                let out = self.input(e, &Input::Timer);
                self.handle(e, out, None);
            }
            self.application(e);
        }
    }

    fn input(&mut self, e: usize, input: &Input) -> Output {
        let end = &mut self.ends[e];
        toe_tcp::input(&mut end.s, &mut end.pools, input, Now(self.now))
    }

    fn emit(&mut self, e: usize) -> Option<SegmentOut> {
        let end = &mut self.ends[e];
        toe_tcp::emit(&mut end.s, &mut end.pools, Now(self.now), self.world.max_payload)
    }

    fn application(&mut self, e: usize) {
        let now = self.now;
        let writes = self.may_write(&self.ends[e]) && self.ends[e].next_write <= now;
        let reads = self.ends[e].rx_head != self.ends[e].rx_tail && self.ends[e].next_read <= now;
        if !(writes || reads) || self.ends[e].closed.is_some() {
            return;
        }
        let wait = [self.ends[e].config.write_wait_us, self.ends[e].config.read_wait_us].map(|w| now + 1 + self.random.range(0, 2 * w));
        let end = &mut self.ends[e];
        if writes {
            let room = (1 << end.config.tx_log2) - end.tx_head.wrapping_sub(end.tx_tail);
            let chunk = self.random.range(1, u64::from(end.config.write_chunk) + 1) as u32;
            end.tx_head += room.min(chunk).min(end.config.total - end.tx_head);
            if end.config.urgent > 0 && self.random.chance(end.config.urgent) {
                end.mark = end.tx_head;
            }
            end.next_write = if end.config.total == 0 { u64::MAX } else { wait[0] };
        }
        if reads {
            let chunk = self.random.range(1, u64::from(end.config.read_chunk) + 1) as u32;
            end.rx_tail += chunk.min(end.rx_head - end.rx_tail);
            end.next_read = wait[1];
        }
        let fin = if end.tx_head == end.config.total { hc_flags::FIN } else { 0 };
        let urgent = if end.mark > end.tx_tail { hc_flags::URGENT } else { 0 };
        let flags = end.config.options | fin | urgent;
        let update = HostUpdate { tx_head: end.tx_head, rx_tail: end.rx_tail, flags, urgent: end.mark };
        let out = input(&mut end.s, &mut end.pools, &Input::Host(update), Now(now));
        assert!(!out.bad_host, "seed {}: honest update refused", self.world.seed);
        self.handle(e, out, None);
    }

    fn deliver(&mut self, e: usize, seg: &SegmentOut, ce: bool) {
        if let Some(reason) = self.ends[e].closed {
            // TIME-WAIT is kept elsewhere; all it has to do here is to acknowledge what comes again.
            if reason == CloseReason::TimeWait && (seg.len > 0 || seg.flags.contains(TcpFlags::FIN)) && self.ends[1 - e].closed.is_none() {
                let s = &self.ends[e].s;
                let ack = SegmentOut { seq: SeqNum(s.tx.snd_max), ack: SeqNum(s.rx.rcv_nxt), flags: TcpFlags::ACK, len: 0, ..*seg };
                let timestamps = seg.timestamps.map(|t| toe_wire::Timestamps { val: (self.now / 1000) as u32, ecr: t.val });
                self.send(e, SegmentOut { timestamps, ..ack });
            }
            return;
        }
        let segment = SegmentIn {
            seq: seg.seq,
            ack: seg.ack,
            flags: seg.flags,
            window: seg.window,
            urgent: seg.urgent,
            payload_len: seg.len,
            timestamps: seg.timestamps,
            sack: seg.sack,
            ce,
            segments: seg.len.div_ceil(u32::from(seg.mss)).max(1) as u16,
        };
        let out = self.input(e, &Input::Segment(segment));
        self.handle(e, out, Some(seg));
    }

    fn handle(&mut self, e: usize, out: Output, seg: Option<&SegmentOut>) {
        let seed = self.world.seed;
        if let (Some(place), Some(seg)) = (out.place, seg) {
            assert_eq!(place.pos, seg.pos.wrapping_add(place.from), "seed {seed}: misplaced");
            assert!(place.from + place.len <= seg.len, "seed {seed}: placement beyond the payload");
            let end = &mut self.ends[e];
            let reach = place.pos + place.len - end.rx_tail;
            assert!(reach <= 1 << end.config.rx_log2, "seed {seed}: placement overruns the buffer");
            end.placed[place.pos as usize..(place.pos + place.len) as usize].fill(true);
        }
        if let Some(mark) = out.urgent {
            assert!(mark > self.ends[e].rx_head && mark <= self.ends[1 - e].mark, "seed {seed}: no byte there is urgent");
            self.ends[e].heard = self.ends[e].heard.max(mark);
        }
        self.count(e, &out);
        if let Some(reply) = out.reply {
            self.send(e, reply);
        }
        if out.send {
            let mut frames = 0;
            while let Some(seg) = self.emit(e) {
                self.send(e, seg);
                frames += 1;
                assert!(frames < 10_000, "seed {seed}: emit without end: {}", self.describe());
            }
        }
        let end = &mut self.ends[e];
        let head = toe_tcp::rx_head(&end.s);
        assert!(end.placed[end.rx_head as usize..head as usize].iter().all(|&p| p), "seed {seed}: rx_head over a hole");
        (end.rx_head, end.tx_tail) = (head, toe_tcp::tx_tail(&end.s));
        end.rx_fin = toe_tcp::event_flags(&end.s) & toe_abi::desc::ev_flags::RX_FIN != 0;
        if let Some(reason) = out.closed {
            assert_eq!(out.error, 0, "seed {seed}: {reason:?} {}", self.describe());
            self.ends[e].closed = Some(reason);
        }
    }

    fn count(&mut self, e: usize, out: &Output) {
        use toe_abi::counters::Counter;
        let stats = &mut self.ends[e].stats;
        for (counter, stat) in [
            (Counter::TxTimeouts, &mut stats.timeouts),
            (Counter::TxFastRetransmits, &mut stats.fast_retransmits),
            (Counter::TxProbes, &mut stats.probes),
            (Counter::TxTailProbes, &mut stats.tail_probes),
            (Counter::TxSpuriousRecoveries, &mut stats.spurious),
            (Counter::TxSpuriousTimeouts, &mut stats.spurious_timeouts),
            (Counter::RxDsacks, &mut stats.dsacks),
        ] {
            *stat += u32::from(out.counts.has(counter));
        }
    }

    /// Puts a segment on the wire, as a super-frame or cut.
    fn send(&mut self, e: usize, seg: SegmentOut) {
        let seed = self.world.seed;
        let end = &mut self.ends[e];
        assert!(seg.len <= self.world.max_payload);
        if seg.len > 0 {
            let tail = toe_tcp::tx_tail(&end.s);
            assert!(seg.pos.wrapping_sub(tail) < 1 << 31 && seg.pos + seg.len <= end.tx_head, "seed {seed}: bytes that are not there");
        }
        end.stats.sent += 1;
        end.stats.largest = end.stats.largest.max(seg.len);
        end.stats.bytes_sent += u64::from(seg.len);
        end.stats.resent += if seg.rexmit { u64::from(seg.len) } else { 0 };
        let edge = seg.ack.add(u32::from(seg.window) << end.s.rx.wscale);
        let update = seg.len == 0 && !seg.flags.contains(TcpFlags::FIN) && seg.ack == end.last_ack && edge.gt(end.last_edge);
        (end.last_ack, end.last_edge) = (seg.ack, edge);
        if update && self.world.lose_window_updates && self.random.chance(80) {
            return;
        }
        let mss = u32::from(seg.mss);
        let whole = seg.len <= mss || self.random.chance(50);
        let step = if whole { seg.len.max(1) } else { mss };
        let mut from = 0;
        loop {
            let len = step.min(seg.len - from);
            let last = from + len == seg.len;
            let mut flags = seg.flags;
            flags.set(TcpFlags::FIN, last && seg.flags.contains(TcpFlags::FIN));
            flags.set(TcpFlags::PSH, last && seg.flags.contains(TcpFlags::PSH));
            self.transmit(1 - e, SegmentOut { seq: seg.seq.add(from), pos: seg.pos.wrapping_add(from), len, flags, ..seg });
            from += len;
            if last {
                return;
            }
        }
    }

    fn transmit(&mut self, to: usize, seg: SegmentOut) {
        let serial = self.segments[to];
        self.segments[to] += u32::from(seg.len > 0);
        let planned = to == 1 && seg.len > 0 && self.world.lose.contains(&serial);
        let copies =
            if planned || self.random.chance(self.world.loss) { 0 } else { 1 + usize::from(self.random.chance(self.world.duplicate)) };
        self.lost += u32::from(copies == 0 && to == 1 && seg.len > 0);
        for _ in 0..copies {
            let at = self.now + self.world.delay_us + self.random.range(0, self.world.jitter_us + 1);
            self.serial += 1;
            let ce = seg.ect && self.random.chance(self.world.ce);
            self.wire.insert((at, self.serial), (to, seg, ce));
        }
    }
}
