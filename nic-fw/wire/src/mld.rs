//! Multicast listener discovery (RFC 3810; version 1: RFC 2710): which groups a host listens to. Switches that look (RFC 4541) pass a
//! solicitation on to nobody else, so a host that does not say is not found.
//!
//! ```text
//!   IPv6, hop limit 1 │ hop-by-hop: router alert │ 143, 0, sum, 0, n │ n records: type, 0, 0, group   (version 2)
//!                     │                          │ 131, 0, sum, 0, 0 │ group                           (version 1)
//! ```

use crate::bytes::{self, Writer};
use crate::checksum::pseudo_header;
use crate::ethernet::{self, Mac, ethertype};
use crate::ipv4::{Ip, ip_proto};
use crate::ipv6::{self, UNSPECIFIED, is_link_local, is_multicast, multicast_mac, next_header};
use crate::{FrameError, TooLong};

const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const REPORT_V2: u8 = 143;

/// ff02::16: who listens to reports of version 2.
const ALL_LISTENERS_OF_REPORTS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
/// Options of a hop-by-hop header: a router is to look (RFC 2711), and padding. Routers look at nothing else of it.
const ROUTER_ALERT: [u8; 6] = [5, 2, 0, 0, 1, 0];
/// Never passed on.
const HOP_LIMIT: u8 = 1;

/// Most groups in one report.
pub const GROUPS_MAX: usize = 16;
const MESSAGE_MAX: usize = 8 + 20 * GROUPS_MAX;
/// Most bytes of a frame that [`Report::write`] or [`Report::write_v1`] write.
pub const FRAME_MAX: usize = ethernet::HEADER_LEN + ethernet::VLAN_LEN + ipv6::HEADER_LEN + 2 + ROUTER_ALERT.len() + MESSAGE_MAX;

/// A router or switch asks who listens (RFC 3810, 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// [`UNSPECIFIED`]: to any group.
    pub group: [u8; 16],
    /// Within this time an answer is wanted, at a moment that each listener chooses, milliseconds.
    pub max_delay_ms: u32,
    /// Who asks understands version 1 alone.
    pub is_v1: bool,
}

impl Query {
    /// Whether an ICMPv6 type is a query.
    pub(crate) const fn is(kind: u8) -> bool {
        kind == QUERY
    }

    /// `message`: the payload of `ip`, its checksum checked.
    pub(crate) fn parse(ip: &Ip, message: &[u8]) -> Result<Self, FrameError> {
        // RFC 3810, 5.1.14: from this link.
        if ip.ttl != HOP_LIMIT || !is_link_local(&ip.src) {
            return Err(FrameError::BadIpHeader);
        }
        let code = bytes::be16(message, 4).ok_or(FrameError::Truncated)?;
        let group = bytes::array(message, 8).ok_or(FrameError::Truncated)?;
        // RFC 3810, 8.1: version 1 has no more than the group, version 2 at least four bytes more.
        let is_v1 = message.len() == 24;
        if !is_v1 && message.len() < 28 {
            return Err(FrameError::Truncated);
        }
        let max_delay_ms = if is_v1 { code.into() } else { delay_ms(code) };
        if group != UNSPECIFIED && !is_multicast(&group) {
            return Err(FrameError::BadIpHeader);
        }
        Ok(Self { group, max_delay_ms, is_v1 })
    }
}

/// RFC 3810, 5.1.3: large ones are a mantissa and an exponent.
const fn delay_ms(code: u16) -> u32 {
    if code < 0x8000 {
        return code as u32;
    }
    let (mantissa, exponent) = ((code & 0xfff) as u32, (code >> 12 & 7) as u32);
    (mantissa | 0x1000) << (exponent + 3)
}

/// Why a report is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Somebody has asked: from all sources, as before.
    Asked = 2,
    /// From all sources from now on.
    Joined = 4,
}

/// Who says which groups it listens to.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Link-local, or [`UNSPECIFIED`] as long as there is none (RFC 3590).
    pub src: [u8; 16],
    pub from: Mac,
    pub vlan: Option<u16>,
}

impl Report {
    /// Writes a whole frame about `groups`, at most [`GROUPS_MAX`] of them; returns its length.
    pub fn write(&self, reason: Reason, groups: &[[u8; 16]], out: &mut [u8]) -> Result<usize, TooLong> {
        let mut body = [0; MESSAGE_MAX];
        let mut w = Writer::new(&mut body);
        w.put(&[REPORT_V2, 0, 0, 0, 0, 0]);
        w.put(&(groups.len() as u16).to_be_bytes());
        for group in groups {
            w.put(&[reason as u8, 0, 0, 0]);
            w.put(group);
        }
        let len = w.finish().ok_or(TooLong)?;
        self.frame(&ALL_LISTENERS_OF_REPORTS, &mut body[..len], out)
    }

    /// The same about one group, for who understands version 1 alone.
    pub fn write_v1(&self, group: &[u8; 16], out: &mut [u8]) -> Result<usize, TooLong> {
        let mut body = [0; 24];
        body[0] = REPORT_V1;
        body[8..].copy_from_slice(group);
        self.frame(group, &mut body, out)
    }

    fn frame(&self, dst: &[u8; 16], message: &mut [u8], out: &mut [u8]) -> Result<usize, TooLong> {
        let sum = pseudo_header(&self.src, dst, ip_proto::ICMPV6, message.len() as u32).bytes(message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = Writer::new(out);
        ethernet::write(&mut frame, &multicast_mac(dst), &self.from, self.vlan, ethertype::IPV6);
        let payload_len = (2 + ROUTER_ALERT.len() + message.len()) as u16;
        let proto = next_header::HOP_BY_HOP;
        ipv6::write(&mut frame, &ipv6::Outgoing { src: self.src, dst: *dst, class: 0, hop_limit: HOP_LIMIT, proto, payload_len });
        frame.put(&[ip_proto::ICMPV6, 0]);
        frame.put(&ROUTER_ALERT);
        frame.put(message);
        frame.finish().ok_or(TooLong)
    }
}

#[cfg(test)]
#[path = "mld_tests.rs"]
mod tests;
