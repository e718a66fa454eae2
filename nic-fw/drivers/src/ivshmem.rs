//! ivshmem, memory that QEMU shares between machines and host processes (QEMU, docs/specs/ivshmem-spec.txt, revision 1).
//!
//! ```text
//!   BAR 0: registers  [mask | status | position | doorbell]     BAR 1: MSI-X table     BAR 2: the memory
//!                                                   └─ring(peer, vector)─► interrupt of another, or its eventfd
//! ```

use crate::Registers;
use crate::pci::{ConfigSpace, Function, Msix, MsixError, Scan};

pub const VENDOR: u16 = 0x1af4;
pub const DEVICE: u16 = 0x1110;

const REGISTERS: usize = 0;
const REGISTERS_LEN: u64 = 16;
const MEMORY: usize = 2;

const INTR_MASK: usize = 0;
const INTR_STATUS: usize = 4;
const IV_POSITION: usize = 8;
const DOORBELL: usize = 12;

/// Why the device can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvshmemError {
    /// It is another device, or a BAR is missing or has no address.
    BadBar(usize),
    /// The board could not map the registers.
    NotMapped,
}

/// The memory, by its bus address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub address: u64,
    /// Bytes, a power of two.
    pub len: u64,
}

/// One device.
#[derive(Debug)]
pub struct Ivshmem<R> {
    registers: R,
    window: Window,
}

impl<R: Registers> Ivshmem<R> {
    /// The first one on the bus.
    pub fn find(scan: &Scan) -> Option<&Function> {
        scan.find(VENDOR, &[DEVICE])
    }

    /// `map` turns a bus address and a length into registers. The function must have been enabled.
    pub fn open(function: &Function, map: &mut impl FnMut(u64, u64) -> Option<R>) -> Result<Self, IvshmemError> {
        let bar = |index: usize| {
            let bar = function.bars[index].ok_or(IvshmemError::BadBar(index))?;
            Ok((bar.address.ok_or(IvshmemError::BadBar(index))?, bar.size))
        };
        let (address, len) = bar(MEMORY)?;
        let (at, size) = bar(REGISTERS)?;
        if size < REGISTERS_LEN {
            return Err(IvshmemError::BadBar(REGISTERS));
        }
        let registers = map(at, REGISTERS_LEN).ok_or(IvshmemError::NotMapped)?;
        Ok(Self { registers, window: Window { address, len } })
    }

    /// Its vectors, one per doorbell that others can ring. [`MsixError::Missing`]: a device without doorbells (ivshmem-plain).
    pub fn vectors(
        config: &mut impl ConfigSpace,
        function: &Function,
        map: &mut impl FnMut(u64, u64) -> Option<R>,
    ) -> Result<Msix<R>, MsixError> {
        Msix::open(config, function, map)
    }

    /// Where the memory lies; the board maps it, as normal memory. All in it is hostile.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Our own number among the peers; `None`: not known yet, as the server has not sent it.
    pub fn position(&self) -> Option<u16> {
        u16::try_from(self.registers.read32(IV_POSITION)).ok()
    }

    /// Interrupts vector `vector` of peer `peer`. What has been written to the memory before, the peer sees. Nothing happens if there
    /// is no such peer or vector.
    pub fn ring(&self, peer: u16, vector: u16) {
        // The store of the doorbell must not overtake the stores that it tells about. Partner: the peer's interrupt.
        crate::barrier::full();
        self.registers.write32(DOORBELL, u32::from(peer) << 16 | u32::from(vector));
    }

    /// For devices without MSI-X: which interrupts reach the INTx line.
    pub fn set_mask(&self, mask: u32) {
        self.registers.write32(INTR_MASK, mask);
    }

    /// For devices without MSI-X: reads and clears what has come.
    pub fn take_status(&self) -> u32 {
        self.registers.read32(INTR_STATUS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mmio;
    use crate::pci::fake::{FakeBus, FakeFunction};
    use crate::pci::{Numbering, PciAddress, Windows, assign, scan};

    fn machine(registers_len: u64) -> Scan {
        let mut function = FakeFunction::endpoint(VENDOR, DEVICE);
        function.bar(0, registers_len, 0);
        function.bar(2, 64 << 20, 0b1100);
        let mut bus = FakeBus::with([(PciAddress { bus: 0, device: 4, function: 0 }, function)]);
        let mut found = scan(&mut bus, Numbering::Assign);
        let mut windows = Windows { low: 0x1000_0000..0x2000_0000, high: 0x80_0000_0000..0x81_0000_0000, align: 4096 };
        assign(&mut bus, &mut found, &mut windows, |no_room| panic!("{no_room:?}"));
        found
    }

    #[test]
    fn the_doorbell_names_peer_and_vector() {
        let found = machine(256);
        let mut memory = [0u32, 5, 3, 0];
        // SAFETY: memory of the test, reached through nothing else meanwhile.
        let registers = unsafe { Mmio::new(memory.as_mut_ptr().cast(), 16) };
        let mut map = |at, len| (at == 0x1000_0000 && len == 16).then_some(registers);
        let device = Ivshmem::open(Ivshmem::<Mmio>::find(&found).unwrap(), &mut map).unwrap();
        assert_eq!(device.window(), Window { address: 0x80_0000_0000, len: 64 << 20 });
        assert_eq!((device.position(), device.take_status()), (Some(3), 5));
        device.ring(0x12, 0x34);
        device.set_mask(7);
        assert_eq!((registers.read32(DOORBELL), registers.read32(INTR_MASK)), (0x12_0034, 7));
        registers.write32(IV_POSITION, u32::MAX);
        assert_eq!(device.position(), None);
    }

    #[test]
    fn a_device_without_its_bars_is_refused() {
        let mut map = |_, _| None::<Mmio>;
        let mut open = |function: &Function| Ivshmem::open(function, &mut map).map(|_| ()).unwrap_err();
        let mut function = machine(256).functions.remove(0);
        assert_eq!(open(&function), IvshmemError::NotMapped);
        function.bars[2].as_mut().unwrap().address = None;
        assert_eq!(open(&function), IvshmemError::BadBar(2));
        function.bars[2] = None;
        assert_eq!(open(&function), IvshmemError::BadBar(2));
        let mut vectors = |_, _| None::<Mmio>;
        let none = Ivshmem::vectors(&mut FakeBus::default(), &function, &mut vectors).map(|_| ()).unwrap_err();
        assert_eq!(none, MsixError::Missing);
    }
}
