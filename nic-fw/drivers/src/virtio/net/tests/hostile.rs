//! A device that breaks every rule there is, by seed.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use toe_hal::TxBusy;
use toe_hal::fake::Chance;

/// What a device does to a receive queue that is not allowed, or odd.
fn misuse_rx(peer: &mut Peer, chance: &mut Chance) {
    peer.stock_up();
    let Some(chain) = peer.stock.pop() else { return };
    let (address, room, _) = chain.parts[0];
    let mut header: [u8; 12] = std::array::from_fn(|_| if chance.draw().is_multiple_of(2) { 0 } else { chance.draw() as u8 });
    // Mostly small counts, so that some frames are completed.
    header[10..12].copy_from_slice(&[(chance.draw() % 4) as u8, u8::from(chance.draw().is_multiple_of(8))]);
    peer.rx.memory.write(address, &header);
    let len = match chance.draw() % 6 {
        0 => chance.draw() as u32 % 30,
        1 => room,
        2 => room + 1 + chance.draw() as u32 % 10,
        3 => chance.draw() as u32,
        _ => 12 + chance.draw() as u32 % 2000,
    };
    let id = match chance.draw() % 400 {
        0 => chance.draw() as u32,
        1 => chance.draw() as u32 % 20,
        _ => u32::from(chain.head),
    };
    peer.rx.put(id, len);
    if chance.draw().is_multiple_of(500) {
        peer.rx.jump(chance.draw() as u16);
    }
}

fn misuse_tx(peer: &mut Peer, chance: &mut Chance) {
    let Some(chain) = peer.tx.take() else { return };
    let id = match chance.draw() % 200 {
        0 => chance.draw() as u32,
        1 => chance.draw() as u32 % 16,
        _ => u32::from(chain.head),
    };
    peer.tx.put(id, chance.draw() as u32);
    if chance.draw().is_multiple_of(300) {
        peer.tx.jump(chance.draw() as u16);
    }
    let event = peer.tx.used + 4 + 8 * u64::from(peer.tx.size);
    peer.tx.memory.half(event).store(chance.draw() as u16, Relaxed);
}

/// Returns whether (receiving, sending) broke. `mends`: then the device is reset now and then.
fn torment(seed: u64, offered: Features, mends: bool) -> (bool, bool) {
    let settings = Settings { pairs: 2, ..small() };
    let world = World::new(offered, 2, &settings);
    let Net { mut rx, mut tx, mut control } = world.start(&settings).unwrap();
    let mut broke = (false, false);
    let mut peers = world.peers(2);
    let mut chance = Chance::new(seed);
    let mut leases: Vec<Lease> = Vec::new();
    for step in 0..2000u32 {
        broke = (broke.0 | rx.is_broken(), broke.1 | tx.is_broken());
        assert!(!rx.is_broken() && !tx.is_broken() || control.alarm().is_raised());
        if mends && control.alarm().is_raised() && chance.draw().is_multiple_of(10) {
            control.restart(&mut rx, &mut tx, &world.clock).unwrap();
            peers = world.peers(2);
        }
        for peer in &mut peers {
            (0..chance.draw() % 5).for_each(|_| misuse_rx(peer, &mut chance));
            (0..chance.draw() % 5).for_each(|_| misuse_tx(peer, &mut chance));
            peer.rx.publish();
            peer.tx.publish();
        }
        for (bytes, offload, lease) in received(&mut rx) {
            assert!((14..=65_553).contains(&bytes.len()) && (offload.csum_ok || !offload.partial_csum));
            leases.push(lease);
        }
        let out: BTreeSet<u32> = leases.iter().map(Lease::index).collect();
        assert_eq!(out.len(), leases.len(), "a buffer was lent twice");
        while !leases.is_empty() && chance.draw() % 4 < 3 {
            let place = chance.draw() as usize % leases.len();
            rx.release(leases.swap_remove(place));
        }
        if chance.draw().is_multiple_of(3) {
            rx.any();
        }
        for _ in 0..chance.draw() % 5 {
            let header = frame(step, 60);
            match send(&mut tx, &header, &[vec![1; chance.draw() as usize % 9000]], TxOffload::default()) {
                Ok(()) | Err(TxBusy) => {}
            }
        }
        <NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx);
    }
    let spares_out = leases.iter().filter(|l| l.index() >= 32).count();
    assert_eq!(rx.posted() + leases.len() - spares_out, 32, "each buffer is the device's or on loan");
    leases.into_iter().for_each(|lease| rx.release(lease));
    control.stop(&world.clock).unwrap();
    assert!(world.memory.walls_stand());
    (broke.0 | rx.is_broken(), broke.1 | tx.is_broken())
}

#[test]
fn a_device_that_breaks_all_rules_harms_itself_only() {
    let offer = |seed| if seed % 3 == 0 { all() - Features::EVENT_IDX } else { all() };
    let outcomes: Vec<_> = (0..60).map(|seed| torment(seed, offer(seed), seed % 2 == 0)).collect();
    let count = |f: fn(&(bool, bool)) -> bool| outcomes.iter().filter(|o| f(o)).count();
    assert!(count(|o| o.0) > 10 && count(|o| o.1) > 10, "broken queues were among them");
}

/// What goes to a broken queue is lost at once, instead of being busy for ever; the core may sleep.
#[test]
fn a_broken_queue_holds_nobody_up() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, mut tx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    peer.rx.put(99, 60);
    peer.rx.publish();
    peer.tx.put(3, 0);
    peer.tx.publish();
    assert!(rx.any() && received(&mut rx).is_empty() && !rx.any() && rx.is_broken());
    for _ in 0..100 {
        send(&mut tx, &frame(1, 60), &[vec![0; 5000]], TxOffload::default()).unwrap();
    }
    let lost = <NetTx<_, _> as TxPort<Vec<u8>>>::flush(&mut tx);
    assert!(tx.is_broken() && (92..=100).contains(&lost), "{lost}");
}

#[test]
fn frames_that_make_no_sense_are_counted_and_their_buffers_come_back() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    peer.stock_up();
    let mut bad = |buffers: u16, len: u32, flags: u8| {
        let chain = peer.stock.pop().unwrap();
        let mut header = [0; 12];
        header[0] = flags;
        header[6] = 0xff;
        header[10..12].copy_from_slice(&buffers.to_le_bytes());
        world.memory.write(chain.parts[0].0, &header);
        peer.rx.put(chain.head.into(), len);
    };
    bad(0, 60, 0);
    bad(17, 60, 0);
    bad(1, 11, 0);
    bad(1, 12 + 13, 0);
    bad(1, 2043, 0);
    bad(1, u32::MAX, 0);
    bad(1, 72, 1);
    peer.rx.publish();
    assert!(received(&mut rx).is_empty());
    assert_eq!((rx.losses().unusable, rx.posted(), rx.is_broken()), (7, 16, false));
}

/// More buffers than the longest frame there is: it is cut off nowhere but thrown away, and the next one is received.
#[test]
fn a_spanning_frame_ends_at_the_longest_there_is() {
    let settings = Settings { queue_size: 64, rx_buffers: 64, spare_buffers: 1, ..small() };
    let world = World::new(all(), 1, &settings);
    let Net { mut rx, .. } = world.start(&settings).unwrap();
    let mut peer = world.peers(1).remove(0);
    for (buffers, is_fine) in [(33, false), (32, true), (40, false), (32, true)] {
        // All buffers are the device's again.
        assert!(!rx.any());
        peer.stock_up();
        for n in 0..buffers {
            let chain = peer.stock.pop().unwrap();
            let (address, len, _) = chain.parts[0];
            let header: [u8; 12] = std::array::from_fn(|i| if i == 10 { buffers } else { 0 });
            let bytes = [if n == 0 { &header[..] } else { &[] }, &vec![n; 2048]].concat();
            world.memory.write(address, &bytes[..len as usize]);
            peer.rx.put(chain.head.into(), len);
        }
        peer.rx.publish();
        let frames = received(&mut rx);
        assert_eq!(frames.len(), usize::from(is_fine), "{buffers}");
        for (bytes, _, lease) in frames {
            assert_eq!(bytes.len(), 32 * 2042 - 12);
            rx.release(lease);
        }
    }
    assert_eq!((rx.counts().nonsense, rx.counts().merged, rx.posted()), (2, 2, 64));
    assert!(world.memory.walls_stand());
}
