//! A device that has broken the rules is reset, and works again; buffers are neither lost nor used twice meanwhile.

use super::super::super::fake::Control;
use super::super::super::transport::TransportError;
use super::*;

fn two_pairs() -> Settings {
    Settings { pairs: 2, rx_vector: Some(0), config_vector: Some(2), ..small() }
}

fn flush(tx: &mut NetTx<FakeRegisters, Bytes>) -> usize {
    <NetTx<_, _> as TxPort<Vec<u8>>>::flush(tx)
}

/// Frames pass both ways through both pairs.
fn works(world: &World, net: &mut Net<FakeRegisters, Bytes>) {
    let mut peers = world.peers(2);
    for (n, peer) in (0..).zip(&mut peers) {
        let wanted = frame(n, 200);
        peer.deliver(&[0; 12], &wanted).expect("buffers");
        peer.rx.publish();
        let frames = received(&mut net.rx);
        assert_eq!(frames.iter().map(|f| f.0.clone()).collect::<Vec<_>>(), [wanted]);
        frames.into_iter().for_each(|(_, _, lease)| net.rx.release(lease));
    }
    for n in 0..10 {
        send(&mut net.tx, &frame(n, 60), &[vec![7; 300]], TxOffload::default()).unwrap();
    }
    assert_eq!(flush(&mut net.tx), 0);
    let sent: usize = peers.iter_mut().map(|peer| std::iter::from_fn(|| peer.collect()).count()).sum();
    assert_eq!(sent, 10);
}

/// The device names a buffer that it does not have, on both kinds of queue.
fn break_rules(world: &World, net: &mut Net<FakeRegisters, Bytes>) {
    let mut peer = world.peers(2).remove(0);
    peer.rx.jump(40);
    peer.rx.publish();
    assert!(received(&mut net.rx).is_empty() && net.rx.is_broken() && net.control.alarm().is_raised());
}

#[test]
fn a_broken_port_works_again_and_what_was_on_loan_stays_so() {
    let world = World::new(all(), 2, &two_pairs());
    let mut net = world.start(&two_pairs()).unwrap();
    works(&world, &mut net);
    let mut peer = world.peers(2).remove(1);
    (peer.rx.last_avail, peer.rx.next_used, peer.rx.published) = (1, 1, 1);
    for n in 0..3 {
        peer.deliver(&[0; 12], &frame(50 + n, 100)).expect("buffers");
    }
    peer.rx.publish();
    let loans = received(&mut net.rx);
    assert_eq!(loans.len(), 3);
    break_rules(&world, &mut net);
    // In the middle of something: a frame of which half has come, and some that wait to be sent.
    send(&mut net.tx, &frame(1, 60), &[vec![7; 9000]], TxOffload::default()).unwrap();
    net.control.restart(&mut net.rx, &mut net.tx, &world.clock).unwrap();
    assert!(!net.rx.is_broken() && !net.tx.is_broken() && !net.control.alarm().is_raised());
    assert_eq!((net.rx.posted(), net.tx.free(), net.rx.losses().resets), (32 - 3, 32, 1));
    {
        let device = world.registers.device();
        let vectors: Vec<u16> = device.queues.iter().map(|q| q.vector).collect();
        assert_eq!((vectors, device.pairs), (vec![0, 0xffff, 1, 0xffff, 0xffff], 2), "as at the start");
    }
    works(&world, &mut net);
    for (n, (bytes, _, lease)) in (50..).zip(loans) {
        assert!(bytes == frame(n, 100) && net.rx.frames().frame(&lease) == bytes, "nobody has written there");
        net.rx.release(lease);
    }
    assert_eq!(net.rx.posted(), 32);
    assert!(world.memory.walls_stand());
}

/// The device may still write as long as it has not said that the reset is over (2.1.2).
#[test]
fn no_buffer_is_taken_from_a_device_that_does_not_end_its_reset() {
    let world = World::new(all(), 2, &two_pairs());
    let mut net = world.start(&two_pairs()).unwrap();
    break_rules(&world, &mut net);
    let had = net.rx.posted();
    world.registers.device().reset_reads = u32::MAX;
    for tries in 1..3 {
        let error = net.control.restart(&mut net.rx, &mut net.tx, &world.clock).unwrap_err();
        assert!(matches!(error, NetError::Transport(TransportError::TimedOut(_))), "{error:?}");
        assert_eq!((net.rx.posted(), net.rx.losses().resets), (had, tries));
        assert!(!net.rx.any() && received(&mut net.rx).is_empty(), "the core may sleep");
        send(&mut net.tx, &frame(1, 60), &[], TxOffload::default()).unwrap();
        assert_eq!(flush(&mut net.tx), 1, "lost, and nobody waits");
    }
    world.registers.device().reset_reads = 3;
    net.control.restart(&mut net.rx, &mut net.tx, &world.clock).unwrap();
    works(&world, &mut net);
}

#[test]
fn a_device_that_comes_back_as_another_is_not_used_until_it_is_the_same_again() {
    let world = World::new(all(), 2, &two_pairs());
    let mut net = world.start(&two_pairs()).unwrap();
    type Spoil = fn(&mut FakeDevice);
    let spoil: [(&str, Spoil); 6] = [
        ("fewer features", |device| device.offered = all() - Features::CSUM),
        ("it refuses them", |device| device.refuses = true),
        ("smaller queues", |device| device.queues[2].max = 8),
        ("fewer vectors", |device| device.vectors = 1),
        ("it refuses the pairs", |device| device.control = Control::Refuse),
        ("it has gone", |device| device.has_gone = true),
    ];
    for (what, spoil) in spoil {
        break_rules(&world, &mut net);
        spoil(&mut world.registers.device());
        assert!(net.control.restart(&mut net.rx, &mut net.tx, &world.clock).is_err(), "{what}");
        assert!(net.rx.is_broken() && net.tx.is_broken() && received(&mut net.rx).is_empty(), "{what}");
        {
            let mut device = world.registers.device();
            (device.offered, device.refuses, device.vectors, device.control, device.has_gone) = (all(), false, 8, Control::Obey, false);
            device.queues[2].max = 256;
        }
        net.control.restart(&mut net.rx, &mut net.tx, &world.clock).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        works(&world, &mut net);
    }
    assert_eq!((net.rx.posted(), net.tx.free()), (32, 32 - 10));
    assert!(world.memory.walls_stand());
}
