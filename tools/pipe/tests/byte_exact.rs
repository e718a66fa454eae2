//! Short runs in which every byte is compared: peers, port, application and rig do what they measure.

use std::time::Duration;

use toe_abi::counters::Counter;
use toe_datapath::Placement;
use toe_pipe::rig::{Rig, Shape};
use toe_pipe::threads::{self, Running};
use toe_pipe::traffic::{Load, Traffic};

const ROUNDS: usize = 1_000_000;

fn shapes() -> [Shape; 3] {
    [Shape::Fused, Shape::Pipelined(Placement::auto(1)), Shape::Pipelined(Placement::spread(2, 2, 2, 2))]
}

fn traffic(load: Load, connections: u16) -> Traffic {
    Traffic { load, connections, rpc_bytes: 100, checked: true }
}

fn assert_clean(rig: &Rig, what: &str) {
    let (bad, _) = rig.app.checked();
    assert_eq!((bad, rig.wire.bad()), (0, 0), "{what}: wrong bytes");
    let lost = ["drop", "dma_faults", "retransmit", "timeouts", "rx_out_of_order"];
    let lost: Vec<_> = rig.sums.nonzero().filter(|(name, _)| lost.iter().any(|l| name.contains(l))).collect();
    assert!(lost.is_empty(), "{what}: {lost:?}");
}

#[test]
fn every_byte_arrives_both_ways() {
    for shape in shapes() {
        for (load, connections) in
            [(Load::Receive, 1), (Load::Receive, 5), (Load::Send, 1), (Load::Send, 5), (Load::Rpc, 1), (Load::Rpc, 5)]
        {
            let what = format!("{load} on {connections}, {shape:?}");
            let mut rig = Rig::new(&shape, traffic(load, connections)).unwrap();
            // More than a lap of each buffer.
            let enough = u64::from(connections) * 2 * u64::from(rig.traffic.buf()) / if load == Load::Rpc { 16 } else { 1 };
            let carried = |rig: &Rig| {
                let sent: u64 = (0..connections).map(|i| u64::from(rig.wire.received(i))).sum();
                let (_, read) = rig.app.checked();
                [read, sent, read.min(sent)][load as usize]
            };
            for _ in 0..ROUNDS {
                rig.round().unwrap();
                if carried(&rig) >= enough {
                    break;
                }
            }
            assert!(
                carried(&rig) >= enough,
                "{what}: stuck at {} of {enough}; {:?}",
                carried(&rig),
                rig.sums.nonzero().collect::<Vec<_>>()
            );
            assert_clean(&rig, &what);
        }
    }
}

#[test]
fn threads_carry_every_byte_too() {
    for shape in shapes() {
        for app_apart in [false, true] {
            let mut rig = Rig::new(&shape, traffic(Load::Rpc, 5)).unwrap();
            let running = Running { warm_up: Duration::from_millis(5), measure: Duration::from_millis(200), cpus: Vec::new(), app_apart };
            let sums = rig.sums.clone();
            let (_, end) = threads::run(&mut rig, &running, || sums.get(Counter::TxPayloadBytes)).unwrap();
            let what = format!("{shape:?}, app apart: {app_apart}");
            assert!(end.units > 0, "{what}: nothing was sent");
            assert_clean(&rig, &what);
        }
    }
}

#[test]
fn acks_and_descriptors_reach_protocol() {
    for shape in shapes() {
        for (load, counter) in [(Load::Acks, Counter::RxDelivered), (Load::Descriptors, Counter::HcDescriptors)] {
            let mut rig = Rig::new(&shape, traffic(load, 1)).unwrap();
            (0..1000).for_each(|_| rig.round().unwrap());
            assert!(rig.sums.get(counter) > 1000, "{load}, {shape:?}");
            assert_eq!(rig.sums.get(Counter::TxFrames), 0, "{load}: nothing is to be said");
            assert_clean(&rig, &format!("{load}, {shape:?}"));
        }
    }
}
