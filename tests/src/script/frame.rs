//! Segments of the peer and of the stack, between a script's words and a frame. Made and read by etherparse, so that a mistake in `toe-wire`
//! cannot hide.

use super::ast::{ACK, CWR, ECE, FIN, Flags, IcmpError, IpFields, IpVersion, Marks, PSH, RST, SYN, Segment, URG};
use super::space::Space;
use super::{ip, option};
use crate::sim::stream::byte;
use etherparse::TcpHeader;

/// Directions of [`byte`].
pub const FROM_US: u8 = 0;
pub const FROM_PEER: u8 = 1;

/// Position in the stream of a segment's first byte, by the script's numbers.
fn position(segment: &Segment) -> u64 {
    segment.seq.wrapping_sub(u32::from(!segment.flags.has(SYN))).into()
}

/// A segment of the peer's.
pub fn segment(version: IpVersion, space: &Space, marks: &Marks, s: &Segment) -> Vec<u8> {
    let mut tcp = header(space, s).to_bytes().to_vec();
    if let Some(offset) = marks.data_offset {
        tcp[12] = offset << 4 | tcp[12] & 15;
    }
    tcp[12] |= marks.reserved;
    let first = position(s);
    tcp.extend((0..u64::from(s.len)).map(|i| byte(FROM_PEER, first + i)));
    version.tcp(marks, tcp)
}

fn header(space: &Space, s: &Segment) -> TcpHeader {
    let mut tcp = TcpHeader::new(space.peer_port, space.local_port, space.peer_seq_to_wire(s.seq), s.window.unwrap_or_default());
    tcp.acknowledgment_number = s.ack.map_or(0, |ack| space.seq_to_wire(ack));
    tcp.urgent_pointer = s.urgent.unwrap_or_default();
    let f = s.flags;
    (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (f.has(FIN), f.has(SYN), f.has(RST), f.has(PSH));
    (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (f.has(ACK), f.has(URG), f.has(ECE), f.has(CWR));
    let options = option::encode(&space.options_to_wire(s.options.as_deref().unwrap_or_default()));
    tcp.set_options_raw(&options).expect("the parser knows that there are at most 40 bytes");
    tcp
}

/// An ICMP error about a segment of the stack's.
pub fn icmp(version: IpVersion, space: &Space, e: &IcmpError) -> Vec<u8> {
    let ports = [space.local_port.to_be_bytes(), space.peer_port.to_be_bytes()].concat();
    version.icmp(e, &[ports.as_slice(), &space.seq_to_wire(e.seq).to_be_bytes()].concat())
}

/// A segment that the stack has sent: with the wire's numbers.
#[derive(Debug)]
pub struct Sent {
    pub local_port: u16,
    pub peer_port: u16,
    pub ip: IpFields,
    pub segment: Segment,
    pub payload: Vec<u8>,
}

/// Reads a frame of the stack's; see [`ip::read`].
pub fn read(version: IpVersion, frame: &[u8], csum_ok: bool) -> Result<Sent, String> {
    let ip::SentTcp { ip, tcp, payload } = ip::read(version, frame, csum_ok)?;
    let bits =
        [(tcp.fin, FIN), (tcp.syn, SYN), (tcp.rst, RST), (tcp.psh, PSH), (tcp.ack, ACK), (tcp.urg, URG), (tcp.ece, ECE), (tcp.cwr, CWR)];
    let flags = Flags(bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit));
    let segment = Segment {
        flags,
        seq: tcp.sequence_number,
        len: payload.len() as u32,
        ack: tcp.ack.then_some(tcp.acknowledgment_number),
        window: Some(tcp.window_size),
        urgent: tcp.urg.then_some(tcp.urgent_pointer),
        options: Some(option::decode(tcp.options.as_slice())),
    };
    Ok(Sent { local_port: tcp.source_port, peer_port: tcp.destination_port, ip, segment, payload: payload.to_vec() })
}

/// Whether payload is what the application has written there. `segment`: in the script's numbers.
pub fn payload_ok(segment: &Segment, payload: &[u8]) -> bool {
    let first = position(segment);
    payload.iter().zip(first..).all(|(&b, at)| b == byte(FROM_US, at))
}
