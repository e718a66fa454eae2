//! The af_packet and tap ports against a real kernel.

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod interface;
mod super_frames;

use common::{CARD_MAC, PEER_MAC, in_namespace, run, veth};
use ends::{PATIENCE, host_memory, is_numbered, next, numbered, open, open_tap, readable, receive, send, slice, transmit, wire};
use std::time::Instant;
use toe_hal::{Frames, Lease, RxBurst, RxFrame, RxLosses, RxOffload, RxPort, TxOffload, TxPort};
use toe_nic::ports::Port;

#[test]
fn frames_pass_both_ways() {
    in_namespace("frames_pass_both_ways", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        let caps = port.tx.caps();
        assert_eq!((caps.mac, caps.mtu, caps.tx_csum), (CARD_MAC, 1500, true));
        let sent = numbered(CARD_MAC, PEER_MAC, 7, 1514);
        send(&wire, &sent);
        let (offload, bytes) = receive(&mut port, |b, _| is_numbered(b));
        assert_eq!(bytes, sent);
        assert_eq!(offload, RxOffload::default());

        let memory = host_memory(b"..from host memory, two slices");
        let header = numbered(PEER_MAC, CARD_MAC, 8, 60);
        transmit(&mut *port.tx, &header, &[slice(&memory, 2, 16), slice(&memory, 20, 10)], TxOffload::default());
        let got = next(&wire, is_numbered);
        assert_eq!(got[..60], header);
        assert_eq!(&got[60..], b"from host memorytwo slices");
    });
}

#[test]
fn frames_pass_both_ways_over_tap() {
    in_namespace("frames_pass_both_ways_over_tap", || {
        let Some(mut port) = open_tap("tap:tap0,rx_frames=16") else { return };
        let (frames, wire) = (port.rx.frames(), wire("tap0"));
        let mut held = RxBurst::new();
        for number in 0..40 {
            let sent = numbered(CARD_MAC, PEER_MAC, number, 100);
            send(&wire, &sent);
            while !held.iter().any(|f| frames.frame(&f.lease) == sent) {
                assert!(readable(&*port.rx, 10), "frame {number} never came");
                assert!(port.rx.any());
                port.rx.receive(&mut held);
            }
            if held.len() > 8 {
                assert!(!port.rx.any());
                held.drain(..).rev().for_each(|frame| port.rx.release(frame.lease));
            }
        }
        let memory = host_memory(b"..from host memory, two slices");
        let header = numbered(PEER_MAC, CARD_MAC, 8, 60);
        transmit(&mut *port.tx, &header, &[slice(&memory, 2, 16), slice(&memory, 20, 10)], TxOffload::default());
        assert_eq!(next(&wire, is_numbered), [&header[..], b"from host memorytwo slices"].concat());
    });
}

#[test]
fn leases_come_back_in_any_order_and_the_ring_goes_round() {
    in_namespace("leases_come_back_in_any_order_and_the_ring_goes_round", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0,rx_frames=16"), wire("peer0"));
        let frames = port.rx.frames();
        let number = |lease: &Lease| frames.frame(lease)[14..18].try_into().map(u32::from_be_bytes).unwrap();
        let mut expected = 0;
        for round in 0..40 {
            let count = 1 + round % 10;
            (0..count).for_each(|i| send(&wire, &numbered(CARD_MAC, PEER_MAC, expected + i, 100)));
            let mut held: Vec<Lease> = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            while held.len() < count as usize && Instant::now() < deadline {
                let mut burst = RxBurst::new();
                port.rx.receive(&mut burst);
                for RxFrame { lease, .. } in burst {
                    if is_numbered(frames.frame(&lease)) { held.push(lease) } else { port.rx.release(lease) }
                }
            }
            let numbers: Vec<_> = held.iter().map(number).collect();
            assert_eq!(numbers, (expected..expected + count).collect::<Vec<_>>());
            for (expected, lease) in numbers.into_iter().zip(held).rev() {
                assert_eq!(number(&lease), expected, "unchanged while on loan");
                port.rx.release(lease);
            }
            expected += count;
        }
        assert_eq!(port.rx.losses(), RxLosses::default());
    });
}

#[test]
fn another_core_reads_frames_and_sends() {
    in_namespace("another_core_reads_frames_and_sends", || {
        veth();
        let (Port { mut rx, mut tx }, wire) = (open("af_packet:card0,rx_frames=16"), wire("peer0"));
        let (received, to_read) = std::sync::mpsc::channel::<Lease>();
        let (read, to_release) = std::sync::mpsc::channel();
        let frames = rx.frames();
        // Sends each frame's number back, then the lease.
        let reader = std::thread::spawn(move || {
            for lease in to_read {
                let bytes = frames.frame(&lease);
                if is_numbered(bytes) {
                    let reply = [&PEER_MAC[..], &CARD_MAC, &bytes[12..60]].concat();
                    transmit(&mut *tx, &reply, &[], TxOffload::default());
                }
                read.send(lease).unwrap();
            }
        });
        for number in 0..200u32 {
            send(&wire, &numbered(CARD_MAC, PEER_MAC, number, 60));
            while !rx.any() {
                assert!(readable(&*rx, 10), "frame {number} never came");
            }
            let mut burst = RxBurst::new();
            rx.receive(&mut burst);
            burst.into_iter().for_each(|frame| received.send(frame.lease).unwrap());
            assert_eq!(next(&wire, is_numbered)[14..18], number.to_be_bytes());
            to_release.try_iter().for_each(|lease| rx.release(lease));
        }
        drop(received);
        reader.join().unwrap();
        assert_eq!(rx.losses(), RxLosses::default());
    });
}

#[test]
fn halves_keep_what_they_share() {
    in_namespace("halves_keep_what_they_share", || {
        veth();
        let is_there = || run("tc", "qdisc show dev card0").contains("clsact");
        let (Port { rx, tx }, wire) = (open("af_packet:card0"), wire("peer0"));
        let frames = rx.frames();
        send(&wire, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        let mut port = Port { rx, tx };
        assert!(readable(&*port.rx, 10));
        let mut burst = RxBurst::new();
        port.rx.receive(&mut burst);
        drop(port.tx);
        assert!(is_there(), "the receiving half still needs the filter");
        drop(port.rx);
        assert!(!is_there());
        let lease = burst.pop().unwrap().lease;
        assert_eq!(frames.frame(&lease).len(), 60, "the bytes stay as long as somebody may read them");
        let Port { rx, mut tx } = open("af_packet:card0");
        drop(rx);
        transmit(&mut *tx, &numbered(PEER_MAC, CARD_MAC, 8, 60), &[], TxOffload::default());
        next(&wire, is_numbered);
        assert!(is_there(), "the sending half keeps the interface to itself");
    });
}

#[test]
fn a_full_ring_loses_frames_and_says_so() {
    in_namespace("a_full_ring_loses_frames_and_says_so", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0,rx_frames=16"), wire("peer0"));
        (0..200).for_each(|i| send(&wire, &numbered(CARD_MAC, PEER_MAC, i, 100)));
        let (_, first) = receive(&mut port, |b, _| is_numbered(b));
        assert_eq!(first[14..18], [0; 4]);
        let RxLosses { overrun, unusable, .. } = port.rx.losses();
        assert!((100..200).contains(&overrun), "{overrun}");
        assert_eq!((unusable, port.rx.losses().overrun), (0, overrun), "counted once");
    });
}

#[test]
fn a_port_is_waited_on_by_its_descriptor() {
    in_namespace("a_port_is_waited_on_by_its_descriptor", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        send(&wire, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        assert!(readable(&*port.rx, 10));
        assert!(port.rx.any());
        receive(&mut port, |b, _| is_numbered(b));
        assert!(!readable(&*port.rx, 0), "all frames taken and released");
        assert!(!port.rx.any());
    });
}

#[test]
fn a_port_with_frames_on_loan_is_waited_on_by_edges() {
    use rustix::event::epoll;
    in_namespace("a_port_with_frames_on_loan_is_waited_on_by_edges", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, port.rx.fd(), epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET).unwrap();
        let wakes = |secs| {
            let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            epoll::wait(&epoll, &mut events[..], Some(&rustix::event::Timespec { tv_sec: secs, tv_nsec: 0 })).unwrap() > 0
        };
        let mut held = RxBurst::new();
        for number in 0..3 {
            send(&wire, &numbered(CARD_MAC, PEER_MAC, number, 60));
            assert!(wakes(10), "frame {number} wakes");
            assert_eq!(port.rx.receive(&mut held), 1);
            assert!(!wakes(0) && !port.rx.any(), "on loan is not a reason to be awake");
        }
        held.into_iter().for_each(|frame| port.rx.release(frame.lease));
        assert!(!wakes(0));
    });
}
