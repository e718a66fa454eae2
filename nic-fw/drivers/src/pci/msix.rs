//! Interrupts by memory writes (PCI 3.0, 6.8.2): a table in one of the function's BARs, an entry per vector.
//!
//! ```text
//!   capability: [0x11 | next | control: 15 enable, 14 mask all, 10..0 size - 1] [table: offset | BAR] [pending: ...]
//!   entry:      [address, low] [address, high] [data] [control: 0 masked]
//! ```

use super::capability;
use super::{BARS, Bar, ConfigSpace, Function, PciAddress};
use crate::Registers;

/// Most vectors of one function.
pub const VECTORS_MAX: u16 = 2048;

const CONTROL: u16 = 2;
const TABLE: u16 = 4;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;
const CONTROL_SIZE: u16 = 0x7ff;
const TABLE_BAR: u32 = 0b111;

const ENTRY_LEN: usize = 16;
const ENTRY_DATA: usize = 8;
const ENTRY_CONTROL: usize = 12;
const ENTRY_MASKED: u32 = 1;

/// Why there are no interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsixError {
    /// The function has no such capability.
    Missing,
    /// Its table would lie outside of its BARs, or in one without an address.
    BadTable,
    /// The board could not map the table.
    NotMapped,
    /// The function has only this many vectors.
    NoVector { vectors: u16 },
}

/// The vectors of one function. All are masked until they are [`set`](Self::set).
#[derive(Debug)]
pub struct Msix<R> {
    at: PciAddress,
    control: u16,
    table: R,
    vectors: u16,
}

impl<R: Registers> Msix<R> {
    /// Finds the table, masks all of it and switches MSI-X on. `map` turns a bus address and a length into registers. The function must
    /// have been enabled.
    pub fn open(
        config: &mut impl ConfigSpace,
        function: &Function,
        map: &mut impl FnMut(u64, u64) -> Option<R>,
    ) -> Result<Self, MsixError> {
        let capability = function.capability(config, capability::MSIX).ok_or(MsixError::Missing)?;
        let control = capability.offset + CONTROL;
        let word = config.read32(function.at, capability.offset + TABLE);
        let vectors = (config.read16(function.at, control) & CONTROL_SIZE) + 1;
        let address = table_address(&function.bars, word, vectors).ok_or(MsixError::BadTable)?;
        let table = map(address, u64::from(vectors) * ENTRY_LEN as u64).ok_or(MsixError::NotMapped)?;
        let this = Self { at: function.at, control, table, vectors };
        // All masked while the table holds nothing yet (6.8.2.3).
        config.write16(this.at, control, CONTROL_ENABLE | CONTROL_MASK_ALL);
        (0..vectors).for_each(|vector| this.write(vector, ENTRY_CONTROL, ENTRY_MASKED));
        config.write16(this.at, control, CONTROL_ENABLE);
        Ok(this)
    }

    /// How many there are.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Lets `vector` write `data` to bus address `address` (a multiple of 4), and unmasks it.
    pub fn set(&mut self, vector: u16, address: u64, data: u32) -> Result<(), MsixError> {
        self.mask(vector)?;
        self.write(vector, 0, address as u32 & !3);
        self.write(vector, 4, (address >> 32) as u32);
        self.write(vector, ENTRY_DATA, data);
        self.unmask(vector)
    }

    /// Interrupts that come meanwhile stay pending.
    pub fn mask(&mut self, vector: u16) -> Result<(), MsixError> {
        self.control_word(vector, ENTRY_MASKED)
    }

    pub fn unmask(&mut self, vector: u16) -> Result<(), MsixError> {
        self.control_word(vector, 0)
    }

    /// Switches MSI-X off.
    pub fn close(self, config: &mut impl ConfigSpace) {
        config.write16(self.at, self.control, CONTROL_MASK_ALL);
    }

    fn control_word(&mut self, vector: u16, word: u32) -> Result<(), MsixError> {
        if vector >= self.vectors {
            return Err(MsixError::NoVector { vectors: self.vectors });
        }
        self.write(vector, ENTRY_CONTROL, word);
        Ok(())
    }

    fn write(&self, vector: u16, register: usize, value: u32) {
        self.table.write32(usize::from(vector) * ENTRY_LEN + register, value);
    }
}

fn table_address(bars: &[Option<Bar>; BARS], word: u32, vectors: u16) -> Option<u64> {
    let bar = bars.get((word & TABLE_BAR) as usize)?.as_ref()?;
    let offset = u64::from(word & !TABLE_BAR);
    let fits = offset + u64::from(vectors) * ENTRY_LEN as u64 <= bar.size;
    bar.address.filter(|_| fits)?.checked_add(offset)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeBus, FakeFunction};
    use super::super::{Numbering, Windows, assign, scan};
    use super::*;
    use crate::Mmio;

    const AT: PciAddress = PciAddress { bus: 0, device: 1, function: 0 };

    fn machine(table: u32, size: u16) -> (FakeBus, Function) {
        let mut function = FakeFunction::endpoint(0x1af4, 0x1041);
        function.bar(1, 0x1000, 0);
        function.set16(0x06, 0x10);
        function.set8(0x34, 0x40);
        function.set8(0x40, 0x11);
        function.set16(0x42, size - 1);
        function.allow32(0x40, 0xc000_0000);
        function.set32(0x44, table);
        let mut bus = FakeBus::with([(AT, function)]);
        let mut found = scan(&mut bus, Numbering::Assign);
        let mut windows = Windows { low: 0x1000_0000..0x2000_0000, high: 0..0, align: 4096 };
        assign(&mut bus, &mut found, &mut windows, |no_room| panic!("{no_room:?}"));
        (bus, found.functions.remove(0))
    }

    #[test]
    fn vectors_are_masked_until_set() {
        let (mut bus, function) = machine(0x801, 4);
        let mut memory = [0xdead_beef_u32; 20];
        // SAFETY: memory of the test, reached through nothing else while it is a table.
        let registers = unsafe { Mmio::new(memory.as_mut_ptr().cast(), 64) };
        let mut asked = None;
        let mut map = |at, len| {
            asked = Some((at, len));
            Some(registers)
        };
        let mut msix = Msix::open(&mut bus, &function, &mut map).unwrap();
        assert_eq!(asked, Some((0x1000_0800, 64)));
        let word = |at| registers.read32(at);
        assert_eq!([0, 1, 2, 3].map(|v| word(v * 16 + 12)), [1; 4]);
        assert_eq!(bus.at(0, 1).get32(0x40) >> 30, 0b10);
        msix.set(2, 0x1_0808_0040, 77).unwrap();
        assert_eq!([32, 36, 40, 44].map(word), [0x0808_0040, 1, 77, 0]);
        assert_eq!(word(60), 1, "the others stay masked");
        msix.mask(2).unwrap();
        assert_eq!(word(44), 1);
        assert_eq!(msix.set(4, 0, 0), Err(MsixError::NoVector { vectors: 4 }));
        msix.close(&mut bus);
        assert_eq!(bus.at(0, 1).get32(0x40) >> 31, 0);
        assert_eq!(memory[16..], [0xdead_beef; 4], "nothing behind the table");
    }

    #[test]
    fn tables_that_lie_are_refused() {
        let open = |(mut bus, function): (FakeBus, Function)| {
            let mut map = |_, _| None::<Mmio>;
            Msix::open(&mut bus, &function, &mut map).map(|_| ()).unwrap_err()
        };
        for (table, size) in [(0x800 | 1, 129), (0xff8 | 1, 1), (0xffff_fff8 | 1, 1), (0, 1), (2, 1), (6, 1), (7, 1)] {
            assert_eq!(open(machine(table, size)), MsixError::BadTable, "{table:#x} {size}");
        }
        assert_eq!(open(machine(1, 256)), MsixError::NotMapped);
        let (bus, mut function) = machine(1, 1);
        function.bars[1].as_mut().unwrap().address = None;
        assert_eq!(open((bus, function)), MsixError::BadTable);
    }
}
