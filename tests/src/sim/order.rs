//! What a perfect wire must show: each flow's segments leave in order, none of them twice, and no ACK goes back.

use std::collections::HashMap;
use toe_wire::{SeqNum, TcpFlags, parse_frame};

/// One direction of a connection: addresses and ports of sender and receiver.
type Direction = ([u8; 16], u16, [u8; 16], u16);

/// What has been sent so far: the sequence number that comes next, and the last ACK.
struct Sent {
    next: SeqNum,
    ack: Option<SeqNum>,
}

/// Watches frames as they leave.
pub struct InOrder {
    sent: HashMap<Direction, Sent>,
    may_resend: Option<usize>,
}

impl InOrder {
    /// `may_resend`: the end that may have a reason to.
    pub fn new(may_resend: Option<usize>) -> Self {
        Self { sent: HashMap::new(), may_resend }
    }

    /// Panics if the frame, sent by the end `from`, breaks the order.
    pub fn watch(&mut self, from: usize, bytes: &[u8]) {
        let frame = parse_frame(bytes).expect("a frame that is whole");
        let Some((ip, tcp)) = frame.tcp().filter(|(_, tcp)| !tcp.flags.contains(TcpFlags::RST)) else { return };
        let direction = (ip.src, tcp.src_port, ip.dst, tcp.dst_port);
        let sent = self.sent.entry(direction).or_insert(Sent { next: tcp.seq, ack: None });
        let ports = (tcp.src_port, tcp.dst_port);
        let again = self.may_resend == Some(from) && tcp.seq.lt(sent.next);
        assert!(tcp.seq == sent.next || again, "{ports:?}: {:?} is sent, but {:?} is next", tcp.seq, sent.next);
        if tcp.flags.contains(TcpFlags::ACK) {
            assert!(sent.ack.is_none_or(|before| tcp.ack.ge(before)), "{ports:?}: ACK {:?} after {:?}", tcp.ack, sent.ack);
            sent.ack = Some(tcp.ack);
        }
        let ends = [TcpFlags::SYN, TcpFlags::FIN].iter().filter(|&&flag| tcp.flags.contains(flag)).count() as u32;
        sent.next = sent.next.max(tcp.seq.add(tcp.payload.len() + ends));
    }
}
