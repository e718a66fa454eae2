//! IPv6 headers (RFC 8200).
//!
//! ```text
//!   fixed header │ hop-by-hop │ destination │ routing │ fragment │ TCP, ICMPv6, ...
//!                └──────────── walked, at most EXTENSIONS_MAX ───┘
//! ```
//!
//! A packet whose addresses are IPv4-mapped is refused: nobody sends such (RFC 4942, 2.2), and everywhere else in the project these stand
//! for IPv4, so that one frame could pass for a segment of an IPv4 connection.

use crate::bytes::{self, Writer};
use crate::ipv4::{Ip, Span, is_mapped};
use crate::{FrameError, Mac};

/// Bytes of a header without extension headers.
pub const HEADER_LEN: usize = 40;
/// Extension headers that are walked: RFC 8200, 4.1 recommends an order in which each occurs once, destination options twice.
pub const EXTENSIONS_MAX: usize = 6;
/// Every link carries packets of this many bytes (RFC 8200, 5).
pub const MTU_MIN: u16 = 1280;

pub const UNSPECIFIED: [u8; 16] = [0; 16];
/// ff02::1.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// ff02::2.
pub const ALL_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The solicited-node multicast address of `a` (RFC 4291, 2.7.1).
pub const fn solicited_node(a: &[u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]]
}

/// Where a multicast packet goes on Ethernet (RFC 2464, 7).
pub const fn multicast_mac(a: &[u8; 16]) -> Mac {
    [0x33, 0x33, a[12], a[13], a[14], a[15]]
}

pub const fn is_multicast(a: &[u8; 16]) -> bool {
    a[0] == 0xff
}

/// fe80::/10.
pub const fn is_link_local(a: &[u8; 16]) -> bool {
    a[0] == 0xfe && a[1] & 0xc0 == 0x80
}

/// Values of the next header field that are extension headers.
pub(crate) mod next_header {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const DESTINATION: u8 = 60;
}

impl Ip {
    /// Parses the IPv6 packet at byte `at` of `frame`. `proto` is that of the payload behind the extension headers, `options` says whether
    /// there are some, `ttl` is the hop limit. Of a fragment, what follows the fragment header is not looked at.
    pub fn parse_v6(frame: &[u8], at: usize) -> Result<Self, FrameError> {
        let packet = frame.get(at..).unwrap_or_default();
        let fixed: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(FrameError::Truncated)?;
        let word = u16::from_be_bytes([fixed[0], fixed[1]]);
        if word >> 12 != 6 {
            return Err(FrameError::BadIpHeader);
        }
        let end = HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let packet = packet.get(..end).ok_or(FrameError::Truncated)?;
        let (src, dst) = (bytes::array(packet, 8).unwrap_or_default(), bytes::array(packet, 24).unwrap_or_default());
        if is_mapped(&src) || is_mapped(&dst) {
            return Err(FrameError::BadIpHeader);
        }
        let Walked { proto, payload, fragment, fragment_header } = walk(packet, fixed[6])?;
        let class = (word >> 4) as u8;
        Ok(Self {
            src,
            dst,
            proto,
            tos: class & !3,
            ecn: class & 3,
            ttl: fixed[7],
            fragment,
            fragment_header,
            options: payload > HEADER_LEN,
            header: Span::new(at, at + payload),
            payload: Span::new(at + payload, at + end),
        })
    }
}

struct Walked {
    proto: u8,
    /// Where it begins in the packet.
    payload: usize,
    fragment: bool,
    fragment_header: bool,
}

/// Walks the extension headers of a packet (RFC 8200, 4).
fn walk(packet: &[u8], first: u8) -> Result<Walked, FrameError> {
    let (mut proto, mut at, mut fragment_header) = (first, HEADER_LEN, false);
    for n in 0..=EXTENSIONS_MAX {
        let header = packet.get(at..).unwrap_or_default();
        let len = match proto {
            // RFC 8200, 4.3: only immediately behind the fixed header.
            next_header::HOP_BY_HOP if n > 0 => return Err(FrameError::BadExtension),
            next_header::HOP_BY_HOP | next_header::DESTINATION => {
                let len = extension_len(header)?;
                options(header.get(2..len).ok_or(FrameError::BadExtension)?)?;
                len
            }
            next_header::ROUTING => {
                // RFC 8200, 4.4: with no segments left it is of no interest, else we are no router (RFC 5095 of type 0).
                if *header.get(3).ok_or(FrameError::BadExtension)? != 0 {
                    return Err(FrameError::RefusedExtension);
                }
                extension_len(header)?
            }
            next_header::FRAGMENT => {
                let [next, _, o0, o1, ..]: [u8; 8] = bytes::array(header, 0).ok_or(FrameError::BadExtension)?;
                fragment_header = true;
                // RFC 6946: a packet in one fragment is a whole packet.
                if u16::from_be_bytes([o0, o1]) & 0xfff9 != 0 {
                    return Ok(Walked { proto: next, payload: at + 8, fragment: true, fragment_header });
                }
                8
            }
            _ => return Ok(Walked { proto, payload: at, fragment: false, fragment_header }),
        };
        if n == EXTENSIONS_MAX || len > header.len() {
            return Err(FrameError::BadExtension);
        }
        proto = header.first().copied().unwrap_or_default();
        at += len;
    }
    Err(FrameError::BadExtension)
}

/// Bytes of an extension header: the length field counts units of eight without the first.
fn extension_len(header: &[u8]) -> Result<usize, FrameError> {
    header.get(1).map(|units| 8 + usize::from(*units) * 8).ok_or(FrameError::BadExtension)
}

/// RFC 8200, 4.2: options that nobody knows are skipped, or forbid to process the packet.
fn options(mut rest: &[u8]) -> Result<(), FrameError> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    while let Some((&kind, tail)) = rest.split_first() {
        if kind == PAD1 {
            rest = tail;
            continue;
        }
        let len = usize::from(*tail.first().ok_or(FrameError::BadExtension)?);
        rest = tail.get(1 + len..).ok_or(FrameError::BadExtension)?;
        if kind != PADN && kind >> 6 != 0 {
            return Err(FrameError::RefusedExtension);
        }
    }
    Ok(())
}

/// What an outgoing header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// Traffic class, with the ECN bits.
    pub class: u8,
    pub hop_limit: u8,
    pub proto: u8,
    pub payload_len: u16,
}

/// Appends a header of [`HEADER_LEN`] bytes. The flow label is zero (RFC 6437, 3: allowed, if not of use to load balancers).
pub(crate) fn write(w: &mut Writer<'_>, ip: &Outgoing) {
    let mut header = [0; HEADER_LEN];
    [header[0], header[1]] = (6 << 12 | u16::from(ip.class) << 4).to_be_bytes();
    [header[4], header[5]] = ip.payload_len.to_be_bytes();
    (header[6], header[7]) = (ip.proto, ip.hop_limit);
    header[8..24].copy_from_slice(&ip.src);
    header[24..].copy_from_slice(&ip.dst);
    w.put(&header);
}

/// A header quoted in an ICMPv6 error about a packet of ours, which never has extension headers; lengths are not checked, as a router
/// may have cut it. Returns protocol, source, destination.
pub(crate) fn parse_quoted(packet: &[u8]) -> Option<(u8, [u8; 16], [u8; 16])> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    Some((*packet.get(6)?, bytes::array(packet, 8)?, bytes::array(packet, 24)?))
}

#[cfg(test)]
#[path = "ipv6_tests.rs"]
mod tests;
