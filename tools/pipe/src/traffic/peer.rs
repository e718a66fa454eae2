//! A peer: TCP as far as a wire without loss needs it. Sends data in order within the card's window, and acknowledges what it gets.

use super::{Load, MSS, Traffic};

/// Port of the first peer.
pub const FIRST_PORT: u16 = 1024;

/// What the card has said, as positions in the two streams, mod 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The peer may send up to here.
    pub edge: u32,
    /// The peer has got the card's stream up to here.
    pub received: u32,
}

/// A segment to the card, as positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub pos: u32,
    pub len: u32,
    pub ack: u32,
}

pub struct Peer {
    ports: (u16, u16),
    /// Sent up to here.
    sent: u32,
    /// Acknowledged up to here.
    told: u32,
}

impl Peer {
    /// Peer number `index` of the card's port `card_port`.
    pub const fn new(index: u16, card_port: u16) -> Self {
        Self { ports: (FIRST_PORT + index, card_port), sent: 0, told: 0 }
    }

    /// Its port, and the card's.
    pub const fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// What it would send now. `rest`: it also acknowledges less than two segments.
    pub fn plan(&self, traffic: &Traffic, seen: &Seen, rest: bool) -> Option<Segment> {
        match traffic.load {
            Load::Receive => self.data(MSS, seen),
            Load::Rpc => {
                let outstanding = self.sent.wrapping_sub(seen.received);
                if outstanding < traffic.outstanding() * traffic.rpc_bytes { self.data(traffic.rpc_bytes, seen) } else { None }
            }
            Load::Send => {
                let owed = seen.received.wrapping_sub(self.told);
                let step = if owed >= 2 * MSS { 2 * MSS } else { owed };
                (step == 2 * MSS || rest && step > 0).then(|| Segment { pos: self.sent, len: 0, ack: self.told.wrapping_add(step) })
            }
            Load::Acks => Some(Segment { pos: self.sent, len: 0, ack: self.told }),
            Load::Descriptors => None,
        }
    }

    fn data(&self, len: u32, seen: &Seen) -> Option<Segment> {
        let room = seen.edge.wrapping_sub(self.sent) as i32;
        (room >= len as i32).then_some(Segment { pos: self.sent, len, ack: seen.received })
    }

    /// What it sends now.
    pub fn next(&mut self, traffic: &Traffic, seen: &Seen, rest: bool) -> Option<Segment> {
        let segment = self.plan(traffic, seen, rest)?;
        self.sent = segment.pos.wrapping_add(segment.len);
        self.told = segment.ack;
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn traffic(load: Load) -> Traffic {
        Traffic { load, connections: 2, rpc_bytes: 100, checked: false }
    }

    fn all(peer: &mut Peer, load: Load, seen: Seen, rest: bool) -> Vec<Segment> {
        std::iter::from_fn(|| peer.next(&traffic(load), &seen, rest)).take(100).collect()
    }

    #[test]
    fn data_fills_the_window_with_whole_segments() {
        let mut peer = Peer::new(0, 80);
        let sent = all(&mut peer, Load::Receive, Seen { edge: 3 * MSS - 1, received: 7 }, false);
        assert_eq!(sent, [Segment { pos: 0, len: MSS, ack: 7 }, Segment { pos: MSS, len: MSS, ack: 7 }]);
        assert_eq!(all(&mut peer, Load::Receive, Seen { edge: 2 * MSS - 1, received: 7 }, false), [], "a window that shrinks");
        assert_eq!(all(&mut peer, Load::Receive, Seen { edge: 3 * MSS, received: 7 }, false).len(), 1);
    }

    #[test]
    fn every_second_segment_is_acknowledged_and_the_rest_when_it_is_late() {
        let mut peer = Peer::new(0, 80);
        let seen = Seen { edge: 0, received: 5 * MSS };
        let acks = |segments: Vec<Segment>| segments.iter().map(|s| s.ack / MSS).collect::<Vec<_>>();
        assert_eq!(acks(all(&mut peer, Load::Send, seen, false)), [2, 4]);
        assert_eq!(acks(all(&mut peer, Load::Send, seen, true)), [5]);
        assert_eq!(acks(all(&mut peer, Load::Send, seen, true)), []);
    }

    #[test]
    fn requests_wait_for_answers() {
        let mut peer = Peer::new(0, 80);
        let asked = |peer: &mut Peer, received| all(peer, Load::Rpc, Seen { edge: 1 << 20, received }, false).len();
        assert_eq!(asked(&mut peer, 0), 4);
        assert_eq!(asked(&mut peer, 99), 1, "part of an answer counts for the bytes it has");
        assert_eq!(asked(&mut peer, 300), 2);
    }

    #[test]
    fn positions_wrap() {
        let mut peer = Peer { ports: (1, 2), sent: u32::MAX - 10, told: u32::MAX - 3 };
        let sent = all(&mut peer, Load::Receive, Seen { edge: MSS, received: 4 }, false);
        assert_eq!(sent, [Segment { pos: u32::MAX - 10, len: MSS, ack: 4 }]);
        assert_eq!(peer.sent, MSS - 11);
    }
}
