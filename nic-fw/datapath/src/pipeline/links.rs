//! Links: the rings between stage instances, and which core each of them leads to.
//!
//! An instance stages what it sends and publishes it once at the end of its step, so a burst costs one release a ring; what it takes is given
//! back the same way.

use alloc::vec::Vec;
use toe_sync::{
    crew::CoreSet,
    spsc::{Full, Receiver, Sender, ring},
};

/// The sending end of a link.
pub struct Out<T> {
    ring: Sender<T>,
    /// The core that the other end is on.
    core: usize,
    /// Something was staged and not published yet.
    staged: bool,
}

impl<T: Send> Out<T> {
    pub fn has_room(&mut self) -> bool {
        self.ring.free(1) > 0
    }

    /// Takes an item; a full ring gives it back.
    pub fn send(&mut self, item: T) -> Result<(), T> {
        self.ring.stage(item).map_err(|Full(item)| item)?;
        self.staged = true;
        Ok(())
    }

    /// Publishes what was staged, and notes the core that has to see it.
    pub fn publish(&mut self, touched: &mut CoreSet) {
        if core::mem::take(&mut self.staged) {
            self.ring.publish();
            touched.insert(self.core);
        }
    }
}

/// The receiving end of a link.
pub struct In<T> {
    ring: Receiver<T>,
    taken: bool,
}

impl<T: Send> In<T> {
    pub fn next(&mut self) -> Option<T> {
        let item = self.ring.take();
        self.taken |= item.is_some();
        item
    }

    pub fn is_empty(&mut self) -> bool {
        self.ring.available(1) == 0
    }

    /// Gives the places of what was taken back to the sender.
    pub fn publish(&mut self) {
        if core::mem::take(&mut self.taken) {
            self.ring.publish();
        }
    }

    /// Items waiting, and how many there can be.
    pub fn depth(&mut self) -> Depth {
        Depth { queued: self.ring.available(u32::MAX), capacity: self.ring.capacity() }
    }
}

/// How full rings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Depth {
    pub queued: u32,
    pub capacity: u32,
}

impl core::iter::Sum for Depth {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, d| Self { queued: sum.queued + d.queued, capacity: sum.capacity + d.capacity })
    }
}

/// A link for `capacity` items to an instance on `core`.
pub fn link<T: Send>(capacity: u32, core: usize) -> (Out<T>, In<T>) {
    let (sender, receiver) = ring(capacity);
    (Out { ring: sender, core, staged: false }, In { ring: receiver, taken: false })
}

/// Several links that an instance takes from by turns.
pub struct Ins<T> {
    links: Vec<In<T>>,
    turn: usize,
}

impl<T> Default for Ins<T> {
    fn default() -> Self {
        Self { links: Vec::new(), turn: 0 }
    }
}

impl<T: Send> Ins<T> {
    pub fn add(&mut self, link: In<T>) {
        self.links.push(link);
    }

    /// The only link.
    pub fn take_one(&mut self) -> In<T> {
        debug_assert_eq!(self.links.len(), 1);
        self.links.remove(0)
    }

    /// The next item, each link by turns.
    pub fn next(&mut self) -> Option<T> {
        for _ in 0..self.links.len() {
            self.turn = if self.turn + 1 >= self.links.len() { 0 } else { self.turn + 1 };
            if let Some(item) = self.links[self.turn].next() {
                return Some(item);
            }
        }
        None
    }

    pub fn is_empty(&mut self) -> bool {
        self.links.iter_mut().all(In::is_empty)
    }

    pub fn publish(&mut self) {
        self.links.iter_mut().for_each(In::publish);
    }

    pub fn depth(&mut self) -> Depth {
        self.links.iter_mut().map(In::depth).sum()
    }
}

/// Links to the replicas of a stage: an item goes to the one whose turn it is, or to the next that has room.
pub struct Outs<T> {
    links: Vec<Out<T>>,
    turn: usize,
}

impl<T> Default for Outs<T> {
    fn default() -> Self {
        Self { links: Vec::new(), turn: 0 }
    }
}

impl<T: Send> Outs<T> {
    pub fn add(&mut self, link: Out<T>) {
        self.links.push(link);
    }

    pub fn has_room(&mut self) -> bool {
        self.links.iter_mut().any(Out::has_room)
    }

    pub fn send(&mut self, mut item: T) -> Result<(), T> {
        for _ in 0..self.links.len() {
            self.turn = if self.turn + 1 >= self.links.len() { 0 } else { self.turn + 1 };
            match self.links[self.turn].send(item) {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        Err(item)
    }

    pub fn publish(&mut self, touched: &mut CoreSet) {
        self.links.iter_mut().for_each(|link| link.publish(touched));
    }
}
