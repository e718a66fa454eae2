//! Ethernet II, with at most one 802.1Q tag.

use crate::{FrameError, bytes};

/// A MAC address.
pub type Mac = [u8; 6];
pub const BROADCAST: Mac = [0xff; 6];
/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes of an 802.1Q tag.
pub const VLAN_LEN: usize = 4;

/// Values of the type field.
pub mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
}

/// The VLAN of a tag.
#[inline]
pub const fn vlan_id(tag: u16) -> u16 {
    tag & 0x0fff
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    pub dst: Mac,
    pub src: Mac,
    /// PCP, DEI and VID of the 802.1Q tag.
    pub vlan: Option<u16>,
    /// Type of the payload, behind the tag.
    pub ethertype: u16,
    /// Bytes of this header.
    pub len: u16,
}

impl Ethernet {
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, FrameError> {
        let header: [u8; HEADER_LEN] = bytes::array(frame, 0).ok_or(FrameError::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
        let mut eth = Self {
            dst: [d0, d1, d2, d3, d4, d5],
            src: [s0, s1, s2, s3, s4, s5],
            vlan: None,
            ethertype: u16::from_be_bytes([t0, t1]),
            len: HEADER_LEN as u16,
        };
        if eth.ethertype == ethertype::VLAN {
            let tag = bytes::be32(frame, HEADER_LEN).ok_or(FrameError::Truncated)?;
            eth.vlan = Some((tag >> 16) as u16);
            eth.ethertype = tag as u16;
            eth.len += VLAN_LEN as u16;
        }
        Ok(eth)
    }

    /// The VLAN; 0: none, or a priority tag, which is no VLAN (IEEE 802.1Q, 9.6).
    #[inline]
    pub fn vlan_id(&self) -> u16 {
        vlan_id(self.vlan.unwrap_or(0))
    }

    /// Broadcast or multicast.
    pub fn is_group(&self) -> bool {
        self.dst[0] & 1 != 0
    }
}

/// Writes a header; `vlan`: PCP, DEI and VID.
pub(crate) fn write(w: &mut bytes::Writer<'_>, dst: &Mac, src: &Mac, vlan: Option<u16>, ethertype: u16) {
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(dst);
    header[6..12].copy_from_slice(src);
    header[12..].copy_from_slice(&if vlan.is_some() { ethertype::VLAN } else { ethertype }.to_be_bytes());
    w.put(&header);
    if let Some(tag) = vlan {
        w.put16(tag);
        w.put16(ethertype);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_taken_off() {
        let mut frame = [0u8; 20];
        frame[12..18].copy_from_slice(&[0x81, 0x00, 0x20, 0x05, 0x08, 0x00]);
        let eth = Ethernet::parse(&frame).unwrap();
        assert_eq!((eth.vlan, eth.ethertype, eth.len), (Some(0x2005), ethertype::IPV4, 18));
    }

    #[test]
    fn short_frames_are_truncated() {
        assert_eq!(Ethernet::parse(&[0; 13]), Err(FrameError::Truncated));
        let mut tagged = [0u8; 17];
        tagged[12] = 0x81;
        assert_eq!(Ethernet::parse(&tagged), Err(FrameError::Truncated));
    }
}
