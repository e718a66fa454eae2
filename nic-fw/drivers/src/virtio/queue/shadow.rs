//! Whose each descriptor is: private, so no device can change it.
//!
//! ```text
//!   Ours ──hand_over──► Head { next, room } / Tail { next } ──take_back(head)──► Ours, `next` still readable
//! ```

use super::Part;
use alloc::boxed::Box;

/// A part of a chain is not ours to give, or the chain is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOurs;

const END: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Ours,
    /// The device's; the first of its chain.
    Head,
    /// The device's.
    Tail,
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    owner: Owner,
    /// The next in the chain that it was last in.
    next: u16,
    /// Of a head: bytes that the device may write to the chain.
    room: u32,
}

#[derive(Debug)]
pub(super) struct Shadow {
    descriptors: Box<[Descriptor]>,
    chains: u16,
}

impl Shadow {
    /// `len`: at most [`SIZE_MAX`](super::SIZE_MAX), so [`END`] is none of them.
    pub fn new(len: u16) -> Self {
        let descriptor = Descriptor { owner: Owner::Ours, next: END, room: 0 };
        Self { descriptors: alloc::vec![descriptor; usize::from(len)].into_boxed_slice(), chains: 0 }
    }

    /// All are ours.
    pub fn clear(&mut self) {
        self.descriptors.iter_mut().for_each(|descriptor| descriptor.owner = Owner::Ours);
        self.chains = 0;
    }

    pub fn len(&self) -> u16 {
        self.descriptors.len() as u16
    }

    /// Chains that the device has.
    pub fn chains(&self) -> u16 {
        self.chains
    }

    pub fn is_ours(&self, id: u16) -> bool {
        self.descriptors.get(usize::from(id)).is_some_and(|d| d.owner == Owner::Ours)
    }

    pub fn next(&self, id: u16) -> Option<u16> {
        self.descriptors.get(usize::from(id)).map(|d| d.next).filter(|next| *next != END)
    }

    /// Returns the head.
    pub fn hand_over(&mut self, parts: &[Part]) -> Result<u16, NotOurs> {
        let head = parts.first().ok_or(NotOurs)?.id;
        for (i, part) in parts.iter().enumerate() {
            if !self.is_ours(part.id) {
                // Undo: among them is one that was named before.
                parts[..i].iter().for_each(|p| self.descriptors[usize::from(p.id)].owner = Owner::Ours);
                return Err(NotOurs);
            }
            self.descriptors[usize::from(part.id)].owner = if i == 0 { Owner::Head } else { Owner::Tail };
        }
        for (i, part) in parts.iter().enumerate() {
            self.descriptors[usize::from(part.id)].next = parts.get(i + 1).map_or(END, |next| next.id);
        }
        let written = parts.iter().filter(|p| p.is_written);
        self.descriptors[usize::from(head)].room = written.fold(0, |sum, p| sum.saturating_add(p.len));
        self.chains += 1;
        Ok(head)
    }

    /// Takes the chain back whose head the device names, with the bytes that it had room for. `None`: the device has no such chain.
    pub fn take_back(&mut self, id: u32) -> Option<(u16, u32)> {
        let head = u16::try_from(id).ok()?;
        let first = *self.descriptors.get(usize::from(head)).filter(|d| d.owner == Owner::Head)?;
        let mut at = head;
        // A chain of ours: it ends, as `hand_over` never names a descriptor twice.
        while at != END {
            let descriptor = &mut self.descriptors[usize::from(at)];
            descriptor.owner = Owner::Ours;
            at = descriptor.next;
        }
        self.chains -= 1;
        Some((head, first.room))
    }
}
