//! Bringing a device up, or not.

use super::super::super::fake::Control;
use super::super::super::transport::TransportError;
use super::super::control::CommandError;
use super::*;

#[test]
fn a_device_comes_up_with_all_that_it_offers() {
    let settings = Settings { pairs: 4, rx_vector: Some(1), config_vector: Some(0), ..small() };
    let world = World::new(all(), 3, &settings);
    let mut net = world.start(&settings).unwrap();
    assert_eq!(net.control.features(), all());
    assert_eq!((net.control.pairs(), net.control.config_vector()), (3, Some(0)), "it has no more");
    let caps = <NetTx<_, _> as TxPort<Vec<u8>>>::caps(&net.tx);
    assert_eq!((caps.mac, caps.mtu, caps.tx_csum, caps.tso_max), ([2, 0, 0, 0, 0, 7], 9000, true, 0), "16 x 4096 bytes are too few");
    let device = world.registers.device();
    assert_eq!((device.pairs, device.queues.len()), (3, 7));
    let vectors: Vec<u16> = device.queues.iter().map(|q| q.vector).collect();
    assert_eq!(vectors, [1, 0xffff, 2, 0xffff, 3, 0xffff, 0xffff], "receiving interrupts, sending never");
    drop(device);
    for mut peer in world.peers(3) {
        peer.stock_up();
        assert_eq!(peer.stock.len(), 16);
    }
    assert_eq!(net.control.link(), Ok(Link::Up));
    world.registers.device().config[6] = 0;
    assert_eq!(net.control.link(), Ok(Link::Down));
    assert!(!net.control.needs_reset() && !net.rx.any());
    net.control.stop(&world.clock).unwrap();
    assert_eq!(world.registers.device().status, 0);
    assert!(world.memory.walls_stand());
}

/// The control queue comes after all pairs that the device has, not after those in use.
#[test]
fn fewer_pairs_than_there_are_will_do() {
    let settings = Settings { pairs: 2, ..small() };
    let world = World::new(all(), 5, &settings);
    let net = world.start(&settings).unwrap();
    let device = world.registers.device();
    assert_eq!((net.control.pairs(), device.pairs), (2, 2));
    let running: Vec<usize> = device.queues.iter().enumerate().filter(|(_, q)| q.is_enabled).map(|(i, _)| i).collect();
    assert_eq!(running, [0, 1, 2, 3, 10]);
}

#[test]
fn the_defaults_carry_super_frames() {
    let settings = Settings::default();
    let world = World::new(all(), 1, &settings);
    let net = world.start(&settings).unwrap();
    let caps = <NetTx<_, _> as TxPort<Vec<u8>>>::caps(&net.tx);
    assert_eq!(caps.tso_max, 65_000);
    assert!(!net.control.features().contains(Features::MQ), "one pair need not be set");
}

#[test]
fn multicast_is_asked_for_and_asked_for_again() {
    for offered in [all(), all() - Features::MQ] {
        let world = World::new(offered, 3, &small());
        let mut net = world.start(&small()).unwrap();
        assert!(world.registers.device().takes_multicast);
        net.control.restart(&mut net.rx, &mut net.tx, &world.clock).unwrap();
        assert!(world.registers.device().takes_multicast);
    }
    let world = World::new(all() - Features::CTRL_RX, 1, &small());
    world.start(&small()).unwrap();
    assert!(!world.registers.device().takes_multicast, "it has no such command");
}

#[test]
fn a_device_that_refuses_multicast_carries_the_rest() {
    let started = |control| {
        let world = World::new(all(), 1, &small());
        world.registers.device().control = control;
        world.start(&small()).map(drop)
    };
    assert_eq!(started(Control::Refuse), Ok(()));
    assert_eq!(started(Control::Lie), Err(NetError::Multicast(CommandError::Broken)));
    assert!(matches!(started(Control::Ignore), Err(NetError::Multicast(CommandError::TimedOut(_)))));
}

#[test]
fn a_simple_device_will_do() {
    let settings = Settings { mac: Some([2, 1, 1, 1, 1, 1]), pairs: 2, ..small() };
    let world = World::new(Features::VERSION_1, 1, &settings);
    let net = world.start(&settings).unwrap();
    let caps = <NetTx<_, _> as TxPort<Vec<u8>>>::caps(&net.tx);
    assert_eq!((caps.mac, caps.mtu, caps.tx_csum, caps.tso_max), ([2, 1, 1, 1, 1, 1], 1500, false, 0));
    assert_eq!((net.control.pairs(), net.control.link()), (1, Ok(Link::Up)));
}

#[test]
fn without_mergeable_buffers_small_ones_take_no_super_frames() {
    let offered = all() - Features::MRG_RXBUF;
    let large = Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_ECN;
    let world = World::new(offered, 1, &small());
    let net = world.start(&small()).unwrap();
    assert!(!net.control.features().intersects(large) && net.control.features().contains(Features::HOST_TSO4));
    let caps = <NetTx<_, _> as TxPort<Vec<u8>>>::caps(&net.tx);
    assert_eq!(caps.mtu, 2048 - 6 - 12 - 18, "and no large ones at all");
    let settings = Settings { rx_buffer_len: Settings::default().rx_buffer_len, ..small() };
    let world = World::new(offered, 1, &settings);
    assert!(world.start(&settings).unwrap().control.features().contains(large));
}

#[test]
fn what_is_wrong_is_named_and_the_device_is_left_reset() {
    type Change = fn(&mut FakeDevice);
    let settings = Settings { pairs: 2, ..small() };
    let cases: [(Change, NetError); 6] = [
        (|d| d.config[0] = 3, NetError::NoMac),
        (|d| d.config[..6].fill(0), NetError::NoMac),
        (|d| d.queues[3].max = 0, NetError::Transport(TransportError::NoQueue { index: 3, size: 0 })),
        (|d| d.control = Control::Refuse, NetError::Pairs(CommandError::Refused(1))),
        (|d| d.control = Control::Lie, NetError::Pairs(CommandError::Broken)),
        (|d| d.is_unsteady = true, NetError::Transport(TransportError::Unsteady)),
    ];
    for (change, expected) in cases {
        let world = World::new(all(), 2, &settings);
        change(&mut world.registers.device());
        assert_eq!(world.start(&settings).map(|_| ()).unwrap_err(), expected);
        let device = world.registers.device();
        assert_eq!(device.status, 0, "{expected:?}");
        assert!(device.statuses[device.statuses.len() - 2] & 128 != 0, "{expected:?}: it was told");
    }
    let world = World::new(all(), 2, &settings);
    world.registers.device().control = Control::Ignore;
    let error = world.start(&settings).map(|_| ()).unwrap_err();
    assert!(matches!(error, NetError::Pairs(CommandError::TimedOut(_))), "{error:?}");
}

#[test]
fn pairs_that_can_not_be_are_not_believed() {
    let settings = Settings { pairs: 2, ..small() };
    for max_pairs in [0u16, 0x8000, 0xffff] {
        let world = World::new(all(), 1, &settings);
        world.registers.device().config[8..10].copy_from_slice(&max_pairs.to_le_bytes());
        assert_eq!(world.start(&settings).unwrap().control.pairs(), 1, "{max_pairs}");
    }
    let world = World::new(all(), 1, &settings);
    world.registers.device().config[8..10].copy_from_slice(&2u16.to_le_bytes());
    let error = world.start(&settings).map(|_| ()).unwrap_err();
    assert_eq!(error, NetError::Transport(TransportError::NoQueue { index: 3, size: 0 }));
}

#[test]
fn a_device_that_stops_answering_holds_nobody_up() {
    let world = World::new(all(), 1, &small());
    world.registers.device().has_gone = true;
    let error = world.start(&small()).map(|_| ()).unwrap_err();
    assert!(matches!(error, NetError::Transport(TransportError::TimedOut(_))), "{error:?}");
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let world = World::new(all(), 1, &small());
    let d = small();
    let bad = [
        (Settings { pairs: 0, ..d }, "pairs"),
        (Settings { pairs: 65, ..d }, "pairs"),
        (Settings { queue_size: 24, ..d }, "queue_size"),
        (Settings { queue_size: 8, ..d }, "queue_size"),
        (Settings { rx_buffers: 17, ..d }, "rx_buffers"),
        (Settings { rx_buffers: 0, ..d }, "rx_buffers"),
        (Settings { rx_buffer_len: 2000, ..d }, "rx_buffer_len"),
        (Settings { rx_buffer_len: 2049, ..d }, "rx_buffer_len"),
        (Settings { spare_buffers: 2000, ..d }, "spare_buffers"),
        (Settings { tx_buffer_len: 0, ..d }, "tx_buffer_len"),
    ];
    for (settings, name) in bad {
        assert_eq!(world.start(&settings).map(|_| ()).unwrap_err(), NetError::BadSetting(name));
    }
}

/// Memory that is just enough, and each amount that is not.
#[test]
fn memory_is_taken_as_said() {
    for settings in [small(), Settings { pairs: 3, rx_buffers: 5, ..small() }, Settings { queue_size: 1024, rx_buffers: 7, ..small() }] {
        let world = World::new(all(), 3, &settings);
        world.start(&settings).unwrap();
        assert!(world.memory.walls_stand());
        for bytes in [0, 64, 4096, settings.bytes() / 2, settings.bytes() * 9 / 10] {
            let world = World::with_memory(bytes, all(), 3);
            assert_eq!(world.start(&settings).map(|_| ()).unwrap_err(), NetError::NoMemory, "{bytes}");
            assert!(world.memory.walls_stand());
        }
    }
}
