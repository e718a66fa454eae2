//! ICMP of both versions: echo, errors about our connections, errors about what we do not serve (RFC 792, RFC 1122, RFC 4443, RFC 5927).

use crate::{Action, Engine, Errno, addr::is_v4, build, conn::Phase, neighbours::Mac};
use toe_abi::flow::FlowKey;
use toe_wire::{
    Icmp, Icmpv6, TooLong, ethernet,
    icmp::{CODE_FRAG_NEEDED, Envelope, Quoted, echo_reply, icmp_type, port_unreachable},
    icmpv6::icmpv6_type,
    ip_proto,
    ipv4::{self, Ip},
    ipv6,
};

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// Bytes of a refused datagram that are quoted back, at most (RFC 1812, 4.3.2.3, asks for no more than fits 576).
const QUOTE_MAX_V4: usize = 128;
/// The same over IPv6 (RFC 4443, 2.4 (c): as much as fits 1280).
const QUOTE_MAX_V6: usize = ipv6::MTU_MIN as usize - ipv6::HEADER_LEN - ICMP_HEADER;

mod code {
    pub const NET: u8 = 0;
    pub const HOST: u8 = 1;
    pub const PROTOCOL: u8 = 2;
    pub const PORT: u8 = 3;
    pub const FRAG_NEEDED: u8 = super::CODE_FRAG_NEEDED;
    pub const NET_UNKNOWN: u8 = 6;
    pub const NET_PROHIBITED: u8 = 9;
    pub const NET_TOS: u8 = 11;
    pub const PROHIBITED: u8 = 13;
}

/// Codes of ICMPv6's "destination unreachable" (RFC 4443, 3.1).
mod code_v6 {
    pub const NO_ROUTE: u8 = 0;
    pub const PROHIBITED: u8 = 1;
    pub const PORT: u8 = 4;
    pub const POLICY: u8 = 5;
    pub const REJECTED: u8 = 6;
}

/// What ICMPv6 says, in the words of ICMP: type and code (as RFC 7915, 5.2, translates it).
fn in_words_of_icmp(kind: u8, code: u8) -> (u8, u8) {
    match (kind, code) {
        (icmpv6_type::DEST_UNREACHABLE, code_v6::NO_ROUTE) => (icmp_type::DEST_UNREACHABLE, code::NET),
        (icmpv6_type::DEST_UNREACHABLE, code_v6::PORT) => (icmp_type::DEST_UNREACHABLE, code::PORT),
        (icmpv6_type::DEST_UNREACHABLE, code_v6::PROHIBITED | code_v6::POLICY | code_v6::REJECTED) => {
            (icmp_type::DEST_UNREACHABLE, code::PROHIBITED)
        }
        (icmpv6_type::DEST_UNREACHABLE, _) => (icmp_type::DEST_UNREACHABLE, code::HOST),
        (icmpv6_type::PACKET_TOO_BIG, _) => (icmp_type::DEST_UNREACHABLE, code::FRAG_NEEDED),
        // Code 1: nobody knows the next header, TCP.
        (icmpv6_type::PARAMETER_PROBLEM, 1) => (icmp_type::DEST_UNREACHABLE, code::PROTOCOL),
        _ => (icmp_type::TIME_EXCEEDED, 0),
    }
}

/// Writes a frame with an ICMP error about a packet; returns its length.
type WriteError = fn(&Envelope, quoted: &[u8], out: &mut [u8]) -> Result<usize, TooLong>;

impl Engine {
    fn icmp(&mut self, frame: &[u8], mac: Mac, ip: &Ip) {
        match Icmp::parse(ip.payload.of(frame)) {
            Some(Icmp::EchoRequest { ident, seq, data }) => self.echo(mac, ip, ident, seq, data),
            Some(Icmp::Error { kind, code, mtu, quoted }) => self.icmp_error((kind, code), mtu.unwrap_or(0), &quoted),
            // RFC 9293 MUST-55; RFC 5927 6.2-1.
            Some(Icmp::EchoReply { .. } | Icmp::Other { .. }) => self.counters.icmp_ignored += 1,
            None => self.counters.drop_malformed += 1,
        }
    }

    fn icmpv6_for_us(&mut self, frame: &[u8], mac: Mac, ip: &Ip) {
        match Icmpv6::parse(ip, frame) {
            Some(Icmpv6::EchoRequest { ident, seq, data }) => self.echo(mac, ip, ident, seq, data),
            // RFC 8201 4-2: no path has less than the minimum of IPv6.
            Some(Icmpv6::Error { kind: icmpv6_type::PACKET_TOO_BIG, mtu, .. }) if mtu < ipv6::MTU_MIN.into() => {
                self.counters.icmp_ignored += 1;
            }
            Some(Icmpv6::Error { kind, code, mtu, quoted }) => {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                self.icmp_error(in_words_of_icmp(kind, code), mtu, &quoted);
            }
            Some(_) => self.counters.icmp_ignored += 1,
            None => self.counters.drop_malformed += 1,
        }
    }

    /// RFC 1122, 3.2.2.6; RFC 4443, 4.2. What would not fit into one packet is not answered: we do not fragment.
    /// RFC 1122 3.2.2.6-1, 3.2.2.6-2.
    fn echo(&mut self, mac: Mac, ip: &Ip, ident: u16, seq: u16, data: &[u8]) {
        let fits = ip_header(ip) + ICMP_HEADER + data.len() <= usize::from(self.link_mtu(&ip.src));
        if !fits || !self.limits.echo.take(self.now) {
            self.counters.icmp_limited += 1;
            return;
        }
        let Some(to) = self.answer_mac(ip.src, mac) else { return };
        self.counters.icmp_echoes += 1;
        self.transmit_icmp(to, ip, data, |to, data, out| echo_reply(to, ident, seq, data, out));
    }

    /// Answers `ip` with `data`.
    fn transmit_icmp(&mut self, mac: Mac, ip: &Ip, data: &[u8], write: impl FnOnce(&Envelope, &[u8], &mut [u8]) -> Result<usize, TooLong>) {
        let max = ethernet::HEADER_LEN + ethernet::VLAN_LEN + ip_header(ip) + ICMP_HEADER + data.len();
        self.transmit(build::frame(max, |out| write(&self.envelope(mac, ip), data, out)));
    }

    fn envelope(&self, mac: Mac, ip: &Ip) -> Envelope {
        Envelope { dst_mac: mac, src_mac: self.config.mac, vlan: self.vlan(), src: ip.dst, dst: ip.src, ttl: self.ttl_to(&ip.src) }
    }

    /// What is not TCP: ICMP, or a datagram that nobody serves (RFC 1122, 3.2.2.1 and 4.1.3.1; RFC 4443, 3.1).
    pub(crate) fn other_protocol(&mut self, frame: &[u8], mac: Mac, ip: &Ip, proto: u8) {
        match (proto, is_v4(&ip.src)) {
            (ip_proto::ICMP, true) => return self.icmp(frame, mac, ip),
            (ip_proto::ICMPV6, false) => return self.icmpv6_for_us(frame, mac, ip),
            _ => self.counters.drop_protocol += 1,
        }
        if proto != ip_proto::UDP {
            return;
        }
        let packet = frame.get(ip.header.start as usize..ip.payload.end as usize).unwrap_or_default();
        self.send_icmp_error(mac, ip, packet, port_unreachable);
    }

    /// Tells the source of `packet`, whose header is `ip` and whose frame came from `mac`, what is wrong with it; `write` is one of `toe_wire::icmp`.
    pub(crate) fn send_icmp_error(&mut self, mac: Mac, ip: &Ip, packet: &[u8], write: WriteError) {
        if !self.limits.unreachable.take(self.now) {
            self.counters.icmp_limited += 1;
            return;
        }
        let Some(to) = self.answer_mac(ip.src, mac) else { return };
        let most = if is_v4(&ip.src) { QUOTE_MAX_V4 } else { QUOTE_MAX_V6 };
        let quoted = packet.get(..most).unwrap_or(packet);
        self.counters.icmp_errors_sent += 1;
        self.transmit_icmp(to, ip, quoted, write);
    }

    /// An error about a segment of ours.
    /// RFC 1122 3.2.2-1.
    fn icmp_error(&mut self, (kind, code): (u8, u8), mtu: u16, quoted: &Quoted) {
        let key = FlowKey { local_ip: quoted.src, remote_ip: quoted.dst, local_port: quoted.src_port, remote_port: quoted.dst_port };
        // RFC 9293 MUST-54.
        let Some(id) = self.conns.by_key(&key) else {
            self.counters.icmp_ignored += 1;
            return;
        };
        let Some(conn) = self.conns.get_mut(id) else { return };
        let hard = kind == icmp_type::DEST_UNREACHABLE && matches!(code, code::PROTOCOL | code::PORT);
        let too_big = kind == icmp_type::DEST_UNREACHABLE && code == code::FRAG_NEEDED;
        match &mut conn.phase {
            Phase::Established(e) => {
                let flow = e.flow;
                // One that is not passed on comes again with what is retransmitted. Each connection has a limit of its own, or errors that are
                // forged about one would keep others' out.
                if !e.errors.take(self.now) || !self.limits.errors.take(self.now) {
                    self.counters.icmp_errors_limited += 1;
                    return;
                }
                // Whether its sequence number is in flight is for the flow to say (RFC 5927, 4.1).
                self.counters.icmp_errors_received += 1;
                self.actions.push_back(Action::IcmpError { flow, kind: u16::from_be_bytes([kind, code]), mtu, seq: quoted.seq.0 });
                // What it makes of it is good to know for others. If there is too much of that, it will be known at its end.
                if too_big && self.limits.query.take(self.now) {
                    self.actions.push_back(Action::QueryFlow { flow });
                }
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

/// Bytes of the IP header of an answer to `ip`.
fn ip_header(ip: &Ip) -> usize {
    if is_v4(&ip.src) { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

fn errno_of(kind: u8, code: u8) -> Errno {
    match (kind, code) {
        (icmp_type::DEST_UNREACHABLE, code::PORT) => Errno::ECONNREFUSED,
        (icmp_type::DEST_UNREACHABLE, code::PROTOCOL) => Errno::ENOPROTOOPT,
        (icmp_type::DEST_UNREACHABLE, code::NET | code::NET_UNKNOWN | code::NET_PROHIBITED | code::NET_TOS) => Errno::ENETUNREACH,
        (icmp_type::PARAMETER_PROBLEM, _) => Errno::EPROTO,
        _ => Errno::EHOSTUNREACH,
    }
}
