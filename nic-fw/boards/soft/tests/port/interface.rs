//! What a port does to its interface, and what it leaves there.

use crate::common::{CARD_MAC, PEER_MAC, in_namespace, run, veth};
use crate::ends::{PATIENCE, host_memory, is_numbered, next, numbered, open, receive, send, slice, wire};
use crate::super_frames::{Segment, fold, headers, is_tcp};
use rustix::event::{PollFd, PollFlags, poll};
use std::time::Duration;
use toe_hal::{TxFrame, TxOffload, TxPort};
use toe_nic::ports::carrier::CarrierWatch;
use toe_nic::ports::netif::Interface;
use toe_nic::ports::{Port, PortError};

#[test]
fn the_kernel_does_not_see_the_cards_frames() {
    in_namespace("interface::the_kernel_does_not_see_the_cards_frames", || {
        veth();
        run("ip", "addr add 10.9.0.2/24 dev card0");
        let far = wire("peer0");
        let arp = [&[0xff; 6][..], &PEER_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &PEER_MAC, &[10, 9, 0, 1], &[0; 6], &[10, 9, 0, 2]].concat();
        let is_reply = |f: &[u8]| f.get(12..14) == Some(&[8, 6]) && f.get(20..22) == Some(&[0, 2]);
        let mut port = open("af_packet:card0");
        send(&far, &arp);
        receive(&mut port, |b, _| b == arp);
        // A second frame behind it: when the port has that one, the kernel is done with the first.
        send(&far, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        receive(&mut port, |b, _| is_numbered(b));
        rustix::net::sockopt::set_socket_timeout(&far, rustix::net::sockopt::Timeout::Recv, Some(Duration::from_millis(100))).unwrap();
        let mut buffer = [0; 2048];
        while let Ok((n, _)) = rustix::net::recv(&far, &mut buffer[..], rustix::net::RecvFlags::empty()) {
            assert!(!is_reply(&buffer[..n]), "the kernel has answered");
        }
        drop(port);
        assert!(!run("tc", "qdisc show dev card0").contains("clsact"), "nothing is left");
        rustix::net::sockopt::set_socket_timeout(&far, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        send(&far, &arp);
        next(&far, is_reply);
    });
}

/// A veth pair has a carrier when both of its ends are up.
#[test]
fn a_carrier_that_comes_or_goes_is_told() {
    in_namespace("interface::a_carrier_that_comes_or_goes_is_told", || {
        veth();
        let card = Interface::open("card0").unwrap();
        let mut watch = CarrierWatch::new(&card).unwrap();
        let patience = PATIENCE.try_into().unwrap();
        let said = |watch: &CarrierWatch| poll(&mut [PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)], Some(&patience)).unwrap() > 0;
        for (state, running) in [("down", false), ("up", true), ("down", false), ("up", true)] {
            run("ip", &format!("link set peer0 {state}"));
            // The kernel may tell of other things first, and of the peer.
            while card.is_running().unwrap() != running || !watch.take_change() {
                assert!(said(&watch), "nothing was said of {state}");
            }
        }
        // Of one that is down nothing is said.
        run("ip", "link set peer0 alias another");
        assert!(said(&watch) && !watch.take_change(), "of the peer");
    });
}

#[test]
fn what_others_attached_to_the_interface_stays() {
    in_namespace("interface::what_others_attached_to_the_interface_stays", || {
        veth();
        run("tc", "qdisc add dev card0 clsact");
        drop(open("af_packet:card0"));
        assert!(run("tc", "qdisc show dev card0").contains("clsact"), "it was there before us");
        assert_eq!(run("tc", "filter show dev card0 ingress").trim(), "");
        drop(open("af_packet:card0,kernel_copy=keep"));
        assert!(run("tc", "qdisc show dev card0").contains("clsact"));
    });
}

#[test]
fn what_others_attach_while_the_card_runs_stays() {
    in_namespace("interface::what_others_attach_while_the_card_runs_stays", || {
        veth();
        for direction in ["ingress", "egress"] {
            let port = open("af_packet:card0");
            let filter = ["filter", "add", "dev", "card0", direction, "pref", "7", "protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0"];
            assert!(std::process::Command::new("tc").args(filter).status().unwrap().success());
            drop(port);
            let left = |direction: &str| run("tc", &format!("filter show dev card0 {direction}")).matches("direct-action").count();
            assert_eq!((left(direction), left("ingress") + left("egress")), (1, 1), "{direction}: theirs alone");
            run("tc", "qdisc del dev card0 clsact");
        }
    });
}

#[test]
fn a_killed_cards_filter_is_taken_over() {
    in_namespace("interface::a_killed_cards_filter_is_taken_over", || {
        veth();
        run("tc", "qdisc add dev card0 clsact");
        let added = std::process::Command::new("tc")
            .args("filter add dev card0 ingress pref 63239 handle 1 protocol all bpf da bytecode".split(' '))
            .arg("1,6 0 0 2")
            .status();
        assert!(added.unwrap().success());
        let port = open("af_packet:card0");
        assert_eq!(run("tc", "filter show dev card0 ingress").matches("direct-action").count(), 1);
        drop(port);
        assert!(!run("tc", "qdisc show dev card0").contains("clsact"), "its leavings go");
    });
}

#[test]
fn an_interface_that_is_down_is_brought_up() {
    in_namespace("interface::an_interface_that_is_down_is_brought_up", || {
        veth();
        run("ip", "link set card0 down");
        let mut port = open("af_packet:card0");
        let wire = wire("peer0");
        send(&wire, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        receive(&mut port, |b, _| is_numbered(b));
        run("ip", "link set card0 down");
        port.rx.check().expect("down is not gone");
        run("ip", "link del card0");
        assert!(matches!(port.rx.check(), Err(PortError::Gone(_))));
    });
}

#[test]
fn an_interface_that_gets_another_name_is_the_same() {
    in_namespace("interface::an_interface_that_gets_another_name_is_the_same", || {
        veth();
        let (mut port, interface) = (open("af_packet:card0"), Interface::open("card0").unwrap());
        for what in ["down", "name other0", "up"] {
            run("ip", &format!("link set card0 {what}").replace("card0 up", "other0 up"));
        }
        port.rx.check().expect("it is there");
        assert!(interface.is_up().unwrap());
        run("ip", "link del other0");
        assert!(matches!(port.rx.check(), Err(PortError::Gone(_))));
        assert!(matches!(interface.is_up(), Err(PortError::NoInterface(_))));
    });
}

#[test]
fn the_interface_takes_every_multicast_while_the_card_runs() {
    in_namespace("interface::the_interface_takes_every_multicast_while_the_card_runs", || {
        veth();
        let takes_all = || run("ip", "-d link show dev card0").contains("allmulti 1");
        let port = open("af_packet:card0");
        assert!(takes_all(), "else hardware keeps solicitations of neighbours from the card");
        drop(port);
        assert!(!takes_all());
    });
}

/// Flows have the segment size of their first day, and a segment that is sent again is no smaller.
#[test]
fn segments_pass_when_the_mtu_has_been_lowered() {
    in_namespace("interface::segments_pass_when_the_mtu_has_been_lowered", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        run("ethtool", "-K card0 tx off tso off gso off");
        run("ip", "link set card0 mtu 1400");
        let data: Vec<u8> = (0..1460 * 3).map(|i| (i % 251) as u8).collect();
        let memory = host_memory(&data);
        let mut lost = |payload_len: u32, gso_size: u16| {
            let segment = Segment { seq: 1, ack: 1, flags: 0x18, options: &[], payload_len: payload_len as usize };
            let (header, offload) = headers(&segment, 9);
            let offload = TxOffload { gso_size, ..offload };
            let payload = [slice(&memory, 0, payload_len)];
            port.tx.transmit(&TxFrame { header: &header, payload: &payload, payload_len, offload }).unwrap();
            port.tx.flush()
        };
        assert!(lost(1460, 0) <= 1, "how we hear of it");
        let pieces = |len: usize| {
            let mut came: Vec<(usize, Vec<u8>)> = Vec::new();
            while came.iter().map(|(_, payload)| payload.len()).sum::<usize>() < len {
                let frame = next(&wire, is_tcp);
                let pseudo = [&frame[26..34], &[0, 6], &((frame.len() - 34) as u16).to_be_bytes(), &frame[34..]].concat();
                assert_eq!(fold(&pseudo), 0xffff, "its checksum");
                came.push((frame.len(), frame[54..].to_vec()));
            }
            let bytes = came.iter().flat_map(|(_, payload)| payload).copied().collect::<Vec<u8>>();
            assert!(bytes == data[..len]);
            came.into_iter().map(|(len, _)| len).collect::<Vec<_>>()
        };
        assert_eq!(lost(1460, 0), 0);
        assert_eq!(pieces(1460), [1414, 154]);
        assert_eq!(lost(1460 * 3, 1460), 0);
        assert_eq!(pieces(1460 * 3), [1414, 1414, 1414, 54 + 300]);
        run("ip", "link set card0 mtu 1300");
        assert_eq!(lost(1460, 0), 0);
        assert_eq!(pieces(1460), [1414, 154], "as it was");
        assert_eq!(lost(1460, 0), 0);
        assert_eq!(pieces(1460), [1314, 54 + 200]);
    });
}

#[test]
fn unusable_interfaces_are_refused() {
    in_namespace("interface::unusable_interfaces_are_refused", || {
        veth();
        let open = |spec: &str| Port::open(&spec.parse().unwrap(), None).map(drop).unwrap_err();
        assert!(matches!(open("af_packet:nosuch0"), PortError::NoInterface(_)));
        assert!(matches!(open("af_packet:lo"), PortError::NotEthernet(_)));
        assert!(open("af_packet:nosuch0").is_usage());
        let _first = crate::ends::open("af_packet:card0");
        assert!(matches!(open("af_packet:card0"), PortError::InUse(_)));
    });
}
