//! Complete frames for [`Action::Transmit`](crate::Action::Transmit).

use crate::neighbours::Mac;
use toe_abi::flow::FlowKey;
use toe_wire::{Arp, Checksum, SeqNum, Sum, TcpFlags, TcpOptions, TxHeader, header::HEADER_MAX};

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
    let mut frame = vec![0; HEADER_MAX];
    // HEADER_MAX is enough for any header; an empty frame would be the answer to a mistake here.
    let len = header.write(&mut frame, 0, Checksum::Full(Sum::new())).map_or(0, |built| usize::from(built.len));
    frame.truncate(len);
    frame
}

pub fn arp(to: Mac, vlan: Option<u16>, packet: &Arp) -> Vec<u8> {
    let mut frame = vec![0; 64];
    let len = packet.write(&to, vlan, &mut frame).unwrap_or(0);
    frame.truncate(len);
    frame
}
