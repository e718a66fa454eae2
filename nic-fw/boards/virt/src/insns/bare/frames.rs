//! The frames of the one peer, all made before anything is counted.
//!
//! ```text
//!   data:  seq = IRS+1, +MSS, ...   ack = ISS+1               the card has sent nothing yet; without PSH, and once more with
//!   acks:  seq = behind all data    ack = ISS+1+2·MSS, ...    each for two segments of ours
//! ```

use alloc::boxed::Box;
use alloc::vec;
use toe_abi::flow::{FlowKey, v4_mapped};
use toe_wire::{Checksum, SeqNum, TcpFlags, TcpOptions, Timestamps, TooLong, TxHeader};

/// Payload bytes of a full segment: 1500 less IPv4, TCP and timestamps.
pub const MSS: u32 = 1448;
/// Initial sequence numbers of the card and of the peer.
pub const ISS: u32 = 0x1000_0000;
pub const IRS: u32 = 0x2000_0000;
/// Segments of ours that an ACK is for.
pub const ACKED: u32 = 2;
/// Time of the whole, milliseconds: it stands still, so no timer is part of a count.
pub const NOW_MS: u32 = 1000;

/// Bytes that headers take at most.
const HEADERS_MAX: usize = 128;

pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub fn key() -> FlowKey {
    FlowKey { local_ip: v4_mapped([10, 0, 0, 1]), remote_ip: v4_mapped([10, 0, 0, 2]), local_port: 80, remote_port: 40_000 }
}

/// Data segment number `i`.
pub fn data(i: u32, flags: TcpFlags) -> Result<Box<[u8]>, TooLong> {
    segment(IRS.wrapping_add(1).wrapping_add(i * MSS), ISS.wrapping_add(1), flags, MSS)
}

/// ACK number `i` behind `data` segments.
pub fn ack(i: u32, data: u32) -> Result<Box<[u8]>, TooLong> {
    segment(IRS.wrapping_add(1).wrapping_add(data * MSS), ISS.wrapping_add(1).wrapping_add((i + 1) * ACKED * MSS), TcpFlags::empty(), 0)
}

fn segment(seq: u32, ack: u32, flags: TcpFlags, len: u32) -> Result<Box<[u8]>, TooLong> {
    let key = key();
    let header = TxHeader {
        dst_mac: CARD_MAC,
        src_mac: PEER_MAC,
        vlan: None,
        src_ip: key.remote_ip,
        dst_ip: key.local_ip,
        tos: 0,
        ttl: 64,
        ident: 0,
        src_port: key.remote_port,
        dst_port: key.local_port,
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags: flags | TcpFlags::ACK,
        window: u16::MAX,
        urgent: 0,
        options: TcpOptions { timestamps: Some(Timestamps { val: NOW_MS, ecr: NOW_MS }), ..TcpOptions::default() },
    };
    let mut bytes = vec![0; HEADERS_MAX + len as usize];
    // The port says that the checksum is good, as one that checks by itself.
    let built = header.write(&mut bytes, len, Checksum::Partial)?;
    bytes.truncate(usize::from(built.len) + len as usize);
    Ok(bytes.into_boxed_slice())
}
