//! Packets that came in pieces (RFC 791, 3.2; RFC 1122, 3.3.2; RFC 8200, 4.5), and are judged once they are whole. No TCP sends such, but
//! a router before a narrow link may have made them, and a ping may be large.
//!
//! ```text
//!   fragment ──► Reassembly ──whole──► Engine::ip, as if it had come so ──► segment: of a flow it is injected
//!                    └─ overlap, too long, too many, too late ──► dropped
//! ```
//!
//! Pieces that overlap end their packet, whatever they say (RFC 5722; of IPv4 as Linux): the next piece might decide what a
//! firewall has seen. All together have [`BYTES_MAX`] and [`PACKETS_MAX`]; beyond, the oldest packet makes room.

use crate::{Engine, FrameMeta, addr::is_v4, isn::Keys, timers::TimerId};
use std::collections::{BTreeMap, HashMap};
use toe_wire::{
    Ethernet, Frame, Ip, Payload, ethernet,
    fragment::{self, Fragment},
    icmp::reassembly_time_exceeded,
    ip_proto, ipv4, ipv6, parse_frame,
};

/// All pieces together, with what each costs besides its bytes.
const BYTES_MAX: usize = 4 << 20;
const PIECE_COST: usize = 128;
const PACKETS_MAX: usize = 1024;
/// Of one packet: 64 KiB in pieces of less than 576 bytes.
const PIECES_MAX: usize = 128;
/// How long a packet may be on its way, after its first piece (as Linux; RFC 8200, 4.5).
const LIFETIME_V4_US: u64 = 30_000_000;
const LIFETIME_V6_US: u64 = 60_000_000;
/// Bytes of a packet's payload.
const PAYLOAD_MAX_V4: u32 = u16::MAX as u32 - ipv4::HEADER_LEN as u32;
const PAYLOAD_MAX_V6: u32 = u16::MAX as u32;

/// ECN codepoints (RFC 3168, 5).
const NOT_ECT: u8 = 0;
const CE: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    src: [u8; 16],
    dst: [u8; 16],
    ident: u32,
    /// Of IPv4; that of IPv6 is the first piece's to say.
    proto: u8,
}

impl Key {
    fn of(ip: &Ip, ident: u32) -> Self {
        Self { src: ip.src, dst: ip.dst, ident, proto: if is_v4(&ip.src) { ip.proto } else { 0 } }
    }
}

/// The first piece's headers.
struct Head {
    eth: Ethernet,
    ip: Ip,
    /// From its IP header on, as it came.
    packet: Vec<u8>,
}

/// A packet of which some pieces are here.
struct Partial {
    head: Option<Head>,
    /// By offset; they do not overlap.
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Bytes of its payload, once the last piece is here.
    len: Option<u32>,
    /// Bytes of payload that are here.
    have: u32,
    /// ECN codepoints that were seen, a bit each.
    ecn: u8,
    /// It has had pieces that overlap: the rest is dropped as well.
    spoiled: bool,
    /// Its place in `by_deadline`; the number is that in `by_age`.
    until: (u64, u64),
}

/// Why a piece, or its packet, comes to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// It cannot be a piece of any packet, or is here already.
    Piece,
    /// No piece of this packet is to be believed.
    Packet,
}

impl Partial {
    /// Takes a piece.
    fn add(&mut self, f: Fragment, payload: &[u8], payload_max: u32) -> Result<(), Refused> {
        let end = f.offset.saturating_add(payload.len() as u32);
        let last = self.pieces.last_key_value().map_or(0, |(at, bytes)| at + bytes.len() as u32);
        let len = if f.more { self.len } else { Some(end) };
        let fits = self.len.is_none_or(|known| Some(known) == len) && len.is_none_or(|len| end <= len && last <= len);
        // RFC 8200 4.5-4.
        if !fits || end > payload_max {
            return Err(Refused::Packet);
        }
        // RFC 8200 4.5-7.
        if self.pieces.get(&f.offset).is_some_and(|here| here == payload) {
            return Err(Refused::Piece);
        }
        let before = self.pieces.range(..=f.offset).next_back().is_some_and(|(at, bytes)| at + bytes.len() as u32 > f.offset);
        let behind = self.pieces.range(f.offset..).next().is_some_and(|(at, _)| *at < end);
        // RFC 8200 4.5-1: overlapping.
        if before || behind || self.pieces.len() >= PIECES_MAX {
            return Err(Refused::Packet);
        }
        self.len = len;
        self.have += payload.len() as u32;
        self.pieces.insert(f.offset, payload.to_vec());
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.len == Some(self.have) && self.head.is_some()
    }

    /// What its pieces cost.
    fn cost(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |h| h.packet.len());
        head + self.have as usize + (1 + self.pieces.len()) * PIECE_COST
    }

    /// The frame, if congestion on its way can be told (RFC 3168, 5.3).
    fn whole(&self) -> Option<Vec<u8>> {
        let head = self.head.as_ref()?;
        let seen = |codepoint: u8| self.ecn & 1 << codepoint != 0;
        // RFC 3168 5.3-2, 5.3-3, 5.3-4, 5.3-5, 5.3-6: one of them was marked, so the whole is; with pieces that cannot be, it is dropped.
        let ecn = match (seen(CE), seen(NOT_ECT)) {
            (true, true) => return None,
            (true, false) => CE,
            (false, _) => head.ip.ecn,
        };
        let len = self.have as usize;
        let mut frame = vec![0; ethernet::HEADER_LEN + ethernet::VLAN_LEN + ipv6::HEADER_LEN];
        let at = fragment::write_whole(&head.eth, &head.ip, ecn, len, &mut frame).ok()?;
        frame.truncate(at);
        frame.reserve_exact(len);
        self.pieces.values().for_each(|bytes| frame.extend_from_slice(bytes));
        Some(frame)
    }
}

pub struct Reassembly {
    partial: HashMap<Key, Partial, Keys>,
    /// By deadline and a number.
    by_deadline: BTreeMap<(u64, u64), Key>,
    /// By number alone: packets of the two versions do not live equally long.
    by_age: BTreeMap<u64, Key>,
    serial: u64,
    cost: usize,
    /// The timer that is armed.
    deadline: Option<u64>,
}

impl Reassembly {
    pub fn new(keys: Keys) -> Self {
        let (by_deadline, by_age) = (BTreeMap::new(), BTreeMap::new());
        Self { partial: HashMap::with_hasher(keys), by_deadline, by_age, serial: 0, cost: 0, deadline: None }
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let gone = self.partial.remove(key)?;
        self.by_deadline.remove(&gone.until);
        self.by_age.remove(&gone.until.1);
        self.cost -= gone.cost();
        Some(gone)
    }

    /// The packet that a piece is of.
    fn entry(&mut self, key: Key, now: u64) -> &mut Partial {
        let Self { serial, cost, by_deadline, by_age, .. } = self;
        self.partial.entry(key).or_insert_with(|| {
            *serial += 1;
            let lifetime = if is_v4(&key.src) { LIFETIME_V4_US } else { LIFETIME_V6_US };
            let until = (now.saturating_add(lifetime), *serial);
            by_deadline.insert(until, key);
            by_age.insert(*serial, key);
            let new = Partial { head: None, pieces: BTreeMap::new(), len: None, have: 0, ecn: 0, spoiled: false, until };
            *cost += new.cost();
            new
        })
    }

    /// Takes a fragment. `Some`: the packet's frame, now that it is whole.
    fn take(&mut self, frame: &[u8], eth: &Ethernet, ip: &Ip, now: u64) -> Result<Option<Vec<u8>>, Refused> {
        let f = Fragment::parse(frame, ip).ok_or(Refused::Piece)?;
        let payload_max = if is_v4(&ip.src) { PAYLOAD_MAX_V4 } else { PAYLOAD_MAX_V6 };
        let payload = ip.payload.of(frame);
        // RFC 8200 4.5-3: all but the last are of whole units.
        if payload.is_empty() || f.more && !payload.len().is_multiple_of(8) {
            return Err(Refused::Piece);
        }
        let key = Key::of(ip, f.ident);
        let p = self.entry(key, now);
        let before = p.cost();
        let taken = if p.spoiled { Err(Refused::Packet) } else { p.add(f, payload, payload_max) };
        match taken {
            Ok(()) => {
                p.ecn |= 1 << ip.ecn;
                if f.offset == 0 {
                    let packet = frame.get(ip.header.range()).unwrap_or_default().to_vec();
                    p.head = Some(Head { eth: *eth, ip: *ip, packet });
                }
            }
            // RFC 8200 4.5-1: also those that are still to come.
            Err(Refused::Packet) => (p.pieces, p.head, p.have, p.spoiled) = (BTreeMap::new(), None, 0, true),
            Err(Refused::Piece) => {}
        }
        let (after, whole) = (p.cost(), p.is_whole());
        self.cost = self.cost - before + after;
        taken?;
        if !whole {
            return Ok(None);
        }
        self.remove(&key).and_then(|p| p.whole()).map(Some).ok_or(Refused::Packet)
    }

    /// Forgets one if there is too much. False: there is not.
    fn drop_excess(&mut self) -> bool {
        let too_much = self.partial.len() > PACKETS_MAX || self.cost > BYTES_MAX;
        let oldest = self.by_age.first_key_value().filter(|_| too_much).map(|(_, key)| *key);
        oldest.is_some_and(|key| self.remove(&key).is_some())
    }

    /// One whose time is over.
    fn expired(&mut self, now: u64) -> Option<Partial> {
        let key = *self.by_deadline.first_key_value().filter(|((at, _), _)| *at <= now)?.1;
        self.remove(&key)
    }
}

impl Engine {
    /// A fragment for us. RFC 1122 3.3.2-1.
    pub(crate) fn reassemble(&mut self, frame: &[u8], parsed: &Frame, ip: &Ip) {
        self.counters.fragments += 1;
        let taken = self.reassembly.take(frame, &parsed.eth, ip, self.now);
        while self.reassembly.drop_excess() {
            self.counters.reassembly_failed += 1;
        }
        self.arm_reassembly();
        match taken {
            Ok(Some(whole)) => self.reassembled(&whole),
            Ok(None) => {}
            Err(_) => self.counters.drop_fragment += 1,
        }
    }

    fn reassembled(&mut self, frame: &[u8]) {
        let meta = FrameMeta::default();
        match parse_frame(frame) {
            // Neighbour discovery is not for fragments (RFC 6980, 5): it is ignored this way. Nor are fragments of fragments.
            Ok(whole) => match &whole.payload {
                Payload::Ipv4(packet) | Payload::Ipv6(packet) if !packet.ip.fragment => {
                    self.counters.reassembled += 1;
                    self.ip(frame, &whole, packet, meta, true);
                }
                _ => self.counters.drop_fragment += 1,
            },
            Err(_) => self.counters.drop_malformed += 1,
        }
    }

    fn arm_reassembly(&mut self) {
        let next = self.reassembly.by_deadline.first_key_value().map(|((at, _), _)| *at);
        if next != self.reassembly.deadline {
            self.timers.set(TimerId::Reassembly, &mut self.reassembly.deadline, next);
        }
    }

    pub(crate) fn reassembly_timer(&mut self) {
        self.reassembly.deadline = None;
        while let Some(late) = self.reassembly.expired(self.now) {
            self.counters.reassembly_failed += 1;
            // RFC 1122 3.3.2-2; RFC 8200 4.5-2: who has sent it is told, if its beginning is here.
            if let Some(head) = &late.head
                && !matches!(head.ip.proto, ip_proto::ICMP | ip_proto::ICMPV6)
            {
                let payload = late.pieces.get(&0).map(Vec::as_slice).unwrap_or_default();
                let packet = [&head.packet, payload].concat();
                self.send_icmp_error(head.eth.src, &head.ip, &packet, reassembly_time_exceeded);
            }
        }
        self.arm_reassembly();
    }
}
