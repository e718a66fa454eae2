use super::testing::{Builder, virt};
use super::*;
use crate::machine::tests::range;
use crate::machine::{CORES_MAX, Mpidr};
use proptest::prelude::*;

#[test]
fn all_of_a_tree_is_read() {
    let mut tree = virt(4);
    tree.reserved.push((0x4000_0000, 0x10_0000));
    let m = machine(&tree.finish()).unwrap();
    assert_eq!(m.check(Mpidr(3)), Ok(()));
    assert_eq!(m.memory.all.as_slice(), [range(0x4000_0000, 0x1000_0000)]);
    assert_eq!(m.memory.free.as_slice(), [range(0x4010_0000, 0xff0_0000)]);
    assert_eq!(m.cores, [Mpidr(0), Mpidr(1), Mpidr(2), Mpidr(3)]);
    assert_eq!(m.gic.distributor, Some(range(0x800_0000, 0x1_0000)));
    assert_eq!(m.gic.redistributors, [range(0x80a_0000, 0xf6_0000)]);
    assert_eq!(m.gic.its, Some(range(0x808_0000, 0x2_0000)));
    assert_eq!(m.uart, Some(range(0x900_0000, 0x1000)));
    assert_eq!((m.psci, m.timer), (Some(Conduit::Smc), 27));
    assert_eq!(m.command_line, "tests only=timer");
    assert_eq!(m.seed, Some([7; 32]));
    let [bridge] = &m.bridges[..] else { panic!("one bridge") };
    assert_eq!((bridge.ecam, bridge.first_bus, bridge.last_bus), (range(0x40_1000_0000, 0x1000_0000), 0, 255));
    let windows: Vec<_> = bridge.windows.iter().map(|w| (w.range, w.bus_base)).collect();
    assert_eq!(windows, [(range(0x1000_0000, 0x2eff_0000), 0x1000_0000), (range(0x80_0000_0000, 0x80_0000_0000), 0x80_0000_0000)]);
}

#[test]
fn the_console_is_found_in_a_tree_that_is_wrong_elsewhere() {
    let tree = virt(CORES_MAX as u32 + 1).finish();
    assert_eq!(machine(&tree).unwrap_err(), Wrong::TooMany("cores", CORES_MAX));
    assert_eq!(uart(&tree), Some(range(0x900_0000, 0x1000)));
}

fn with(inside: impl FnOnce(&mut Builder)) -> Result<Machine, Wrong> {
    let mut tree = Builder::default();
    tree.node("", |root| {
        root.words("#address-cells", &[2]).words("#size-cells", &[2]);
        inside(root);
    });
    machine(&tree.finish())
}

#[test]
fn lies_are_errors() {
    let memory = |reg: &[u32]| {
        with(|root| {
            root.node("memory", |n| {
                n.text("device_type", "memory").words("reg", reg);
            });
        })
    };
    assert_eq!(memory(&[0, 0x4000_0000, 0, 0]).unwrap_err(), Wrong::Range("memory", 0x4000_0000, 0));
    assert_eq!(memory(&[!0, !0, 0, 2]).unwrap_err(), Wrong::Range("memory", u64::MAX, 2));
    assert_eq!(memory(&[0, 0x4000_0000, 0]).unwrap_err(), Wrong::Damaged("device tree"));
    let psci = with(|root| {
        root.node("psci", |n| {
            n.text("compatible", "arm,psci-1.0").text("method", "fax");
        });
    });
    assert_eq!(psci.unwrap_err(), Wrong::Damaged("method of PSCI: device tree"));
    let behind = with(|root| {
        root.node("bus", |n| {
            n.words("ranges", &[0, 0, 0, 0x100]);
            n.node("uart", |n| {
                n.text("compatible", "arm,pl011").words("reg", &[0, 1]);
            });
        });
    });
    assert!(matches!(behind, Err(Wrong::Damaged(what)) if what.contains("behind a bus")));
}

#[test]
fn what_is_off_is_left_out() {
    let off = with(|root| {
        root.node("uart", |n| {
            n.text("compatible", "arm,pl011").words("reg", &[0, 0x900_0000, 0, 0x1000]).text("status", "disabled");
        });
    });
    assert_eq!(off.unwrap().uart, None);
}

#[test]
fn sizes_of_no_words_end() {
    let endless = with(|root| {
        root.node("bus", |n| {
            n.words("#address-cells", &[0]).words("#size-cells", &[0]).property("ranges", b"");
            n.node("memory", |n| {
                n.text("device_type", "memory").words("reg", &[1, 2, 3]);
            });
        });
    });
    assert_eq!(endless.unwrap_err(), Wrong::Range("memory", 0, 0));
}

#[test]
fn a_tree_that_is_too_deep_is_damaged() {
    fn nest(tree: &mut Builder, depth: usize) {
        tree.node("n", |n| {
            if depth > 0 {
                nest(n, depth - 1)
            }
        });
    }
    assert_eq!(with(|root| nest(root, DEPTH_MAX - 2)).err(), None);
    assert_eq!(with(|root| nest(root, DEPTH_MAX - 1)).err(), Some(Wrong::Damaged("device tree")));
}

#[test]
fn every_blob_that_is_cut_off_is_an_error() {
    let tree = virt(2).finish();
    for len in 0..tree.len() {
        assert_eq!(machine(&tree[..len]).err(), Some(Wrong::Damaged("device tree")), "{len} of {} bytes", tree.len());
    }
}

#[test]
fn reserved_ranges_are_taken_out_and_lies_among_them_named() {
    let read = |range| {
        let mut tree = virt(1);
        tree.reserved.push(range);
        machine(&tree.finish())
    };
    assert_eq!(read((0x4000_0000, 4096)).unwrap().memory.free.as_slice(), [range(0x4000_1000, 0xfff_f000)]);
    assert_eq!(read((u64::MAX, 2)).unwrap_err(), Wrong::Range("reserved memory", u64::MAX, 2));
    let mut tree = Builder::default();
    tree.node("", |root| {
        root.words("#address-cells", &[2]).words("#size-cells", &[2]);
        root.node("reserved-memory", |n| {
            n.words("#address-cells", &[2]).words("#size-cells", &[2]).property("ranges", b"");
            n.node("secure@40000000", |n| {
                n.words("reg", &[0, 0x4000_0000, 0, 0x2000]);
            });
        });
        root.node("memory", |n| {
            n.text("device_type", "memory").words("reg", &[0, 0x4000_0000, 0, 0x8000]);
        });
    });
    assert_eq!(machine(&tree.finish()).unwrap().memory.free.as_slice(), [range(0x4000_2000, 0x6000)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes changed: an answer or an error, no panic, no end of time; what passes the check has all it needs.
    #[test]
    fn a_spoilt_tree_is_read_or_refused(changes in prop::collection::vec((0_usize..4000, any::<u8>()), 1..12), cut in 0_usize..8000) {
        let mut tree = virt(2).finish();
        for (at, byte) in changes {
            let at = at % tree.len();
            tree[at] = byte;
        }
        tree.truncate(cut.max(40));
        let _ = uart(&tree);
        if let Ok(machine) = machine(&tree)
            && machine.check(Mpidr(0)).is_ok()
        {
            prop_assert!(machine.gic.distributor.is_some() && machine.memory.free.total() > 0);
        }
    }

    /// Words changed to extremes reach arithmetic that single bytes do not.
    #[test]
    fn extreme_words_are_read_or_refused(changes in prop::collection::vec((0_usize..1000, prop::sample::select(vec![0_u32, 1, 2, 3, 9, !0, 1 << 31])), 1..4)) {
        let mut tree = virt(2).finish();
        for (at, word) in changes {
            let at = at % (tree.len() / 4) * 4;
            tree[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        let _ = machine(&tree).map(|machine| machine.check(Mpidr(0)));
    }
}
