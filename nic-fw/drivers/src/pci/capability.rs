//! The list of a function's capabilities (PCI 3.0, 6.7).
//!
//! ```text
//!   0x34 ─► [id | next | ...] ─► [id | next | ...] ─► 0        anywhere in 0x40..0x100, on multiples of four
//! ```

use super::config::register;
use super::{ConfigSpace, PciAddress};

pub const MSIX: u8 = 0x11;

const STATUS_HAS_LIST: u16 = 1 << 4;
const FIRST: u8 = 0x40;

/// One capability: its id, and where it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    pub id: u8,
    pub offset: u16,
}

/// Goes through the list once. A list that leads back to a place seen before, or out of its space, ends there.
#[derive(Debug)]
pub struct Capabilities<'a, C> {
    config: &'a C,
    at: PciAddress,
    next: u8,
    /// Bit n: the list has been at offset 4 n.
    seen: u64,
}

impl<'a, C: ConfigSpace> Capabilities<'a, C> {
    pub fn of(config: &'a C, at: PciAddress) -> Self {
        let has_list = config.read16(at, register::STATUS) & STATUS_HAS_LIST != 0;
        let next = if has_list { config.read8(at, register::CAPABILITIES) } else { 0 };
        Self { config, at, next, seen: 0 }
    }
}

impl<C: ConfigSpace> Iterator for Capabilities<'_, C> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        // The two low bits are reserved and must be masked (PCI 3.0, 6.7).
        let offset = self.next & !3;
        let seen = 1 << (offset / 4);
        if offset < FIRST || self.seen & seen != 0 {
            return None;
        }
        self.seen |= seen;
        let [id, next, ..] = self.config.read32(self.at, u16::from(offset)).to_le_bytes();
        self.next = next;
        (id != 0xff).then_some(Capability { id, offset: u16::from(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeBus, FakeFunction};
    use super::*;
    use proptest::prelude::*;

    const AT: PciAddress = PciAddress { bus: 0, device: 1, function: 0 };

    fn list(links: &[(u8, u8, u8)], first: u8) -> Vec<(u8, u16)> {
        let mut function = FakeFunction::endpoint(0x1af4, 0x1041);
        function.set16(0x06, 0x10);
        function.set8(0x34, first);
        for (offset, id, next) in links {
            function.set8(*offset as usize, *id);
            function.set8(*offset as usize + 1, *next);
        }
        let bus = FakeBus::with([(AT, function)]);
        Capabilities::of(&bus, AT).map(|c| (c.id, c.offset)).collect()
    }

    #[test]
    fn all_are_found_in_their_order() {
        assert_eq!(list(&[(0x40, 9, 0x63), (0x60, 0x11, 0x50), (0x50, 9, 0)], 0x40), [(9, 0x40), (0x11, 0x60), (9, 0x50)]);
        assert_eq!(list(&[], 0), []);
    }

    #[test]
    fn lists_that_lie_end() {
        assert_eq!(list(&[(0x40, 9, 0x40)], 0x40), [(9, 0x40)], "itself");
        assert_eq!(list(&[(0x40, 9, 0x50), (0x50, 8, 0x40)], 0x40), [(9, 0x40), (8, 0x50)], "a loop");
        assert_eq!(list(&[(0x40, 9, 0x20)], 0x40), [(9, 0x40)], "into the header");
        assert_eq!(list(&[(0x40, 0xff, 0xff)], 0x40), [], "a function that has gone");
    }

    #[test]
    fn without_the_status_bit_there_is_none() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.set8(0x34, 0x40);
        function.set8(0x40, 9);
        let bus = FakeBus::with([(AT, function)]);
        assert_eq!(Capabilities::of(&bus, AT).count(), 0);
        assert_eq!(Capabilities::of(&bus, PciAddress { device: 2, ..AT }).count(), 0, "nobody there");
    }

    proptest! {
        #[test]
        fn any_bytes_end_within_the_space(bytes in proptest::collection::vec(any::<u8>(), 256)) {
            let mut function = FakeFunction::endpoint(1, 1);
            bytes.iter().enumerate().skip(0x34).for_each(|(at, byte)| function.set8(at, *byte));
            function.set16(0x06, 0x10);
            let bus = FakeBus::with([(AT, function)]);
            let found: Vec<_> = Capabilities::of(&bus, AT).take(100).collect();
            prop_assert!(found.len() <= 48);
            prop_assert!(found.iter().all(|c| (0x40..0x100).contains(&c.offset) && c.offset % 4 == 0));
        }
    }
}
