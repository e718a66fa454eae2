//! ARP for IPv4 over Ethernet (RFC 826).

use crate::bytes::{self, Writer};
use crate::ethernet::{self, Mac, ethertype};
use crate::{FrameError, TooLong};

/// Bytes of an ARP packet, without the Ethernet header.
pub const ARP_LEN: usize = 28;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOp {
    Request,
    Reply,
}

/// Addresses as they stand in the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    pub op: ArpOp,
    pub sender_mac: Mac,
    pub sender_ip: [u8; 4],
    pub target_mac: Mac,
    pub target_ip: [u8; 4],
}

impl Arp {
    /// Parses what follows the Ethernet header. `None`: truncated, or not a request or reply for IPv4 over Ethernet.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        // Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
        if bytes::array::<6>(packet, 0)? != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let op = match bytes::be16(packet, 6)? {
            1 => ArpOp::Request,
            2 => ArpOp::Reply,
            _ => return None,
        };
        Some(Self {
            op,
            sender_mac: bytes::array(packet, 8)?,
            sender_ip: bytes::array(packet, 14)?,
            target_mac: bytes::array(packet, 18)?,
            target_ip: bytes::array(packet, 24)?,
        })
    }

    /// Writes a whole frame; returns its length.
    pub fn write(&self, dst: &Mac, vlan: Option<u16>, out: &mut [u8]) -> Result<usize, TooLong> {
        let mut w = Writer::new(out);
        ethernet::write(&mut w, dst, &self.sender_mac, vlan, ethertype::ARP);
        w.put(&[0, 1, 8, 0, 6, 4]);
        w.put16(match self.op {
            ArpOp::Request => 1,
            ArpOp::Reply => 2,
        });
        w.put(&self.sender_mac);
        w.put(&self.sender_ip);
        w.put(&self.target_mac);
        w.put(&self.target_ip);
        w.finish().ok_or(TooLong)
    }

    /// The answer to this request by the owner of `mac`; `None`: not a request.
    pub fn reply(&self, mac: Mac) -> Option<Self> {
        (self.op == ArpOp::Request).then_some(Self {
            op: ArpOp::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        })
    }
}

impl Arp {
    /// As [`parse`](Self::parse), with the reason that a too short packet is counted under.
    pub fn parse_checked(packet: &[u8]) -> Result<Option<Self>, FrameError> {
        if packet.len() < ARP_LEN { Err(FrameError::Truncated) } else { Ok(Self::parse(packet)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn round_trip(request: bool, sender_mac: Mac, sender_ip: [u8; 4], target_mac: Mac, target_ip: [u8; 4], vlan: Option<u16>) {
            let op = if request { ArpOp::Request } else { ArpOp::Reply };
            let arp = Arp { op, sender_mac, sender_ip, target_mac, target_ip };
            let mut out = [0; 64];
            let len = arp.write(&target_mac, vlan, &mut out).unwrap();
            let eth = crate::Ethernet::parse(&out[..len]).unwrap();
            prop_assert_eq!((eth.src, eth.dst, eth.vlan, eth.ethertype), (sender_mac, target_mac, vlan, ethertype::ARP));
            prop_assert_eq!(Arp::parse(&out[usize::from(eth.len)..len]), Some(arp));
        }

        #[test]
        fn any_bytes(packet: Vec<u8>) {
            let parsed = Arp::parse_checked(&packet);
            prop_assert_eq!(parsed.is_err(), packet.len() < ARP_LEN);
        }
    }

    #[test]
    fn reply_answers_the_asker() {
        let ask = Arp { op: ArpOp::Request, sender_mac: [2; 6], sender_ip: [10, 0, 0, 1], target_mac: [0; 6], target_ip: [10, 0, 0, 2] };
        let answer = ask.reply([4; 6]).unwrap();
        assert_eq!((answer.target_mac, answer.sender_ip), ([2; 6], [10, 0, 0, 2]));
        assert_eq!(answer.reply([4; 6]), None);
    }

    #[test]
    fn no_room_is_an_error() {
        let arp = Arp { op: ArpOp::Request, sender_mac: [2; 6], sender_ip: [0; 4], target_mac: [0; 6], target_ip: [0; 4] };
        assert_eq!(arp.write(&[0; 6], None, &mut [0; 41]), Err(TooLong));
        assert_eq!(arp.write(&[0; 6], None, &mut [0; 42]), Ok(42));
    }
}
