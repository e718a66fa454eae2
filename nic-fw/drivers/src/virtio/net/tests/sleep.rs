//! When the core of the receiving half may sleep.

use super::*;

const PLAIN: [u8; 12] = [0; 12];

/// The look before sleep arms: the next frame, whichever pair it comes on, interrupts. The look after sleep disarms.
#[test]
fn a_sleeper_is_woken_by_the_next_frame_of_any_pair() {
    for offered in [all(), all() - Features::EVENT_IDX] {
        let settings = Settings { pairs: 2, ..small() };
        let world = World::new(offered, 2, &settings);
        let Net { mut rx, .. } = world.start(&settings).unwrap();
        let mut peers = world.peers(2);
        let mut interrupts = 0;
        for round in 0..70_000u32 {
            assert!(!rx.any());
            let peer = &mut peers[round as usize % 2];
            peer.deliver(&PLAIN, &frame(round, 60)).unwrap();
            assert!(peer.rx.publish(), "round {round}: it sleeps over a frame");
            for (_, _, lease) in received(&mut rx) {
                rx.release(lease);
            }
            // Awake: more frames on the same pair are found without.
            peer.deliver(&PLAIN, &frame(round, 60)).unwrap();
            interrupts += u32::from(peer.rx.publish());
            assert!(rx.any(), "the second look finds what came in between");
            let more = received(&mut rx);
            assert_eq!(more.len(), 1);
            more.into_iter().for_each(|(_, _, lease)| rx.release(lease));
        }
        assert!(interrupts <= 4, "{interrupts} without being asked for");
        assert_eq!(rx.posted(), 32);
    }
}

#[test]
fn disarming_is_heard() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    assert!(!rx.arm());
    rx.disarm();
    peer.deliver(&PLAIN, &frame(0, 60)).unwrap();
    assert!(!peer.rx.publish());
    assert!(rx.arm());
}

/// Buffers that came back while the core was awake are the device's before it sleeps: else nothing could wake it.
#[test]
fn nobody_sleeps_on_buffers() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    for round in 0..16 {
        peer.deliver(&PLAIN, &frame(round, 60)).unwrap();
    }
    peer.rx.publish();
    let mut frames = received(&mut rx);
    assert_eq!(frames.len(), 16);
    assert!(peer.deliver(&PLAIN, &[0; 60]).is_none(), "all are on loan");
    assert!(!peer.rx.doze());
    let kicks = world.registers.device().queues[0].kicks;
    rx.release(frames.pop().unwrap().2);
    assert!(!rx.any());
    assert_eq!(world.registers.device().queues[0].kicks, kicks + 1, "the device waits for buffers");
    assert!(peer.deliver(&PLAIN, &[0; 60]).is_some());
    assert!(peer.rx.publish());
}

/// While it is awake, a device that is short of buffers gets them without waiting for a full batch.
#[test]
fn a_device_short_of_buffers_is_served_at_once() {
    let world = World::new(all(), 1, &small());
    let Net { mut rx, .. } = world.start(&small()).unwrap();
    let mut peer = world.peers(1).remove(0);
    (0..16).for_each(|round| assert!(peer.deliver(&PLAIN, &frame(round, 60)).is_some()));
    peer.rx.publish();
    let mut frames = received(&mut rx);
    rx.release(frames.pop().unwrap().2);
    assert!(received(&mut rx).is_empty());
    assert!(peer.deliver(&PLAIN, &[0; 60]).is_some());
}
