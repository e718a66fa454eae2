//! The way in, with devices that obey and devices that don't.

use super::super::fake::{BAR_LEN, FakeDevice, FakeRegisters, TestMemory, machine};
use super::super::queue::Rings;
use super::*;
use crate::Mmio;
use crate::pci::fake::FakeFunction;
use crate::wait::tests::TestClock;
use proptest::prelude::*;

fn device(offered: Features) -> FakeRegisters {
    FakeRegisters::new(FakeDevice::new(TestMemory::new(1 << 16), offered, 2))
}

fn open(registers: &FakeRegisters) -> Transport<FakeRegisters> {
    let (bus, function) = machine(|_| ());
    Transport::open(&bus, &function, &mut registers.map()).unwrap()
}

fn negotiate(registers: &FakeRegisters, needed: Features, wanted: Features) -> Result<Features, TransportError> {
    open(registers).negotiate(&TestClock::default(), needed, |_| wanted)
}

#[test]
fn a_device_is_started_in_the_order_of_the_specification() {
    let registers = device(Features::VERSION_1 | Features::MAC | Features::MTU);
    let mut transport = open(&registers);
    let features = transport.negotiate(&TestClock::default(), Features::VERSION_1, |_| Features::MAC | Features::CSUM).unwrap();
    assert_eq!(features, Features::VERSION_1 | Features::MAC);
    assert_eq!(registers.device().accepted, features.bits());
    transport.start();
    assert_eq!(registers.device().statuses, [0, 1, 3, 11, 15]);
    assert!(!transport.needs_reset());
    registers.device().status |= 64;
    assert!(transport.needs_reset());
    transport.fail();
    assert_eq!(registers.device().statuses.last(), Some(&0xcf));
}

#[test]
fn features_come_with_what_they_need() {
    let chosen = |without: Features| negotiate(&device(Features::all() - without), Features::VERSION_1, Features::all()).unwrap();
    let lacks = |without| Features::all() - chosen(without);
    use Features as F;
    assert_eq!(lacks(F::empty()), F::empty());
    assert_eq!(lacks(F::CSUM), F::CSUM | F::HOST_TSO4 | F::HOST_TSO6 | F::HOST_ECN);
    assert_eq!(lacks(F::GUEST_CSUM), F::GUEST_CSUM | F::GUEST_TSO4 | F::GUEST_TSO6 | F::GUEST_ECN);
    assert_eq!(lacks(F::GUEST_TSO6), F::GUEST_TSO6 | F::GUEST_ECN);
    assert_eq!(lacks(F::CTRL_VQ), F::CTRL_VQ | F::CTRL_RX | F::MQ);
}

#[test]
fn what_does_not_work_is_named() {
    let all = Features::all();
    assert_eq!(negotiate(&device(all - Features::VERSION_1), Features::VERSION_1, all), Err(TransportError::Lacks(Features::VERSION_1)));
    let refuses = device(all);
    refuses.device().refuses = true;
    assert_eq!(negotiate(&refuses, all, all), Err(TransportError::Refused(all)));
    let stuck = device(all);
    stuck.device().status = 15;
    stuck.device().reset_reads = u32::MAX;
    let late = TransportError::TimedOut(TimedOut { step: "reset of a virtio device", read: 15 });
    assert_eq!(negotiate(&stuck, all, all), Err(late));
    let gone = device(all);
    gone.device().has_gone = true;
    assert!(matches!(negotiate(&gone, all, all), Err(TransportError::TimedOut(TimedOut { read: 0xff, .. }))));
}

#[test]
fn a_slow_reset_is_waited_for() {
    let slow = device(Features::all());
    slow.device().status = 15;
    slow.device().reset_reads = 1000;
    assert!(negotiate(&slow, Features::VERSION_1, Features::all()).is_ok());
}

#[test]
fn a_queue_lies_where_the_device_is_told() {
    let registers = device(Features::all());
    let mut transport = open(&registers);
    let mut memory = registers.device().memory.dma();
    registers.device().queues[3].max = 100;
    assert_eq!(transport.queue_size(3, 256), Ok(64), "a power of two");
    assert_eq!(transport.queue_size(2, 128), Ok(128));
    let rings = Rings::take(&mut memory, 64).unwrap();
    transport.enable_queue(3, &rings, Some(7)).unwrap();
    let queue = registers.device().queues[3].clone();
    assert_eq!((queue.size, queue.vector, queue.is_enabled, queue.addresses), (64, 7, true, rings.addresses()));
}

#[test]
fn queues_that_can_not_be_are_refused() {
    let registers = device(Features::all());
    let mut transport = open(&registers);
    let rings = Rings::take(&mut registers.device().memory.dma(), 64).unwrap();
    assert_eq!(transport.queue_size(5, 256), Err(TransportError::NoQueue { index: 5, size: 0 }));
    for (max, is_fine) in [(0, false), (1, false), (0xffff, false), (0x8001, true)] {
        registers.device().queues[1].max = max;
        assert_eq!(transport.queue_size(1, 0x8000).is_ok(), is_fine, "{max}");
    }
    assert_eq!(transport.enable_queue(0, &rings, Some(8)).unwrap_err(), TransportError::NoVector(8));
    assert_eq!(transport.set_config_vector(Some(8)), Err(TransportError::NoVector(8)));
    assert_eq!((transport.set_config_vector(Some(1)), transport.set_config_vector(None)), (Ok(()), Ok(())));
    registers.device().queues[0].notify_off = 0x400;
    assert_eq!(transport.enable_queue(0, &rings, None).unwrap_err(), TransportError::BadNotify { index: 0, offset: 0x400 });
    registers.device().queues[0].notify_off = 0x3ff;
    assert!(transport.enable_queue(0, &rings, None).is_ok(), "the last that is inside");
}

#[test]
fn configuration_is_read_in_one_piece_or_not_at_all() {
    let registers = device(Features::all());
    let transport = open(&registers);
    assert_eq!(transport.config(|config| config.read16(10)), Ok(9000));
    registers.device().is_unsteady = true;
    assert_eq!(transport.config(|config| config.read16(10)), Err(TransportError::Unsteady));
}

#[test]
fn the_isr_status_is_cleared_by_reading() {
    let registers = device(Features::all());
    registers.device().isr = 2;
    let transport = open(&registers);
    assert_eq!((transport.take_isr(), transport.take_isr()), ((false, true), (false, false)));
}

/// Every structure must be there; capability `n` begins at 0x40 + 20 n.
#[test]
fn a_missing_structure_is_named() {
    let missing = |change: fn(&mut FakeFunction)| {
        let (bus, function) = machine(change);
        Transport::open(&bus, &function, &mut device(Features::all()).map()).map(|_| ()).unwrap_err()
    };
    let structure = TransportError::NoStructure;
    assert_eq!(missing(|f| f.set8(0x40 + 40 + 3, 77)), structure("common configuration"));
    assert_eq!(missing(|f| f.set32(0x40 + 40 + 12, 55)), structure("common configuration"), "too short");
    assert_eq!(missing(|f| f.set8(0x40 + 60 + 4, 6)), structure("notification"), "no such BAR");
    assert_eq!(missing(|f| f.set32(0x40 + 80 + 8, BAR_LEN as u32)), structure("ISR status"), "outside");
    assert_eq!(missing(|f| f.set32(0x40 + 100 + 12, u32::MAX)), structure("device configuration"));
    assert_eq!(missing(|f| f.set8(0x40 + 60 + 2, 16)), structure("notification"), "without a multiplier");
    let (bus, function) = machine(|_| ());
    let none = Transport::open(&bus, &function, &mut |_, _| None::<FakeRegisters>).map(|_| ()).unwrap_err();
    assert_eq!(none, TransportError::NotMapped("common configuration"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever capabilities and registers say, nothing outside of the BAR is mapped, and nothing panics. The registers are plain memory
    /// here.
    #[test]
    fn capabilities_and_registers_that_lie_lead_nowhere(
        changes in prop::collection::vec((0x40usize..0xc0, any::<u8>()), 0..12),
        noise in prop::collection::vec((0usize..BAR_LEN as usize / 4, any::<u32>()), 0..64),
        common in prop::collection::vec(any::<u32>(), 14),
    ) {
        let (bus, function) = machine(|f| changes.iter().for_each(|(at, byte)| f.set8(*at, *byte)));
        let mut bar = vec![0u32; BAR_LEN as usize / 4];
        bar[..14].copy_from_slice(&common);
        noise.iter().for_each(|(at, word)| bar[*at] = *word);
        // SAFETY: memory of the test, reached through nothing else while these registers are.
        let registers = unsafe { Mmio::new(bar.as_mut_ptr().cast(), BAR_LEN as usize) };
        let start = function.bars[4].unwrap().address.unwrap();
        let mut map = |at: u64, len: u64| Some(registers.part((at - start) as usize, len as usize).expect("inside the BAR"));
        if let Ok(mut transport) = Transport::open(&bus, &function, &mut map) {
            let memory = TestMemory::new(1 << 16);
            let rings = Rings::take(&mut memory.dma(), 16).unwrap();
            let _ = transport.negotiate(&TestClock::default(), Features::VERSION_1, |_| Features::all());
            for index in [0, 1, 0xffff] {
                if let Ok(size) = transport.queue_size(index, 256) {
                    prop_assert!(size.is_power_of_two() && (2..=256).contains(&size));
                }
                let _ = transport.enable_queue(index, &rings, Some(0));
            }
            let _ = transport.config(|config| config.read16(62));
            transport.start();
        }
    }
}
