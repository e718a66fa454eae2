//! Frames through an obedient device.

use super::super::super::fake::Sent;
use super::super::header;
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use toe_hal::TxBusy;
use toe_hal::fake::Chance;

const SUPER: TxOffload = TxOffload { partial_csum: true, csum_start: 34, csum_offset: 16, gso_size: 1448, hdr_len: 54 };

/// What the wire sends: bytes, and the state that must arrive.
fn arriving(chance: &mut Chance, seed: u32, most: usize) -> ([u8; 12], Vec<u8>, RxOffload) {
    let len = match chance.draw() % 4 {
        0 => 14 + chance.draw() as usize % 50,
        1 => 1500,
        _ => 60 + chance.draw() as usize % (most - 60),
    };
    let bytes = frame(seed, len);
    let super_frame = header::encode(&SUPER, &[], all());
    let mut valid = [0; 12];
    valid[0] = 2;
    match chance.draw() % 3 {
        0 if len >= 60 => (super_frame, bytes, RxOffload { csum_ok: true, partial_csum: true, gso_size: 1448 }),
        1 => (valid, bytes, RxOffload { csum_ok: true, ..RxOffload::default() }),
        _ => ([0; 12], bytes, RxOffload::default()),
    }
}

/// Frames in at random, leases back in any order: all arrive once, in the order of their pair, with their bytes and state; and all
/// buffers come home.
fn receiving(seed: u64, settings: Settings, offered: Features, most: usize) -> RxCounts {
    let world = World::new(offered, settings.pairs, &settings);
    let Net { mut rx, .. } = world.start(&settings).unwrap();
    let pairs = usize::from(settings.pairs);
    let mut peers = world.peers(settings.pairs);
    let mut chance = Chance::new(seed);
    let mut expected: Vec<VecDeque<(Vec<u8>, RxOffload)>> = vec![VecDeque::new(); pairs];
    let mut leases: Vec<Lease> = Vec::new();
    let (mut sent, mut lost) = (0u32, 0u64);
    for step in 0..4000 {
        let is_end = step >= 3900;
        for (peer, expected) in peers.iter_mut().zip(&mut expected) {
            for _ in 0..chance.draw() % 6 {
                let (header, bytes, offload) = arriving(&mut chance, sent, most);
                if !is_end && peer.deliver(&header, &bytes).is_some() {
                    expected.push_back((bytes, offload));
                    sent += 1;
                }
            }
            // A frame's buffers may be published in parts, if another look comes in between.
            peer.rx.publish();
        }
        if is_end || chance.draw().is_multiple_of(2) {
            for (bytes, offload, lease) in received(&mut rx) {
                leases.push(lease);
                // Some frames before it may be lost for want of spare buffers: counted, and never others.
                let pair = expected.iter().position(|e| e.iter().any(|(b, _)| *b == bytes)).expect("a frame that nobody sent");
                while let Some((b, o)) = expected[pair].pop_front() {
                    if b == bytes {
                        assert_eq!(o, offload);
                        break;
                    }
                    lost += 1;
                }
            }
        }
        while is_end && !leases.is_empty() || leases.len() > 4 && chance.draw().is_multiple_of(2) {
            let place = chance.draw() as usize % leases.len();
            rx.release(leases.swap_remove(place));
        }
    }
    lost += expected.iter().map(VecDeque::len).sum::<usize>() as u64;
    let counts = rx.counts();
    assert_eq!((lost, counts.nonsense), (counts.no_spare, 0), "lost, and not counted so");
    assert_eq!(rx.losses().overrun, counts.no_spare);
    assert_eq!(rx.posted(), pairs * usize::from(settings.rx_buffers), "all buffers are home");
    assert!(sent > 1000 && !rx.is_broken() && world.memory.walls_stand());
    counts
}

#[test]
fn frames_arrive_in_buffers_that_take_them() {
    for seed in 0..4 {
        let settings = Settings { pairs: 1 + seed as u16 % 3, rx_buffer_len: Settings::default().rx_buffer_len, ..small() };
        for offered in [all(), all() - Features::MRG_RXBUF, all() - Features::EVENT_IDX] {
            let counts = receiving(seed, settings, offered, 65_553);
            assert_eq!((counts.merged, counts.no_spare), (0, 0), "nothing is copied");
        }
    }
}

#[test]
fn frames_that_span_buffers_are_copied_together() {
    let mut merged = 0;
    for seed in 0..6 {
        let settings = Settings { pairs: 1 + seed as u16 % 3, spare_buffers: 40, ..small() };
        let counts = receiving(seed, settings, all(), 30_000);
        assert_eq!(counts.no_spare, 0);
        merged += counts.merged;
    }
    assert!(merged > 1000, "{merged}");
}

#[test]
fn frames_without_a_spare_buffer_are_lost_and_counted() {
    let counts = receiving(9, Settings { spare_buffers: 1, ..small() }, all(), 30_000);
    assert!(counts.no_spare > 100 && counts.merged > 100, "{counts:?}");
    let counts = receiving(9, Settings { spare_buffers: 0, ..small() }, all(), 30_000);
    assert!(counts.no_spare > 100 && counts.merged == 0, "{counts:?}");
}

/// A frame whose buffers the device gives back one by one is handed out with the last.
#[test]
fn a_spanning_frame_may_come_in_parts() {
    let settings = Settings { rx_buffers: 16, ..small() };
    let world = World::new(all(), 1, &settings);
    let Net { mut rx, .. } = world.start(&settings).unwrap();
    let mut peer = world.peers(1).remove(0);
    peer.stock_up();
    let bytes = frame(3, 5000);
    let whole = [&[0u8; 10], &3u16.to_le_bytes()[..], &bytes].concat();
    for piece in whole.chunks(2042) {
        assert!(received(&mut rx).is_empty());
        let chain = peer.stock.pop().unwrap();
        world.memory.write(chain.parts[0].0, piece);
        peer.rx.put(chain.head.into(), piece.len() as u32);
        peer.rx.publish();
    }
    let frames = received(&mut rx);
    assert_eq!((frames.len(), &frames[0].0), (1, &bytes));
    assert_eq!(rx.posted(), 16, "the parts are the device's again");
}

#[test]
fn headers_are_aligned() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    peer.deliver(&[0; 12], &frame(1, 60)).unwrap();
    peer.deliver(&[0; 12], &frame(1, 6000)).unwrap();
    peer.rx.publish();
    let mut burst = RxBurst::new();
    assert_eq!(rx.receive(&mut burst), 2);
    let frames = rx.frames();
    assert!(burst.iter().all(|f| (frames.frame(&f.lease).as_ptr() as usize + 14).is_multiple_of(16)));
}

/// The pairs take turns: none waits because another is busy.
#[test]
fn no_pair_starves() {
    let settings = Settings { pairs: 2, queue_size: 64, rx_buffers: 64, ..small() };
    let world = World::new(all(), 2, &settings);
    let Net { mut rx, .. } = world.start(&settings).unwrap();
    let mut peers = world.peers(2);
    let mut from_second = 0;
    for _ in 0..100 {
        while peers[0].deliver(&[0; 12], &[1; 60]).is_some() {}
        peers[1].deliver(&[0; 12], &[2; 60]);
        peers.iter_mut().for_each(|p| _ = p.rx.publish());
        for (bytes, _, lease) in received(&mut rx) {
            from_second += usize::from(bytes[0] == 2);
            rx.release(lease);
        }
    }
    assert!(from_second >= 45, "{from_second}");
}

/// A frame of a flow: IPv4, ports as given.
fn of_flow(port: u16, seed: u32) -> Vec<u8> {
    let mut header = frame(seed, 54);
    header[12..14].copy_from_slice(&[8, 0]);
    header[26..34].fill(1);
    header[34..36].copy_from_slice(&[0, 80]);
    header[36..38].copy_from_slice(&port.to_be_bytes());
    header
}

/// Frames out at random, a device that uses them when it likes: all leave once, in order in their flow, with their bytes and state.
fn sending(seed: u64, offered: Features) {
    let settings = Settings { pairs: 2, queue_size: 64, ..small() };
    let world = World::new(offered, 2, &settings);
    let Net { mut tx, .. } = world.start(&settings).unwrap();
    let mut peers = world.peers(2);
    let mut chance = Chance::new(seed);
    let mut expected: Vec<VecDeque<Sent>> = vec![VecDeque::new(); 8];
    let (mut sent, mut busy) = (0u32, 0);
    for step in 0..3000 {
        let is_end = step >= 2990;
        for _ in 0..chance.draw() % 12 {
            let flow = chance.draw() as u16 % 8;
            let header = of_flow(flow, sent);
            let len = if chance.draw().is_multiple_of(3) { chance.draw() as usize % 65_000 } else { chance.draw() as usize % 1460 };
            let cut = chance.draw() as usize % (len + 1);
            let payload = frame(sent + 1, len);
            let slices = [payload[..cut].to_vec(), payload[cut..].to_vec()];
            let offload = match chance.draw() % 3 {
                0 => TxOffload::default(),
                1 => TxOffload { gso_size: 0, ..SUPER },
                _ => SUPER,
            };
            if is_end {
                continue;
            }
            match send(&mut tx, &header, &slices, offload) {
                Ok(()) => {
                    let words = header::encode(&offload, &header, all());
                    expected[usize::from(flow)].push_back(Sent { header: words.to_vec(), bytes: [header, payload].concat() });
                    sent += 1;
                }
                Err(TxBusy) => busy += 1,
            }
        }
        if is_end || chance.draw().is_multiple_of(2) {
            assert_eq!(<NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx), 0);
        }
        for peer in &mut peers {
            let most = if is_end { u64::MAX } else { chance.draw() % 8 };
            for _ in 0..most {
                let Some(frame) = peer.collect() else { break };
                let flow = usize::from(frame.bytes[37]);
                assert_eq!(Some(frame), expected[flow].pop_front());
            }
            peer.tx.publish();
        }
    }
    while peers.iter_mut().any(|p| p.collect().is_some()) {}
    assert!(expected.iter().all(VecDeque::is_empty) && busy > 10 && sent > 1000, "{busy} {sent}");
    // What the device has used comes back when room is short: so ask for more than is free.
    for port in 0..1000 {
        let _ = send(&mut tx, &of_flow(port, 0), &[vec![0; 60_000]], TxOffload::default());
    }
    assert!(tx.free() < 32 && world.memory.walls_stand());
}

#[test]
fn frames_leave_in_order_with_their_state() {
    (0..4).for_each(|seed| sending(seed, all()));
    sending(4, all() - Features::EVENT_IDX);
}

#[test]
fn one_kick_for_a_burst_of_frames() {
    let world = World::new(all(), 1, &small());
    let Net { mut tx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    for burst in 1..=5000u64 {
        assert!(!peer.tx.doze());
        (0..10).for_each(|n| send(&mut tx, &of_flow(n, 0), &[], TxOffload::default()).unwrap());
        assert_eq!(peer.tx.waiting(), 0, "nothing before the flush");
        <NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx);
        assert_eq!(world.registers.device().queues[1].kicks, burst);
        while peer.collect().is_some() {}
        peer.tx.publish();
    }
}

#[test]
fn what_can_not_be_sent_is_counted_as_lost() {
    let flush = |tx: &mut NetTx<_, _>| <NetTx<_, _> as TxPort<Vec<u8>>>::flush(tx);
    let world = World::new(all() - Features::CSUM, 1, &small());
    let Net { mut tx, .. } = world.start(&small()).unwrap();
    send(&mut tx, &of_flow(1, 1), &[], SUPER).unwrap();
    send(&mut tx, &of_flow(1, 1), &[], TxOffload { gso_size: 0, ..SUPER }).unwrap();
    send(&mut tx, &of_flow(1, 1), &[vec![0; 65_553]], TxOffload::default()).unwrap();
    send(&mut tx, &[], &[], TxOffload::default()).unwrap();
    assert_eq!((flush(&mut tx), flush(&mut tx)), (4, 0));
    // There would be room for it, but no frame is that long.
    let settings = Settings { tx_buffer_len: 8192, ..small() };
    let world = World::new(all(), 1, &settings);
    let Net { mut tx, .. } = world.start(&settings).unwrap();
    send(&mut tx, &of_flow(1, 1), &[vec![0; FRAME_MAX - 53]], TxOffload::default()).unwrap();
    assert_eq!((flush(&mut tx), tx.free()), (1, 16));
    send(&mut tx, &of_flow(1, 1), &[vec![0; FRAME_MAX - 54]], TxOffload::default()).unwrap();
    assert_eq!((flush(&mut tx), tx.free()), (0, 7));
    // 16 buffers of 2048 bytes never hold this.
    let settings = Settings { tx_buffer_len: 2048, ..small() };
    let world = World::new(all(), 1, &settings);
    let Net { mut tx, .. } = world.start(&settings).unwrap();
    send(&mut tx, &of_flow(1, 1), &[vec![0; 40_000]], TxOffload::default()).unwrap();
    assert_eq!((flush(&mut tx), tx.free()), (1, 16));
}

#[test]
fn a_port_without_room_is_busy_and_has_taken_nothing() {
    let world = World::new(all(), 1, &small());
    let Net { mut tx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    let large = vec![0; 4 * 4096];
    (0..3).for_each(|n| send(&mut tx, &of_flow(n, 0), std::slice::from_ref(&large), TxOffload::default()).unwrap());
    assert_eq!(tx.free(), 1);
    assert_eq!(send(&mut tx, &of_flow(9, 0), &[large], TxOffload::default()), Err(TxBusy));
    assert_eq!(tx.free(), 1);
    send(&mut tx, &of_flow(9, 0), &[], TxOffload::default()).unwrap();
    assert_eq!(send(&mut tx, &of_flow(9, 0), &[], TxOffload::default()), Err(TxBusy));
    <NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx);
    while peer.collect().is_some() {}
    peer.tx.publish();
    send(&mut tx, &of_flow(9, 0), &[], TxOffload::default()).unwrap();
    assert_eq!(tx.free(), 15);
}

proptest! {
    /// Any lengths: the pieces are put together as they are.
    #[test]
    fn gathers_are_copied_whole(header in 1usize..300, slices in prop::collection::vec(0usize..9000, 0..3), len in 0usize..3) {
        let settings = Settings { tx_buffer_len: 2048 + 64 * len, ..small() };
        let world = World::new(all(), 1, &settings);
        let Net { mut tx, .. } = world.start(&settings).unwrap();
        let mut peer = world.peers(1).remove(0);
        let header = frame(1, header);
        let payload: Vec<Vec<u8>> = slices.iter().map(|len| frame(*len as u32, *len)).collect();
        send(&mut tx, &header, &payload, TxOffload::default()).unwrap();
        prop_assert_eq!(<NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx), 0);
        prop_assert_eq!(peer.collect().unwrap().bytes, [header, payload.concat()].concat());
        prop_assert!(world.memory.walls_stand());
    }
}
