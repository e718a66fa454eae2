//! One look at a received frame: everything that the data path wants to know of it.

use crate::checksum::pseudo_header;
use crate::ipv4::{Ip, Span, ip_proto};
use crate::{Ethernet, FrameError, Tcp, TcpOptions, ethertype};

/// A received frame. Byte ranges are those of the whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub eth: Ethernet,
    pub payload: Payload,
}

/// What is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Its packet: see [`Arp::parse`](crate::Arp::parse).
    Arp(Span),
    Ipv4(Ipv4),
    /// Not ours; [`Ethernet::ethertype`] says what.
    Other,
}

/// An IPv4 packet, and its TCP segment if it holds a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    pub ip: Ip,
    /// `None`: another protocol, or a fragment.
    pub tcp: Option<Tcp>,
}

/// Parses a frame from the destination MAC address on, without FCS, up to 64 KiB and headers.
///
/// Lengths, the IPv4 header checksum and TCP options have been checked when it succeeds; the TCP checksum has not.
#[inline]
pub fn parse_frame(frame: &[u8]) -> Result<Frame, FrameError> {
    let eth = Ethernet::parse(frame)?;
    let at = usize::from(eth.len);
    let payload = match eth.ethertype {
        ethertype::IPV4 => {
            let ip = Ip::parse(frame, at)?;
            let whole_tcp = ip.proto == ip_proto::TCP && !ip.fragment;
            let tcp = if whole_tcp { Some(Tcp::parse(frame, ip.payload)?) } else { None };
            Payload::Ipv4(Ipv4 { ip, tcp })
        }
        ethertype::ARP => Payload::Arp(Span::new(at, frame.len())),
        _ => Payload::Other,
    };
    Ok(Frame { eth, payload })
}

impl Frame {
    /// The IP and TCP headers, if the frame holds a whole TCP segment.
    #[inline]
    pub fn tcp(&self) -> Option<(&Ip, &Tcp)> {
        match &self.payload {
            Payload::Ipv4(Ipv4 { ip, tcp: Some(tcp) }) => Some((ip, tcp)),
            _ => None,
        }
    }

    /// Whether the TCP checksum is right. `frame` is what this was parsed from. `false` also if there is no TCP segment.
    pub fn tcp_checksum_ok(&self, frame: &[u8]) -> bool {
        self.tcp().is_some_and(|(ip, _)| {
            let segment = ip.payload.of(frame);
            pseudo_header(&ip.src, &ip.dst, ip_proto::TCP, segment.len() as u32).bytes(segment).is_valid()
        })
    }

    /// All TCP options. `frame` is what this was parsed from.
    pub fn tcp_options(&self, frame: &[u8]) -> TcpOptions {
        // parse_frame has refused malformed options.
        self.tcp().and_then(|(_, tcp)| TcpOptions::parse(tcp.options.of(frame)).ok()).unwrap_or_default()
    }
}
