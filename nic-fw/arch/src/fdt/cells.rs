//! Addresses and sizes in a device tree: how many words each has is said by the node around (2.3.5).

use super::blob::{Node, be32};
use crate::machine::{Machine, Wrong};
use crate::range::Range;

/// Words of an address and of a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cells {
    pub address: u32,
    pub size: u32,
}

impl Cells {
    /// What a node says for those inside it.
    pub fn of(node: &Node<'_>) -> Self {
        // Defaults of 2.3.5.
        Self { address: node.number("#address-cells").unwrap_or(2), size: node.number("#size-cells").unwrap_or(1) }
    }
}

/// Takes numbers of several words out of a property.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(pub &'a [u8]);

impl Words<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number of `cells` words; no number that we know has more than two.
    pub fn take(&mut self, cells: u32) -> Option<u64> {
        let mut number = 0;
        for _ in 0..Some(cells).filter(|cells| *cells <= 2)? {
            number = number << 32 | u64::from(be32(self.0, 0)?);
            self.0 = &self.0[4..];
        }
        Some(number)
    }
}

/// The ranges of `reg`.
pub fn ranges<'a>(what: &'static str, node: &Node<'a>, cells: Cells) -> impl Iterator<Item = Result<Range, Wrong>> + use<'a> {
    let mut words = Words(node.property("reg").unwrap_or_default());
    core::iter::from_fn(move || {
        if words.is_empty() {
            return None;
        }
        let Some((base, len)) = words.take(cells.address).zip(words.take(cells.size)) else {
            words = Words(&[]);
            return Some(Err(Wrong::Damaged("device tree")));
        };
        // A size of no words (a mistake of the node around) would go round for ever.
        if cells.address == 0 && cells.size == 0 {
            words = Words(&[]);
        }
        Some(Machine::range(what, base, len))
    })
}
