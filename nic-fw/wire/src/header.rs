//! Builds the headers of an outgoing TCP segment.

use crate::SeqNum;
use crate::bytes::Writer;
use crate::checksum::{Sum, pseudo_header, pseudo_header_v4};
use crate::ethernet::{self, Mac, ethertype};
use crate::ipv4::{self, ip_proto, is_mapped, unmapped};
use crate::ipv6;
use crate::tcp::{self, TcpFlags, TcpOptions};
use core::fmt;

/// Most bytes that [`TxHeader::write`] writes.
pub const HEADER_MAX: usize = ethernet::HEADER_LEN + ethernet::VLAN_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN + tcp::OPTIONS_MAX;

/// Does not fit: into the buffer, into an IP packet, or into the TCP options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the packet does not fit")
    }
}

impl core::error::Error for TooLong {}

/// Everything in the headers of a segment: of IPv4 if the addresses are IPv4-mapped, else of IPv6.
#[derive(Clone, Copy, Debug)]
pub struct TxHeader {
    pub dst_mac: Mac,
    pub src_mac: Mac,
    /// PCP, DEI and VID of an 802.1Q tag.
    pub vlan: Option<u16>,
    pub src_ip: [u8; 16],
    pub dst_ip: [u8; 16],
    /// IPv4 type of service or IPv6 traffic class, with the ECN bits.
    pub tos: u8,
    pub ttl: u8,
    /// IPv4 identification; any value will do as fragmenting is forbidden (RFC 6864, 4.1).
    pub ident: u16,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Ready for the header: scaled.
    pub window: u16,
    /// The urgent pointer, with URG.
    pub urgent: u16,
    pub options: TcpOptions,
}

/// What to do about the TCP checksum.
#[derive(Clone, Copy, Debug)]
pub enum Checksum {
    /// Complete it; the value is the sum of the payload.
    Full(Sum),
    /// Only the pseudo-header's sum: the port finishes it, or the frame never sees a wire.
    Partial,
}

/// Where things are in the headers written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Built {
    /// Bytes of all headers.
    pub len: u16,
    /// First byte that the TCP checksum covers; its field is [`CHECKSUM_OFFSET`] bytes behind.
    pub csum_start: u16,
}

/// Offset of the checksum in the TCP header.
pub const CHECKSUM_OFFSET: u16 = 16;

impl TxHeader {
    /// Writes Ethernet, IP and TCP headers to the front of `out`, for a segment with `payload_len` bytes behind them.
    #[inline]
    pub fn write(&self, out: &mut [u8], payload_len: u32, checksum: Checksum) -> Result<Built, TooLong> {
        if is_mapped(&self.dst_ip) {
            self.write_as::<false>(out, payload_len, checksum)
        } else {
            self.write_over_ipv6(out, payload_len, checksum)
        }
    }

    /// Apart: in one with the other, neither would have offsets that the compiler knows.
    #[inline(never)]
    fn write_over_ipv6(&self, out: &mut [u8], payload_len: u32, checksum: Checksum) -> Result<Built, TooLong> {
        self.write_as::<true>(out, payload_len, checksum)
    }

    #[inline]
    fn write_as<const V6: bool>(&self, out: &mut [u8], payload_len: u32, checksum: Checksum) -> Result<Built, TooLong> {
        let options_len = self.options.wire_len();
        let tcp_len = tcp::HEADER_LEN + options_len;
        let segment_len = payload_len.checked_add(tcp_len as u32).ok_or(TooLong)?;
        if options_len > tcp::OPTIONS_MAX {
            return Err(TooLong);
        }

        let mut w = Writer::new(out);
        if V6 {
            self.write_ipv6(&mut w, segment_len)?
        } else {
            self.write_ipv4(&mut w, segment_len)?
        }
        let start = w.len();
        self.write_tcp(&mut w, tcp_len);

        // RFC 9293 MUST-2.
        let pseudo = if V6 {
            pseudo_header(&self.src_ip, &self.dst_ip, ip_proto::TCP, segment_len)
        } else {
            pseudo_header_v4(unmapped(&self.src_ip), unmapped(&self.dst_ip), ip_proto::TCP, segment_len)
        };
        let sum = match checksum {
            Checksum::Partial => pseudo.partial(),
            // The header is a whole number of words, so the payload's sum can be added as it is.
            Checksum::Full(payload) => pseudo.bytes(w.written(start)).word(payload.partial()).finish(),
        };
        w.patch16(start + usize::from(CHECKSUM_OFFSET), sum);
        let len = w.finish().ok_or(TooLong)?;
        Ok(Built { len: len as u16, csum_start: start as u16 })
    }

    #[inline]
    fn write_ipv4(&self, w: &mut Writer<'_>, segment_len: u32) -> Result<(), TooLong> {
        let total_len = segment_len.checked_add(ipv4::HEADER_LEN as u32).ok_or(TooLong)?;
        let ip = ipv4::Outgoing {
            src: unmapped(&self.src_ip),
            dst: unmapped(&self.dst_ip),
            tos: self.tos,
            ttl: self.ttl,
            proto: ip_proto::TCP,
            ident: self.ident,
            total_len: u16::try_from(total_len).map_err(|_| TooLong)?,
        };
        ethernet::write(w, &self.dst_mac, &self.src_mac, self.vlan, ethertype::IPV4);
        ipv4::write(w, &ip);
        Ok(())
    }

    #[inline]
    fn write_ipv6(&self, w: &mut Writer<'_>, segment_len: u32) -> Result<(), TooLong> {
        let payload_len = u16::try_from(segment_len).map_err(|_| TooLong)?;
        let (src, dst, proto) = (self.src_ip, self.dst_ip, ip_proto::TCP);
        ethernet::write(w, &self.dst_mac, &self.src_mac, self.vlan, ethertype::IPV6);
        ipv6::write(w, &ipv6::Outgoing { src, dst, class: self.tos, hop_limit: self.ttl, proto, payload_len });
        Ok(())
    }

    fn write_tcp(&self, w: &mut Writer<'_>, tcp_len: usize) {
        let ([sp0, sp1], [dp0, dp1]) = (self.src_port.to_be_bytes(), self.dst_port.to_be_bytes());
        let ([s0, s1, s2, s3], [a0, a1, a2, a3]) = (self.seq.0.to_be_bytes(), self.ack.0.to_be_bytes());
        let ([w0, w1], [u0, u1]) = (self.window.to_be_bytes(), self.urgent.to_be_bytes());
        let offset = (tcp_len as u8 / 4) << 4;
        // The checksum is patched later.
        w.put(&[sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, self.flags.bits(), w0, w1, 0, 0, u0, u1]);
        self.options.write(w);
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
