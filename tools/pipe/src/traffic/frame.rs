//! Frames between peers and card: made once with all headers, then patched where segments differ, and read at fixed places.
//!
//! All have Ethernet (14), IPv4 (20) and TCP with timestamps (32), in this order.

use toe_abi::flow::v4_mapped;
use toe_wire::{Checksum, SeqNum, TcpFlags, TcpOptions, Timestamps, TxHeader};

use super::MSS;
use super::peer::FIRST_PORT;
use crate::board::frames::BUFFER_LEN;

pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CARD_IP: [u8; 4] = [10, 0, 0, 1];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];

const IP: usize = 14;
const IP_LEN: usize = 16;
const IP_SUM: usize = 24;
const TCP: usize = 34;
const SRC_PORT: usize = TCP;
const DST_PORT: usize = TCP + 2;
const SEQ: usize = TCP + 4;
const ACK: usize = TCP + 8;
const WINDOW: usize = TCP + 14;
/// Behind two NOPs, kind and length.
const STAMP: usize = TCP + 24;
const ECHO: usize = TCP + 28;
/// Where the payload begins.
pub const PAYLOAD: usize = TCP + 32;

/// What differs from segment to segment.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// The peer's and the card's.
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    pub stamp: u32,
    pub echo: u32,
}

/// A full segment of a peer, its payload zeroes.
pub fn template() -> Vec<u8> {
    let header = TxHeader {
        dst_mac: CARD_MAC,
        src_mac: PEER_MAC,
        vlan: None,
        src_ip: v4_mapped(PEER_IP),
        dst_ip: v4_mapped(CARD_IP),
        tos: 0,
        ttl: 64,
        ident: 0,
        src_port: 0,
        dst_port: 0,
        seq: SeqNum(0),
        ack: SeqNum(0),
        flags: TcpFlags::ACK,
        window: u16::MAX,
        urgent: 0,
        options: TcpOptions { timestamps: Some(Timestamps::default()), ..TcpOptions::default() },
    };
    let mut bytes = vec![0; PAYLOAD + MSS as usize];
    let built = header.write(&mut bytes, MSS, Checksum::Partial).map(|built| usize::from(built.len));
    debug_assert_eq!(built, Ok(PAYLOAD));
    bytes
}

/// Sum of the words of a template's IP header, but for the length.
pub fn ip_sum(template: &[u8]) -> u32 {
    let words = template[IP..TCP].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let fixed = |(i, _): &(usize, u32)| ![IP_LEN, IP_SUM].contains(&(IP + 2 * i));
    words.enumerate().filter(fixed).map(|(_, word)| word).sum()
}

/// Makes a buffer that began as the template a segment; returns the frame's length. The TCP checksum is left out.
pub fn patch(bytes: &mut [u8; BUFFER_LEN], ip_sum: u32, fields: &Fields) -> usize {
    let total = (PAYLOAD - IP) as u32 + fields.len;
    let sum = ip_sum + total;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    put(bytes, IP_LEN, (total as u16).to_be_bytes());
    put(bytes, IP_SUM, sum.to_be_bytes());
    put(bytes, SRC_PORT, fields.ports.0.to_be_bytes());
    put(bytes, DST_PORT, fields.ports.1.to_be_bytes());
    put(bytes, SEQ, fields.seq.to_be_bytes());
    put(bytes, ACK, fields.ack.to_be_bytes());
    put(bytes, STAMP, fields.stamp.to_be_bytes());
    put(bytes, ECHO, fields.echo.to_be_bytes());
    PAYLOAD + fields.len as usize
}

fn put<const N: usize>(bytes: &mut [u8; BUFFER_LEN], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// What a peer reads of the card's headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub connection: u16,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub stamp: u32,
}

impl Header {
    /// `None`: not the headers of a segment to a peer.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<PAYLOAD>()?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let connection = half(DST_PORT).checked_sub(FIRST_PORT)?;
        Some(Self { connection, seq: word(SEQ), ack: word(ACK), window: half(WINDOW), stamp: word(STAMP) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_wire::parse_frame;

    #[test]
    fn a_patched_frame_is_what_it_says() {
        let start = template();
        let sum = ip_sum(&start);
        let mut bytes = [0; BUFFER_LEN];
        bytes[..start.len()].copy_from_slice(&start);
        for len in [0, 1, 64, MSS] {
            let fields = Fields { ports: (1030, 80), seq: u32::MAX, ack: 7, len, stamp: 9, echo: 1 << 31 };
            let end = patch(&mut bytes, sum, &fields);
            // The IP checksum is checked on the way.
            let frame = parse_frame(&bytes[..end]).unwrap();
            let (_, tcp) = frame.tcp().unwrap();
            assert_eq!((tcp.src_port, tcp.dst_port, tcp.seq.0, tcp.ack.0), (1030, 80, u32::MAX, 7));
            assert_eq!((tcp.payload.len(), tcp.timestamps), (len, Some(Timestamps { val: 9, ecr: 1 << 31 })));
        }
    }

    #[test]
    fn headers_are_read_where_they_are_written() {
        let mut bytes = [0; BUFFER_LEN];
        bytes[..PAYLOAD].copy_from_slice(&template()[..PAYLOAD]);
        patch(&mut bytes, 0, &Fields { ports: (1, FIRST_PORT + 5), seq: 2, ack: 3, len: 0, stamp: 4, echo: 5 });
        assert_eq!(Header::read(&bytes), Some(Header { connection: 5, seq: 2, ack: 3, window: u16::MAX, stamp: 4 }));
        assert_eq!(Header::read(&bytes[..PAYLOAD - 1]), None);
        patch(&mut bytes, 0, &Fields { ports: (1, 80), seq: 2, ack: 3, len: 0, stamp: 4, echo: 5 });
        assert_eq!(Header::read(&bytes), None);
    }
}
