//! ICMP: echo, errors about our connections, errors about what we do not serve (RFC 792, RFC 1122, RFC 5927).

use crate::{Action, Engine, Errno, conn::Phase, neighbours::Mac};
use toe_abi::flow::{FlowKey, v4_mapped};
use toe_wire::{
    Icmp,
    icmp::{Envelope, Quoted, echo_reply, icmp_type, port_unreachable},
    ip_proto,
    ipv4::Ip,
};

/// Ethernet, IPv4 and ICMP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Bytes of a refused datagram that are quoted back, at most (RFC 1812, 4.3.2.3, asks for no more than fits 576).
const QUOTE_MAX: usize = 128;

mod code {
    pub const NET: u8 = 0;
    pub const PROTOCOL: u8 = 2;
    pub const PORT: u8 = 3;
    pub const FRAG_NEEDED: u8 = 4;
    pub const NET_UNKNOWN: u8 = 6;
    pub const NET_PROHIBITED: u8 = 9;
    pub const NET_TOS: u8 = 11;
}

impl Engine {
    pub(crate) fn icmp(&mut self, frame: &[u8], mac: Mac, ip: &Ip, source: [u8; 4]) {
        let Some(message) = Icmp::parse(ip.payload.of(frame)) else {
            self.counters.drop_malformed += 1;
            return;
        };
        match message {
            Icmp::EchoRequest { ident, seq, data } => self.echo(mac, source, ident, seq, data),
            Icmp::Error { kind, code, mtu, quoted } => self.icmp_error(kind, code, mtu.unwrap_or(0), &quoted),
            // RFC 9293 MUST-55; RFC 5927 6.2-1.
            Icmp::EchoReply { .. } | Icmp::Other { .. } => self.counters.icmp_ignored += 1,
        }
    }

    /// RFC 1122, 3.2.2.6. What would not fit into one packet is not answered: we do not fragment.
    /// RFC 1122 3.2.2.6-1, 3.2.2.6-2.
    fn echo(&mut self, mac: Mac, source: [u8; 4], ident: u16, seq: u16, data: &[u8]) {
        let fits = data.len() + 28 <= usize::from(self.config.mtu);
        if !fits || !self.limits.echo.take(self.now) {
            self.counters.icmp_limited += 1;
            return;
        }
        let mut out = vec![0; HEADERS + data.len()];
        if let Ok(len) = echo_reply(&self.envelope(mac, source), ident, seq, data, &mut out) {
            out.truncate(len);
            self.counters.icmp_echoes += 1;
            self.transmit(out);
        }
    }

    fn envelope(&self, mac: Mac, to: [u8; 4]) -> Envelope {
        Envelope {
            dst_mac: mac,
            src_mac: self.config.mac,
            vlan: None,
            src: v4_mapped(self.config.ip),
            dst: v4_mapped(to),
            ttl: self.config.ttl,
        }
    }

    /// A datagram that nobody serves: RFC 1122, 3.2.2.1 and 4.1.3.1.
    pub(crate) fn other_protocol(&mut self, frame: &[u8], mac: Mac, ip: &Ip, source: [u8; 4], proto: u8) {
        self.counters.drop_protocol += 1;
        if proto != ip_proto::UDP {
            return;
        }
        if !self.limits.unreachable.take(self.now) {
            self.counters.icmp_limited += 1;
            return;
        }
        let packet = frame.get(ip.header.start as usize..ip.payload.end as usize).unwrap_or_default();
        let quoted = packet.get(..QUOTE_MAX).unwrap_or(packet);
        let mut out = vec![0; HEADERS + quoted.len()];
        if let Ok(len) = port_unreachable(&self.envelope(mac, source), quoted, &mut out) {
            out.truncate(len);
            self.counters.icmp_errors_sent += 1;
            self.transmit(out);
        }
    }

    /// An error about a segment of ours.
    /// RFC 1122 3.2.2-1.
    fn icmp_error(&mut self, kind: u8, code: u8, mtu: u16, quoted: &Quoted) {
        let key = FlowKey { local_ip: quoted.src, remote_ip: quoted.dst, local_port: quoted.src_port, remote_port: quoted.dst_port };
        // RFC 9293 MUST-54.
        let Some(id) = self.conns.by_key(&key) else {
            self.counters.icmp_ignored += 1;
            return;
        };
        let Some(conn) = self.conns.get(id) else { return };
        let hard = kind == icmp_type::DEST_UNREACHABLE && matches!(code, code::PROTOCOL | code::PORT);
        let too_big = kind == icmp_type::DEST_UNREACHABLE && code == code::FRAG_NEEDED;
        match &conn.phase {
            Phase::Established(e) => {
                // Whether its sequence number is in flight is for the flow to say (RFC 5927, 4.1).
                let flow = e.flow;
                self.counters.icmp_errors_received += 1;
                self.actions.push_back(Action::IcmpError { flow, kind: u16::from_be_bytes([kind, code]), mtu, seq: quoted.seq.0 });
            }
            // A SYN is never too big: forged.
            _ if too_big => self.counters.icmp_ignored += 1,
            // RFC 5927, 4.1: only for the SYN that is out. RFC 5461: an opening connection may fail at once, as in Linux.
            // RFC 5927 4.1-1.
            Phase::SynSent(h) if quoted.seq == h.iss => {
                self.counters.icmp_errors_received += 1;
                self.abandon(id, errno_of(kind, code));
            }
            Phase::SynReceived(h) if quoted.seq == h.iss && hard => {
                self.counters.icmp_errors_received += 1;
                self.abandon(id, errno_of(kind, code));
            }
            _ => self.counters.icmp_ignored += 1,
        }
    }
}

fn errno_of(kind: u8, code: u8) -> Errno {
    match (kind, code) {
        (icmp_type::DEST_UNREACHABLE, code::PORT) => Errno::ECONNREFUSED,
        (icmp_type::DEST_UNREACHABLE, code::PROTOCOL) => Errno::ENOPROTOOPT,
        (icmp_type::DEST_UNREACHABLE, code::NET | code::NET_UNKNOWN | code::NET_PROHIBITED | code::NET_TOS) => Errno::ENETUNREACH,
        _ => Errno::EHOSTUNREACH,
    }
}
