//! The port with a device made of software behind it.

mod board;
mod hostile;
mod restart;
mod sleep;
mod starting;
mod traffic;

use super::super::fake::{FakeDevice, FakeRegisters, Peer, TestMemory, machine};
use super::super::{Features, Transport};
use super::*;
use crate::wait::tests::TestClock;
use std::sync::Arc;
use toe_hal::{Frames, Lease, RxBurst, RxOffload, RxPort, TxFrame, TxOffload, TxPort};

/// What QEMU offers.
fn all() -> Features {
    Features::all() - Features::ACCESS_PLATFORM
}

struct World {
    memory: Arc<TestMemory>,
    registers: FakeRegisters,
    clock: TestClock,
}

impl World {
    fn new(offered: Features, max_pairs: u16, settings: &Settings) -> Self {
        Self::with_memory(settings.bytes(), offered, max_pairs)
    }

    fn with_memory(bytes: usize, offered: Features, max_pairs: u16) -> Self {
        let memory = TestMemory::new(bytes);
        let registers = FakeRegisters::new(FakeDevice::new(memory.clone(), offered, max_pairs));
        Self { memory, registers, clock: TestClock::default() }
    }

    fn start(&self, settings: &Settings) -> Result<Net<FakeRegisters, Bytes>, NetError> {
        self.start_with(settings, Bytes)
    }

    fn start_with<M>(&self, settings: &Settings, host: M) -> Result<Net<FakeRegisters, M>, NetError> {
        let (bus, function) = machine(|_| ());
        let transport = Transport::open(&bus, &function, &mut self.registers.map()).unwrap();
        start(transport, self.memory.dma(), settings, host, &self.clock)
    }

    fn peers(&self, pairs: u16) -> Vec<Peer> {
        let device = self.registers.device();
        let is_mergeable = device.accepted & Features::MRG_RXBUF.bits() != 0;
        (0..pairs).map(|pair| Peer::new(device.queue(2 * pair), device.queue(2 * pair + 1), is_mergeable)).collect()
    }
}

/// Few and small, so that everything runs out.
fn small() -> Settings {
    Settings { queue_size: 16, rx_buffers: 16, rx_buffer_len: 2048, spare_buffers: 2, tx_buffer_len: 4096, ..Settings::default() }
}

/// A frame of `len` bytes that says which it is.
fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn received<R: RxPort>(rx: &mut R) -> Vec<(Vec<u8>, RxOffload, Lease)> {
    let mut burst = RxBurst::new();
    let count = rx.receive(&mut burst);
    assert_eq!(count, burst.len());
    let frames = rx.frames();
    let open = |f: toe_hal::RxFrame| {
        let bytes = frames.frame(&f.lease).to_vec();
        assert_eq!(bytes.len(), f.len as usize);
        (bytes, f.offload, f.lease)
    };
    burst.into_iter().map(open).collect()
}

fn send<T: TxPort<Vec<u8>>>(tx: &mut T, header: &[u8], payload: &[Vec<u8>], offload: TxOffload) -> Result<(), toe_hal::TxBusy> {
    let payload_len = payload.iter().map(Vec::len).sum::<usize>() as u32;
    tx.transmit(&TxFrame { header, payload, payload_len, offload })
}
