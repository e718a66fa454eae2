//! From a script's numbers to the wire's and back, per connection.
//!
//! ```text
//!   the stack's sequence numbers: script s  <─► wire  iss + s        iss: of the SYN that it sent, 0 before
//!   the peer's:                   script s  <─► wire  peer_isn + s
//!   the stack's timestamps:       script t  <─► wire  base + t       base: from the first that a script expects
//!   the peer's timestamps:        as they are
//! ```

use super::ast::{ACK, Conn, Opt, RST, SYN, Segment};
use std::collections::BTreeMap;

/// Where the stack listens, and where the peer listens.
pub const LISTEN_PORT: u16 = 8080;
/// The peer's port of a connection that it opens, less its number.
const PEER_PORTS: u16 = 40_000;

/// One connection's numbers.
#[derive(Clone, Debug)]
pub struct Space {
    pub local_port: u16,
    pub peer_port: u16,
    peer_isn: u32,
    iss: u32,
    /// What was added to the initial sequence number of the incarnation before.
    isn_advance: Option<u32>,
    /// Something else than a SYN was sent from `iss` on: the next SYN begins a new incarnation.
    used: bool,
    /// Wire's less script's.
    ts_base: Option<u32>,
    /// Shift that the stack's SYN and the peer's SYN offered.
    scale: Option<u8>,
    peer_scales: bool,
    /// Right edge of the widest window that the stack has offered (wire).
    edge: Option<u32>,
}

impl Space {
    /// The stack's sequence number on the wire.
    pub fn seq_to_wire(&self, seq: u32) -> u32 {
        self.iss.wrapping_add(seq)
    }

    pub fn peer_seq_to_wire(&self, seq: u32) -> u32 {
        self.peer_isn.wrapping_add(seq)
    }

    /// Notes what the peer's SYN says, and that its RST may end what the stack began.
    pub fn peer_sends(&mut self, segment: &Segment) {
        self.used |= segment.flags.has(RST);
        if segment.flags.has(SYN) {
            self.peer_scales = segment.options.iter().flatten().any(|o| matches!(o, Opt::WindowScale(_)));
        }
    }

    /// Options of a segment from the peer, on the wire.
    pub fn options_to_wire(&self, options: &[Opt]) -> Vec<Opt> {
        let to_wire = |option: &Opt| match option {
            Opt::Sack(blocks) => Opt::Sack(blocks.iter().map(|&(l, r)| (self.seq_to_wire(l), self.seq_to_wire(r))).collect()),
            Opt::Timestamps { val, ecr: Some(ecr) } => {
                Opt::Timestamps { val: *val, ecr: Some(ecr.wrapping_add(self.ts_base.unwrap_or(0))) }
            }
            other => other.clone(),
        };
        options.iter().map(to_wire).collect()
    }

    /// Puts what the stack has sent into the script's numbers. `Err`: a window that breaks the rules.
    pub fn take_sent(&mut self, wire: &Segment) -> Result<Segment, String> {
        if wire.flags.has(SYN) {
            // A SYN that is repeated must have the same number: else it shows as a wrong one.
            if self.used || self.scale.is_none() {
                self.isn_advance = self.scale.map(|_| wire.seq.wrapping_sub(self.iss));
                (self.iss, self.edge, self.used) = (wire.seq, None, false);
            }
            self.scale = wire.options.iter().flatten().find_map(|o| if let Opt::WindowScale(s) = o { Some(*s) } else { None }).or(Some(0));
        } else {
            self.used = true;
        }
        self.check_window(wire)?;
        // A RST for a segment without ACK has the number 0 itself (RFC 9293, 3.10.7.1).
        let seq = if wire.flags.has(RST) && wire.seq == 0 { 0 } else { wire.seq.wrapping_sub(self.iss) };
        let sack = |&(l, r): &(u32, u32)| (l.wrapping_sub(self.peer_isn), r.wrapping_sub(self.peer_isn));
        let option = |o: &Opt| match o {
            Opt::Sack(blocks) => Opt::Sack(blocks.iter().map(sack).collect()),
            other => other.clone(),
        };
        Ok(Segment {
            seq,
            ack: wire.ack.map(|ack| ack.wrapping_sub(self.peer_isn)),
            options: wire.options.as_ref().map(|all| all.iter().map(option).collect()),
            ..wire.clone()
        })
    }

    /// The right edge of the window does not move left (RFC 9293, 3.8.6), but for what scaling rounds off.
    fn check_window(&mut self, wire: &Segment) -> Result<(), String> {
        let (Some(ack), Some(window)) = (wire.ack, wire.window) else { return Ok(()) };
        if wire.flags.has(RST) || !wire.flags.has(ACK) {
            return Ok(());
        }
        let scaled = !wire.flags.has(SYN) && self.peer_scales;
        let shift = if scaled { self.scale.unwrap_or(0).min(14) } else { 0 };
        let edge = ack.wrapping_add(u32::from(window) << shift);
        let before = self.edge.unwrap_or(edge);
        let moved = edge.wrapping_sub(before) as i32;
        if moved <= -(1 << shift) {
            return Err(format!("its window is taken back by {} bytes", -moved));
        }
        self.edge = Some(if moved > 0 { edge } else { before });
        Ok(())
    }

    /// By how much the initial sequence number is ahead of the one before, if there was one.
    pub fn isn_advance(&self) -> Option<u32> {
        self.isn_advance
    }

    /// A timestamp of the stack's as scripts count; the first one that a script expects says where that begins.
    pub fn ts_of(&mut self, wire: u32, expected: u32) -> u32 {
        let base = *self.ts_base.get_or_insert(wire.wrapping_sub(expected));
        wire.wrapping_sub(base)
    }

    /// The same for the trace.
    pub fn ts_shown(&self, wire: u32) -> u32 {
        wire.wrapping_sub(self.ts_base.unwrap_or(0))
    }
}

/// All connections of a script.
#[derive(Debug)]
pub struct Spaces {
    peer_isn: u32,
    by_conn: BTreeMap<Conn, Space>,
}

impl Spaces {
    pub fn new(peer_isn: u32) -> Self {
        Self { peer_isn, by_conn: BTreeMap::new() }
    }

    /// A connection's numbers; one that the stack has not opened is the peer's to open.
    pub fn get(&mut self, conn: Conn) -> &mut Space {
        let passive = Space {
            local_port: LISTEN_PORT,
            peer_port: PEER_PORTS + u16::from(conn),
            peer_isn: self.peer_isn,
            iss: 0,
            isn_advance: None,
            used: false,
            ts_base: None,
            scale: None,
            peer_scales: false,
            edge: None,
        };
        self.by_conn.entry(conn).or_insert(passive)
    }

    /// The stack opens a connection from this port.
    pub fn opened(&mut self, conn: Conn, local_port: u16) {
        let space = self.get(conn);
        (space.local_port, space.peer_port) = (local_port, LISTEN_PORT);
    }

    pub fn find(&self, local_port: u16, peer_port: u16) -> Option<Conn> {
        self.by_conn.iter().find(|(_, s)| (s.local_port, s.peer_port) == (local_port, peer_port)).map(|(conn, _)| *conn)
    }
}
