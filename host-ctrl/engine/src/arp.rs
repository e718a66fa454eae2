//! ARP (RFC 826): ask, answer, learn.

use crate::{Engine, build, neighbours::Mac};
use toe_abi::flow::v4_mapped;
use toe_wire::{Arp, ArpOp, ethernet::BROADCAST};

impl Engine {
    /// Asks for the MAC of `target`, `known` or everybody.
    pub(crate) fn ask_by_arp(&mut self, known: Option<Mac>, target: [u8; 4]) {
        // Whoever has no address of IPv4 has no routes to one either.
        let Some(from) = self.v4_source(target) else { return };
        self.counters.arp_requests_sent += 1;
        self.transmit_arp(known.unwrap_or(BROADCAST), ArpOp::Request, from, [0; 6], target);
    }

    fn v4_source(&self, target: [u8; 4]) -> Option<[u8; 4]> {
        self.addresses.source_for(&v4_mapped(target)).and_then(|ip| toe_abi::flow::as_v4(&ip))
    }

    fn transmit_arp(&mut self, to: Mac, op: ArpOp, sender_ip: [u8; 4], target_mac: Mac, target_ip: [u8; 4]) {
        let packet = Arp { op, sender_mac: self.config.mac, sender_ip, target_mac, target_ip };
        let frame = build::arp(to, self.vlan(), &packet);
        self.transmit(frame);
    }

    /// An ARP packet (RFC 826, "Packet Reception").
    pub(crate) fn arp(&mut self, packet: &Arp) {
        self.counters.arp_received += 1;
        let (mac, ip) = (packet.sender_mac, v4_mapped(packet.sender_ip));
        if self.addresses.is_own(&ip) && mac != self.config.mac {
            self.counters.arp_conflicts += 1;
            return self.conflict(&ip, mac);
        }
        let asks_us = packet.op == ArpOp::Request && self.addresses.is_own(&v4_mapped(packet.target_ip));
        // RFC 5227, 2.1.1: a probe has no sender address: there is nothing to learn, but it wants an answer.
        let probe = packet.sender_ip == [0; 4] && self.is_station(mac);
        if !probe && !self.is_plausible(mac, ip) {
            self.counters.arp_ignored += 1;
            return;
        }
        if !probe {
            // Who asks for us will be talked to. Answers that nobody asked for add nothing.
            if asks_us {
                self.meet(ip);
            }
            self.neighbours.all(ip).for_each(|index| self.heard(index, mac));
        }
        if asks_us && self.config.answer_arp {
            self.counters.arp_replies_sent += 1;
            self.transmit_arp(mac, ArpOp::Reply, packet.target_ip, mac, packet.sender_ip);
        }
    }
}
