//! The port as a board has it: with host memory that others write.

use super::*;
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::fake::{FakeClock, FakeKick, FakeMemory, FakeSlice};
use toe_hal::{Board, HostMemory, Parts};

struct TestBoard;

impl Board for TestBoard {
    type Memory = FakeMemory;
    type Rx = NetRx<FakeRegisters>;
    type Tx = NetTx<FakeRegisters, ReadFake>;
    type Kick = FakeKick;
    type Clock = FakeClock;
}

struct ReadFake;

impl ReadSlice<FakeSlice> for ReadFake {
    fn len(&self, slice: &FakeSlice) -> usize {
        slice.read().len()
    }

    fn read(&self, slice: &FakeSlice, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&slice.read()[offset..offset + out.len()]);
    }
}

/// Host memory may change as soon as the port was flushed, however late the device reads.
#[test]
fn payload_is_what_it_was_at_the_flush() {
    let world = World::new(all(), 1, &small());
    let Net { rx, tx, .. } = world.start_with(&small(), ReadFake).unwrap();
    let mut memory = FakeMemory::new(1);
    memory.map_owned(0x10_0000, 1 << 16);
    memory.bind(RegionId(1), 0x10_0000, 1 << 16).unwrap();
    let mut parts = Parts::<TestBoard> { memory, rx, tx, kick: FakeKick::default(), clock: FakeClock::default() };
    let (front, back) = (HostAddr::new(RegionId(1), 100), HostAddr::new(RegionId(1), 20_000));
    parts.memory.poke(front, &[1; 3000]);
    parts.memory.poke(back, &[2; 9000]);
    let slice = |addr, len| parts.memory.slice(HostSpan { addr, len }).unwrap();
    let payload = [slice(front, 3000), slice(back, 9000)];
    let header = frame(1, 54);
    let frame = TxFrame { header: &header, payload: &payload, payload_len: 12_000, offload: TxOffload::default() };
    parts.tx.transmit(&frame).unwrap();
    assert_eq!(TxPort::<FakeSlice>::flush(&mut parts.tx), 0);
    parts.memory.poke(front, &[9; 3000]);
    parts.memory.poke(back, &[9; 9000]);
    let sent = world.peers(1).remove(0).collect().unwrap();
    assert_eq!(sent.bytes, [header.as_slice(), &[1; 3000], &[2; 9000]].concat());
    assert!(!parts.rx.any());
}
