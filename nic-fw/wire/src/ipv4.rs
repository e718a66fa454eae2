//! IPv4 headers (RFC 791).

use crate::bytes::{self, Writer};
use crate::{FrameError, Sum};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// More Fragments, or an offset (RFC 791, 3.1).
pub(crate) const FRAGMENT: u16 = 0x3fff;
/// Where a fragment lies in its packet (RFC 791, 3.1).
const OFFSET: u16 = 0x1fff;
/// Congestion experienced, in the ECN field (RFC 3168, 5).
pub(crate) const CE: u8 = 3;

/// Values of the protocol field.
pub mod ip_proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Bytes `start..end` of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub const fn len(&self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub const fn range(&self) -> core::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// These bytes of `frame`; empty if it is not the frame this was parsed from.
    pub fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.range()).unwrap_or_default()
    }
}

/// A checked header of IPv4 or IPv6: the addresses say which. Those of IPv4 are IPv4-mapped, those of IPv6 never are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// [`ip_proto`].
    pub proto: u8,
    /// Type of service without the ECN bits.
    pub tos: u8,
    /// ECN field (RFC 3168, 5): 0 not-ECT, 1 and 2 ECT, 3 CE.
    pub ecn: u8,
    pub ttl: u8,
    /// One of several fragments: there is no whole payload here.
    pub fragment: bool,
    /// It has a fragment header of IPv6, also if it is a whole packet (RFC 6946).
    pub fragment_header: bool,
    /// The header has options.
    pub options: bool,
    pub header: Span,
    /// Up to the total length: padding of short frames is not in it.
    pub payload: Span,
}

impl Ip {
    /// Congestion experienced.
    pub const fn is_ce(&self) -> bool {
        self.ecn == CE
    }

    /// Parses the header at `at` in `frame` and checks version, lengths and checksum.
    #[inline]
    pub fn parse(frame: &[u8], at: usize) -> Result<Self, FrameError> {
        let packet = frame.get(at..).ok_or(FrameError::Truncated)?;
        let fixed: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(FrameError::Truncated)?;
        let [version_ihl, tos, l0, l1, _, _, f0, f1, ttl, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
        let header_len = usize::from(version_ihl & 15) * 4;
        // A total length of 0 would be BIG TCP, which is for frames that stay inside a host.
        let total_len = usize::from(u16::from_be_bytes([l0, l1]));
        if version_ihl >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len {
            return Err(FrameError::BadIpHeader);
        }
        if total_len > packet.len() {
            return Err(FrameError::Truncated);
        }
        let header = packet.get(..header_len).ok_or(FrameError::Truncated)?;
        let sum = if header_len == HEADER_LEN { Sum::of_words(fixed) } else { Sum::new().bytes(header) };
        // RFC 1122 3.2.1.2-1.
        if !sum.is_valid() {
            return Err(FrameError::BadIpChecksum);
        }
        let fragment = u16::from_be_bytes([f0, f1]) & FRAGMENT != 0;
        Ok(Self {
            src: mapped([s0, s1, s2, s3]),
            dst: mapped([d0, d1, d2, d3]),
            proto,
            tos: tos & !3,
            ecn: tos & 3,
            ttl,
            fragment,
            fragment_header: false,
            // RFC 9293 MUST-50.
            options: header_len > HEADER_LEN,
            header: Span::new(at, at + header_len),
            payload: Span::new(at + header_len, at + total_len),
        })
    }
}

/// An IPv4 address as 16 bytes (RFC 4291, 2.5.5.2).
pub const fn mapped(a: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]
}

/// Whether an address stands for one of IPv4.
#[inline]
pub const fn is_mapped(a: &[u8; 16]) -> bool {
    // In two words: by bytes it costs ten times as much.
    u128::from_be_bytes(*a) >> 32 == 0xffff
}

/// The IPv4 address in the last four bytes.
pub const fn unmapped(a: &[u8; 16]) -> [u8; 4] {
    [a[12], a[13], a[14], a[15]]
}

/// What an outgoing header says. "Don't fragment" is always set (RFC 1191).
#[derive(Clone, Copy, Debug)]
// RFC 3168 5.3-1.
pub(crate) struct Outgoing {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    /// With the ECN bits.
    pub tos: u8,
    pub ttl: u8,
    pub proto: u8,
    pub ident: u16,
    /// Header and payload.
    pub total_len: u16,
}

/// Appends a header of [`HEADER_LEN`] bytes with its checksum.
pub(crate) fn write(w: &mut Writer<'_>, ip: &Outgoing) {
    // In one piece: fields written one by one cost several times as much.
    let ([l0, l1], [i0, i1]) = (ip.total_len.to_be_bytes(), ip.ident.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (ip.src, ip.dst);
    let mut header = [0x45, ip.tos, l0, l1, i0, i1, 0x40, 0, ip.ttl, ip.proto, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    [header[10], header[11]] = Sum::of_words(&header).finish().to_be_bytes();
    w.put(&header);
}

/// A header quoted in an ICMP error: checksum and total length are not checked, as routers may have
/// changed one and cut the other. Returns protocol, source, destination and the header's length; `None` for a later fragment, which has
/// payload where the first has ports.
pub(crate) fn parse_quoted(packet: &[u8]) -> Option<(u8, [u8; 4], [u8; 4], usize)> {
    let version_ihl = *packet.first()?;
    let header_len = usize::from(version_ihl & 15) * 4;
    if version_ihl >> 4 != 4 || header_len < HEADER_LEN || bytes::be16(packet, 6)? & OFFSET != 0 {
        return None;
    }
    Some((*packet.get(9)?, bytes::array(packet, 12)?, bytes::array(packet, 16)?, header_len))
}
