//! Complete frames for [`Action::Transmit`](crate::Action::Transmit).

use crate::neighbours::Mac;
use toe_abi::flow::FlowKey;
use toe_wire::{Arp, Checksum, SeqNum, Sum, TcpFlags, TcpOptions, TxHeader, header::HEADER_MAX};

/// What `write` puts into `max` bytes. They are enough; an empty frame, which is not sent, would be the answer to a mistake.
pub fn frame<E>(max: usize, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
    let mut frame = vec![0; max];
    let len = write(&mut frame).unwrap_or(0);
    frame.truncate(len);
    frame
}

/// A TCP segment without payload.
#[derive(Clone, Copy)]
pub struct Outgoing {
    pub to: Mac,
    pub from: Mac,
    pub vlan: Option<u16>,
    pub key: FlowKey,
    /// Without ECN bits.
    pub tos: u8,
    pub ttl: u8,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    pub window: u16,
    pub options: TcpOptions,
}

pub fn segment(s: &Outgoing) -> Vec<u8> {
    let header = TxHeader {
        dst_mac: s.to,
        src_mac: s.from,
        vlan: s.vlan,
        src_ip: s.key.local_ip,
        dst_ip: s.key.remote_ip,
        // RFC 3168, 6.1.1: SYN, SYN-ACK and pure ACKs are not ECN-capable.
        // RFC 3168 6.1.1-9.
        tos: s.tos & !3,
        ttl: s.ttl,
        ident: 0,
        src_port: s.key.local_port,
        dst_port: s.key.remote_port,
        seq: s.seq,
        ack: s.ack,
        flags: s.flags,
        window: s.window,
        urgent: 0,
        options: s.options,
    };
    frame(HEADER_MAX, |out| header.write(out, 0, Checksum::Full(Sum::new())).map(|built| built.len.into()))
}

pub fn arp(to: Mac, vlan: Option<u16>, packet: &Arp) -> Vec<u8> {
    frame(64, |out| packet.write(&to, vlan, out))
}
