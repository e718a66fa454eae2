//! The port: its receiving half makes the peers' frames when it is asked for some, its sending half notes what the card says to them.
//!
//! ```text
//!   receive ◄─ peers ─ patch a buffer in place     transmit ─► line of the connection: acknowledged, window, received, timestamp
//!                 └────────────────────── reads ◄──────────────┘            flush ─► rings the bell of a receiving core that sleeps
//! ```
//!
//! The sending half marks the connections about which it has something new, so that the receiving half looks only at those, and at those
//! that had more to send the last time.
//!
//! The wire has no queue: a frame exists only from `receive` on, so nothing is lost and no frame waits for a core. Payload that the card
//! sends is not touched unless it is checked, as a network card would fetch it by DMA.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use toe_hal::{HostMemory, Lease, PortCaps, RxBurst, RxFrame, RxOffload, RxPort, TxBusy, TxFrame, TxPort};

use super::{Memory, frames::Lender, frames::PoolFrames};
use crate::bell::Bell;
use crate::traffic::frame::{self, Fields, Header};
use crate::traffic::peer::{Peer, Seen, Segment};
use crate::traffic::{IRS, ISS, RCV_WSCALE, Traffic, byte, cost::Sampled};

/// Buffers of the receiving half.
pub const BUFFERS: u32 = 512;
/// After so long without a frame the peers acknowledge what is less than two segments, milliseconds.
const LATE_MS: u32 = 2;
const MTU: u16 = 1500;

/// What the card has said on one connection: written by the sending half, read by the receiving half.
#[repr(align(128))]
#[derive(Default)]
struct Line {
    edge: AtomicU32,
    received: AtomicU32,
    stamp: AtomicU32,
}

impl Line {
    // Relaxed, all of them: each is a claim that only grows, and no bytes stand behind it.
    fn seen(&self) -> Seen {
        Seen { edge: self.edge.load(Ordering::Relaxed), received: self.received.load(Ordering::Relaxed) }
    }
}

/// What both halves and the rest of the program share.
pub struct Wire {
    lines: Box<[Line]>,
    /// Connections about which there is something new, a bit each.
    news: Box<[AtomicU64]>,
    /// The peers have begun.
    begun: AtomicBool,
    /// Their clock, milliseconds.
    clock_ms: AtomicU32,
    /// Of the core that receives.
    pub bell: Bell,
    /// Time that the halves took, nanoseconds.
    pub rx_cost: Sampled,
    pub tx_cost: Sampled,
    /// Frames of the card that no peer could have got: gaps, wrong bytes.
    bad: AtomicU64,
}

impl Wire {
    /// For `connections` peers whose window at the card is `window` bytes.
    pub fn new(connections: u16, window: u32) -> Self {
        let line = |_| Line { edge: AtomicU32::new(window), ..Line::default() };
        Self {
            lines: (0..connections).map(line).collect(),
            news: (0..usize::from(connections).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            begun: AtomicBool::new(false),
            clock_ms: AtomicU32::new(1),
            bell: Bell::default(),
            rx_cost: Sampled::default(),
            tx_cost: Sampled::default(),
            bad: AtomicU64::new(0),
        }
    }

    /// The connections are there: the peers begin.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// The time is now so late. Called by the receiving core.
    pub fn tick(&self, now_ms: u32) {
        if self.clock_ms.load(Ordering::Relaxed) != now_ms {
            self.clock_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Bytes that the peer of a connection has received, mod 2^32.
    pub fn received(&self, connection: u16) -> u32 {
        self.lines[usize::from(connection)].received.load(Ordering::Relaxed)
    }

    /// Frames that were not what they should have been.
    pub fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }
}

/// The receiving half.
pub struct WireRx {
    wire: Arc<Wire>,
    lender: Lender,
    traffic: Traffic,
    /// Sum of the fixed part of a frame's IP header.
    ip_sum: u32,
    peers: Box<[Peer]>,
    /// Peers that may have something to send, a bit each.
    live: Box<[u64]>,
    /// The peer whose turn it was last.
    turn: usize,
    /// When the last frame was made, milliseconds.
    last_ms: u32,
    turns: u32,
}

impl WireRx {
    /// `local_ports`: the card's port of each connection.
    pub fn new(wire: Arc<Wire>, traffic: Traffic, local_ports: &[u16]) -> Self {
        let start = frame::template();
        let peers = (0..).zip(local_ports).map(|(i, &port)| Peer::new(i, port)).collect();
        Self {
            lender: Lender::new(BUFFERS, &start),
            ip_sum: frame::ip_sum(&start),
            live: all(local_ports.len()),
            wire,
            traffic,
            peers,
            turn: 0,
            last_ms: 0,
            turns: 0,
        }
    }

    /// Learns which peers may have something to send.
    fn collect(&mut self) {
        for (live, news) in self.live.iter_mut().zip(&self.wire.news) {
            if news.load(Ordering::Relaxed) != 0 {
                // Acquire: with the release in `WireTx::flush`.
                *live |= news.swap(0, Ordering::Acquire);
            }
        }
    }

    /// The next peer behind the one whose turn it was, among those that may have something.
    fn next_live(&self) -> Option<usize> {
        let (word, words) = (self.turn / 64, self.live.len());
        // The bits behind the turn's own first, the whole of that word again at the end.
        let behind = u64::MAX.checked_shl(self.turn as u32 % 64 + 1).unwrap_or(0);
        let bits = |i: usize| if i == 0 { self.live[word] & behind } else { self.live[(word + i) % words] };
        let found = (0..=words).find(|&i| bits(i) != 0)?;
        Some((word + found) % words * 64 + bits(found).trailing_zeros() as usize)
    }

    /// Segments of the peers, by turns, until none has one or there is no room for more.
    fn fill(&mut self, burst: &mut RxBurst) {
        self.collect();
        while !burst.is_full()
            && self.lender.has()
            && let Some(turn) = self.next_live()
        {
            self.turn = turn;
            let seen = self.wire.lines[turn].seen();
            match self.peers[turn].next(&self.traffic, &seen, false) {
                Some(segment) => self.send(&segment, burst),
                None => self.live[turn / 64] &= !(1 << (turn % 64)),
            }
        }
    }

    /// What is late, of every peer.
    fn fill_late(&mut self, burst: &mut RxBurst) {
        for turn in 0..self.peers.len() {
            self.turn = turn;
            let seen = self.wire.lines[turn].seen();
            if !burst.is_full()
                && self.lender.has()
                && let Some(segment) = self.peers[turn].next(&self.traffic, &seen, true)
            {
                self.send(&segment, burst);
            }
        }
    }

    fn send(&mut self, segment: &Segment, burst: &mut RxBurst) {
        let (peer, line) = (&self.peers[self.turn], &self.wire.lines[self.turn]);
        self.last_ms = self.wire.clock_ms.load(Ordering::Relaxed);
        let fields = Fields {
            ports: peer.ports(),
            seq: IRS.wrapping_add(1).wrapping_add(segment.pos),
            ack: ISS.wrapping_add(1).wrapping_add(segment.ack),
            len: segment.len,
            stamp: self.last_ms,
            echo: line.stamp.load(Ordering::Relaxed),
        };
        let (checked, ip_sum) = (self.traffic.checked, self.ip_sum);
        let lent = self.lender.lend(|bytes| {
            if checked {
                bytes[frame::PAYLOAD..].iter_mut().zip(segment.pos..).take(segment.len as usize).for_each(|(b, pos)| *b = byte(pos));
            }
            frame::patch(bytes, ip_sum, &fields)
        });
        let offload = RxOffload { csum_ok: true, ..RxOffload::default() };
        // There was a buffer at home, and room in the burst.
        lent.into_iter().for_each(|(lease, len)| drop(burst.push(RxFrame { lease, len, offload })));
    }
}

/// A bit for each of so many.
fn all(count: usize) -> Box<[u64]> {
    (0..count.div_ceil(64)).map(|word| u64::MAX >> (64 - (count - word * 64).min(64))).collect()
}

impl RxPort for WireRx {
    type Frames = PoolFrames;

    fn frames(&self) -> PoolFrames {
        self.lender.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        if !self.wire.begun.load(Ordering::Acquire) {
            return 0;
        }
        let begin = Sampled::begin(&mut self.turns);
        let before = burst.len();
        self.fill(burst);
        let now_ms = self.wire.clock_ms.load(Ordering::Relaxed);
        if burst.len() == before && now_ms.wrapping_sub(self.last_ms) >= LATE_MS {
            self.last_ms = now_ms;
            self.fill_late(burst);
        }
        self.wire.rx_cost.end(begin);
        burst.len() - before
    }

    fn any(&mut self) -> bool {
        self.collect();
        let live = |i: usize| self.live[i / 64] & 1 << (i % 64) != 0;
        let has = |i: usize| live(i) && self.peers[i].plan(&self.traffic, &self.wire.lines[i].seen(), false).is_some();
        self.lender.has() && (0..self.peers.len()).any(has)
    }

    fn release(&mut self, lease: Lease) {
        self.lender.take_back(lease);
    }

    fn holding(&self) -> bool {
        self.peers.iter().zip(&self.wire.lines).any(|(peer, line)| peer.plan(&self.traffic, &line.seen(), true).is_some())
    }
}

/// The sending half.
pub struct WireTx {
    wire: Arc<Wire>,
    memory: Memory,
    /// Connections about which there is something new since the last flush.
    news: Box<[u64]>,
    checked: bool,
    turns: u32,
}

impl WireTx {
    pub fn new(wire: Arc<Wire>, traffic: &Traffic, memory: Memory) -> Self {
        let news = vec![0; wire.news.len()].into();
        Self { wire, memory, news, checked: traffic.checked, turns: 0 }
    }

    /// What the card says in a frame with so much payload. False: no peer could have got it.
    fn note(&mut self, frame: &TxFrame<'_, toe_abi::HostSpan>) -> bool {
        let Some(header) = Header::read(frame.header) else { return false };
        let connection = usize::from(header.connection);
        let Some(line) = self.wire.lines.get(connection) else { return false };
        let pos = header.seq.wrapping_sub(ISS.wrapping_add(1));
        let received = line.received.load(Ordering::Relaxed);
        let (ahead, news) = (pos.wrapping_sub(received) as i32, pos.wrapping_add(frame.payload_len).wrapping_sub(received) as i32);
        if ahead > 0 || self.checked && !self.is_stream(pos, frame.payload) {
            return false;
        }
        if news > 0 {
            line.received.store(received.wrapping_add(news as u32), Ordering::Relaxed);
        }
        let acked = header.ack.wrapping_sub(IRS.wrapping_add(1));
        line.edge.store(acked.wrapping_add(u32::from(header.window) << RCV_WSCALE), Ordering::Relaxed);
        line.stamp.store(header.stamp, Ordering::Relaxed);
        self.news[connection / 64] |= 1 << (connection % 64);
        true
    }

    /// Whether host memory holds the bytes of the stream from `pos` on.
    fn is_stream(&self, pos: u32, payload: &[toe_abi::HostSpan]) -> bool {
        let mut bytes = Vec::new();
        for span in payload {
            let mut part = vec![0; span.len as usize];
            if self.memory.get(span.addr, &mut part).is_err() {
                return false;
            }
            bytes.append(&mut part);
        }
        bytes.iter().zip(0..).all(|(&b, i)| b == byte(pos.wrapping_add(i)))
    }
}

impl TxPort<<Memory as HostMemory>::Slice> for WireTx {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: frame::CARD_MAC, mtu: MTU, tx_csum: true, tso_max: 0 }
    }

    fn transmit(&mut self, frame: &TxFrame<'_, <Memory as HostMemory>::Slice>) -> Result<(), TxBusy> {
        let begin = Sampled::begin(&mut self.turns);
        if !self.note(frame) {
            self.wire.bad.fetch_add(1, Ordering::Relaxed);
        }
        self.wire.tx_cost.end(begin);
        Ok(())
    }

    fn flush(&mut self) -> usize {
        for (news, shared) in self.news.iter_mut().zip(&self.wire.news) {
            if *news != 0 {
                // Release: with the acquire in `WireRx::collect`; what the lines say can be seen.
                shared.fetch_or(std::mem::take(news), Ordering::Release);
            }
        }
        self.wire.bell.ring();
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Load;

    fn port(connections: u16) -> WireRx {
        let traffic = Traffic { load: Load::Acks, connections, rpc_bytes: 1, checked: false };
        WireRx::new(Arc::new(Wire::new(connections, 0)), traffic, &vec![80; usize::from(connections)])
    }

    #[test]
    fn peers_take_turns() {
        for connections in [1, 2, 63, 64, 65, 200] {
            let mut rx = port(connections);
            for i in 1..=500 {
                rx.turn = rx.next_live().unwrap();
                assert_eq!(rx.turn, i % usize::from(connections), "{connections} peers");
            }
            rx.live.fill(0);
            assert_eq!(rx.next_live(), None);
            let last = usize::from(connections) - 1;
            rx.live[last / 64] = 1 << (last % 64);
            assert_eq!(rx.next_live(), Some(last));
        }
    }

    #[test]
    fn a_peer_is_looked_at_again_when_there_is_news_of_it() {
        let mut rx = port(70);
        rx.wire.begin();
        rx.live.fill(0);
        assert!(!rx.any());
        rx.wire.news[1].fetch_or(1 << 3, Ordering::Release);
        assert!(rx.any());
        let mut burst = RxBurst::new();
        assert_eq!((rx.receive(&mut burst), rx.turn), (32, 67));
    }
}
