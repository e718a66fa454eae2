//! Neighbour discovery (RFC 4861): solicitations and advertisements of neighbours and routers.
//!
//! ```text
//!   ICMPv6 header │ NS, NA: flags, target │ options: type, length in units of 8, value
//!                 │ RS, RA: lifetimes     │
//! ```
//!
//! Redirects are not followed: whoever can send one can take any connection away, and the router that sends them forwards as well.

use crate::bytes::{self, Writer};
use crate::checksum::pseudo_header;
use crate::ethernet::{self, Mac, ethertype};
use crate::ipv4::{Ip, ip_proto};
use crate::ipv6::{self, ALL_NODES, ALL_ROUTERS, UNSPECIFIED, is_link_local, is_multicast, multicast_mac, solicited_node};
use crate::{FrameError, TooLong};

/// Only a packet that no router has passed on still has this hop limit (RFC 4861, 11.2).
pub const HOP_LIMIT: u8 = 255;
/// Most bytes of a frame that [`Solicitation::write`], [`Advertisement::write`] or [`router_solicitation`] write.
pub const FRAME_MAX: usize = ethernet::HEADER_LEN + ethernet::VLAN_LEN + ipv6::HEADER_LEN + 24 + 8;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;

/// Bits of a neighbour advertisement's flags.
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A message that has passed the checks of RFC 4861, 6.1 and 7.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nd<'a> {
    /// For routers only.
    RouterSolicitation,
    RouterAdvertisement(RouterAdvertisement<'a>),
    Solicitation(Solicitation),
    Advertisement(Advertisement),
    /// Not followed.
    Redirect,
}

/// Asks who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// [`UNSPECIFIED`]: the sender wants to use `target` itself (RFC 4862, 5.4).
    pub src: [u8; 16],
    /// Where it is sent to: the solicited-node address of `target`, or `target`.
    pub dst: [u8; 16],
    pub target: [u8; 16],
    /// Of `src`.
    pub source_mac: Option<Mac>,
}

/// Says who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub target: [u8; 16],
    pub target_mac: Option<Mac>,
    pub is_router: bool,
    /// It answers a unicast solicitation, so the way there and back works.
    pub solicited: bool,
    /// `target_mac` is right, whatever was known before.
    pub overrides: bool,
}

/// How a router ranks among others, by its own words (RFC 4191, 2.1); the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Preference {
    Low,
    #[default]
    Medium,
    High,
}

impl Preference {
    /// Bits 3 and 4 of a router advertisement's flags.
    fn of(flags: u8) -> Self {
        match flags >> 3 & 3 {
            0b01 => Self::High,
            0b11 => Self::Low,
            // RFC 4191, 2.2: the reserved value as well.
            _ => Self::Medium,
        }
    }
}

/// What a router says of itself and of the link. Zero stands for "says nothing".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouterAdvertisement<'a> {
    /// Link-local.
    pub src: [u8; 16],
    pub hop_limit: u8,
    /// How long it may serve as default router, seconds; 0: it may not.
    pub lifetime_s: u16,
    /// As default router.
    pub preference: Preference,
    pub source_mac: Option<Mac>,
    /// Of the link, if it says so.
    pub mtu: Option<u32>,
    options: &'a [u8],
}

/// A prefix of a router advertisement (RFC 4861, 4.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixInfo {
    pub prefix: [u8; 16],
    /// Bits; may be above 128.
    pub len: u8,
    /// Addresses with this prefix are reached without a router.
    pub on_link: bool,
    /// Hosts may make addresses of it.
    pub autonomous: bool,
    /// Seconds; all ones: for ever.
    pub valid_s: u32,
    pub preferred_s: u32,
}

impl<'a> Nd<'a> {
    /// Whether an ICMPv6 type is neighbour discovery.
    pub(crate) const fn is(kind: u8) -> bool {
        matches!(kind, ROUTER_SOLICITATION..=REDIRECT)
    }

    /// `message`: the payload of `ip`, its checksum checked.
    pub(crate) fn parse(ip: &Ip, message: &'a [u8]) -> Result<Self, FrameError> {
        let [kind, code, ..]: [u8; 8] = bytes::array(message, 0).ok_or(FrameError::Truncated)?;
        // RFC 6980, 5: whoever looks at the first packet alone, as switches do, must see all of it.
        // RFC 4291, 2.7: no group sends.
        if ip.ttl != HOP_LIMIT || code != 0 || ip.fragment_header || is_multicast(&ip.src) {
            return Err(FrameError::BadIpHeader);
        }
        match kind {
            ROUTER_SOLICITATION => Ok(Nd::RouterSolicitation),
            ROUTER_ADVERTISEMENT => RouterAdvertisement::parse(ip, message).map(Nd::RouterAdvertisement),
            NEIGHBOUR_SOLICITATION => Solicitation::parse(ip, message).map(Nd::Solicitation),
            NEIGHBOUR_ADVERTISEMENT => Advertisement::parse(ip, message).map(Nd::Advertisement),
            _ => Ok(Nd::Redirect),
        }
    }
}

/// The options of a message: type and value. One of length zero ends it with an error (RFC 4861, 4.6).
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u8, &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let len = self.0.get(1).map_or(0, |units| usize::from(*units) * 8);
        match (self.0.get(2..len), self.0.split_at_checked(len)) {
            (Some(value), Some((option, rest))) => {
                let kind = option.first().copied().unwrap_or_default();
                self.0 = rest;
                Some(Ok((kind, value)))
            }
            _ => {
                self.0 = &[];
                Some(Err(FrameError::Truncated))
            }
        }
    }
}

/// The first link-layer address of type `wanted`; every option is checked.
fn mac_option(options: &[u8], wanted: u8) -> Result<Option<Mac>, FrameError> {
    let mut found = None;
    for option in Options(options) {
        let (kind, value) = option?;
        if kind == wanted && found.is_none() {
            found = bytes::array(value, 0);
        }
    }
    Ok(found)
}

impl Solicitation {
    /// RFC 4861, 7.1.1.
    fn parse(ip: &Ip, message: &[u8]) -> Result<Self, FrameError> {
        let target = bytes::array(message, 8).ok_or(FrameError::Truncated)?;
        let source_mac = mac_option(message.get(24..).unwrap_or_default(), OPTION_SOURCE_MAC)?;
        let probe = ip.src == UNSPECIFIED;
        if is_multicast(&target) || probe && (source_mac.is_some() || ip.dst != solicited_node(&target)) {
            return Err(FrameError::BadIpHeader);
        }
        Ok(Self { src: ip.src, dst: ip.dst, target, source_mac })
    }

    /// Asks everybody who might have `target`.
    pub const fn multicast(src: [u8; 16], mac: Mac, target: [u8; 16]) -> Self {
        Self { src, dst: solicited_node(&target), target, source_mac: Some(mac) }
    }

    /// Asks the neighbour that had `target` whether it still has it.
    pub const fn unicast(src: [u8; 16], mac: Mac, target: [u8; 16]) -> Self {
        Self { src, dst: target, target, source_mac: Some(mac) }
    }

    /// Asks whether anybody has `target` already (RFC 4862, 5.4.2).
    pub const fn probe(target: [u8; 16]) -> Self {
        Self { src: UNSPECIFIED, dst: solicited_node(&target), target, source_mac: None }
    }

    /// The answer by the owner of the target, at `mac` (RFC 4861, 7.2.4).
    pub fn reply(&self, mac: Mac) -> Advertisement {
        let probe = self.src == UNSPECIFIED;
        Advertisement {
            src: self.target,
            dst: if probe { ALL_NODES } else { self.src },
            target: self.target,
            target_mac: Some(mac),
            is_router: false,
            solicited: !probe,
            overrides: true,
        }
    }

    /// Writes a whole frame from `from` to the station `to` (of a multicast: not used); returns its length.
    pub fn write(&self, to: Mac, from: Mac, vlan: Option<u16>, out: &mut [u8]) -> Result<usize, TooLong> {
        let option = self.source_mac.map(|mac| (OPTION_SOURCE_MAC, mac));
        message(&Link { to, from, vlan }, (&self.src, &self.dst), NEIGHBOUR_SOLICITATION, [0; 4], Some(&self.target), option, out)
    }
}

impl Advertisement {
    /// RFC 4861, 7.1.2.
    fn parse(ip: &Ip, message: &[u8]) -> Result<Self, FrameError> {
        let target = bytes::array(message, 8).ok_or(FrameError::Truncated)?;
        let flags = message.get(4).copied().unwrap_or_default();
        let solicited = flags & FLAG_SOLICITED != 0;
        let target_mac = mac_option(message.get(24..).unwrap_or_default(), OPTION_TARGET_MAC)?;
        if is_multicast(&target) || is_multicast(&ip.dst) && solicited {
            return Err(FrameError::BadIpHeader);
        }
        let (is_router, overrides) = (flags & FLAG_ROUTER != 0, flags & FLAG_OVERRIDE != 0);
        Ok(Self { src: ip.src, dst: ip.dst, target, target_mac, is_router, solicited, overrides })
    }

    /// Writes a whole frame from `from` to the station `to` (of a multicast: not used); returns its length.
    pub fn write(&self, to: Mac, from: Mac, vlan: Option<u16>, out: &mut [u8]) -> Result<usize, TooLong> {
        let bit = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = bit(self.is_router, FLAG_ROUTER) | bit(self.solicited, FLAG_SOLICITED) | bit(self.overrides, FLAG_OVERRIDE);
        let option = self.target_mac.map(|mac| (OPTION_TARGET_MAC, mac));
        let link = Link { to, from, vlan };
        message(&link, (&self.src, &self.dst), NEIGHBOUR_ADVERTISEMENT, [flags, 0, 0, 0], Some(&self.target), option, out)
    }
}

impl<'a> RouterAdvertisement<'a> {
    /// RFC 4861, 6.1.2.
    fn parse(ip: &Ip, message: &'a [u8]) -> Result<Self, FrameError> {
        let options = message.get(16..).ok_or(FrameError::Truncated)?;
        if !is_link_local(&ip.src) {
            return Err(FrameError::BadIpHeader);
        }
        let source_mac = mac_option(options, OPTION_SOURCE_MAC)?;
        let mtu = Options(options).flatten().find(|(kind, _)| *kind == OPTION_MTU).and_then(|(_, value)| bytes::be32(value, 2));
        let hop_limit = message.get(4).copied().unwrap_or_default();
        let lifetime_s = bytes::be16(message, 6).unwrap_or_default();
        let preference = Preference::of(message.get(5).copied().unwrap_or_default());
        Ok(Self { src: ip.src, hop_limit, lifetime_s, preference, source_mac, mtu, options })
    }

    /// The prefixes, in their order.
    pub fn prefixes(&self) -> impl Iterator<Item = PrefixInfo> + 'a {
        Options(self.options).flatten().filter(|(kind, _)| *kind == OPTION_PREFIX).filter_map(|(_, value)| {
            let flags = *value.get(1)?;
            Some(PrefixInfo {
                prefix: bytes::array(value, 14)?,
                len: *value.first()?,
                on_link: flags & 0x80 != 0,
                autonomous: flags & 0x40 != 0,
                valid_s: bytes::be32(value, 2)?,
                preferred_s: bytes::be32(value, 6)?,
            })
        })
    }
}

/// Writes a whole frame that asks routers to say who they are, now (RFC 4861, 6.3.7); returns its length. `src`: an address of `from`,
/// or [`UNSPECIFIED`].
pub fn router_solicitation(src: &[u8; 16], from: Mac, vlan: Option<u16>, out: &mut [u8]) -> Result<usize, TooLong> {
    let option = (*src != UNSPECIFIED).then_some((OPTION_SOURCE_MAC, from));
    message(&Link { to: [0; 6], from, vlan }, (src, &ALL_ROUTERS), ROUTER_SOLICITATION, [0; 4], None, option, out)
}

struct Link {
    to: Mac,
    from: Mac,
    vlan: Option<u16>,
}

fn message(
    link: &Link,
    (src, dst): (&[u8; 16], &[u8; 16]),
    kind: u8,
    flags: [u8; 4],
    target: Option<&[u8; 16]>,
    option: Option<(u8, Mac)>,
    out: &mut [u8],
) -> Result<usize, TooLong> {
    let mut body = [0; 32];
    let mut w = Writer::new(&mut body);
    w.put(&[kind, 0, 0, 0]);
    w.put(&flags);
    w.put(target.map_or(&[][..], |target| target));
    if let Some((option, mac)) = option {
        w.put(&[option, 1]);
        w.put(&mac);
    }
    let sum = pseudo_header(src, dst, ip_proto::ICMPV6, w.len() as u32).bytes(w.written(0)).finish();
    w.patch16(2, sum);
    let payload_len = w.len() as u16;
    let mut frame = Writer::new(out);
    let to = if is_multicast(dst) { multicast_mac(dst) } else { link.to };
    ethernet::write(&mut frame, &to, &link.from, link.vlan, ethertype::IPV6);
    let ip = ipv6::Outgoing { src: *src, dst: *dst, class: 0, hop_limit: HOP_LIMIT, proto: ip_proto::ICMPV6, payload_len };
    ipv6::write(&mut frame, &ip);
    frame.put(w.written(0));
    frame.finish().ok_or(TooLong)
}

#[cfg(test)]
#[path = "nd_tests.rs"]
mod tests;
