//! The messages of a flow group, and credit for them: whoever wants to say something takes a box first.
//!
//! ```text
//!   take(class) ──► protocol fills it ──► post, dma ──► egress ──► give back
//!        └ None: the class has all of its share out, or the pool is empty
//! ```
//!
//! Each class has a share of its own, so none can keep another from going on: a flood of frames leaves room for control
//! messages, and new data for acknowledgements. Behind the pool nothing can overflow, as there are no more messages than boxes.

use crate::msg::OutMsg;
use alloc::{boxed::Box, vec::Vec};

/// What a message comes from, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Control messages.
    Control,
    /// Received frames: what answers them are ACKs.
    Rx,
    /// Timers, owed ACKs, retransmissions.
    Urgent,
    /// Descriptors of applications.
    Host,
    /// New data.
    Data,
}

const CLASSES: usize = 5;

pub struct Pool {
    #[allow(clippy::vec_box, reason = "boxes are what is handed out: a message never moves")]
    free: Vec<Box<OutMsg>>,
    used: [u16; CLASSES],
    limit: [u16; CLASSES],
    size: u16,
}

impl Pool {
    /// A pool of `size` messages, at least one for each class.
    pub fn new(size: u16) -> Self {
        let size = size.max(CLASSES as u16);
        let share = |part: u16| (size / part).max(1);
        let limit = [share(16), share(2), share(16), share(8), share(4)];
        let size = size.max(limit.iter().sum());
        Self { free: (0..size).map(|_| Box::new(OutMsg::new())).collect(), used: [0; CLASSES], limit, size }
    }

    /// Messages that can be out at a time.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Messages that are not out.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Messages that the class may take now.
    pub fn left(&self, class: Class) -> usize {
        usize::from(self.limit[class as usize] - self.used[class as usize])
    }

    /// Whether [`take`](Self::take) would give something.
    pub fn has(&self, class: Class) -> bool {
        self.left(class) > 0
    }

    /// An empty message of this class.
    pub fn take(&mut self, class: Class) -> Option<Box<OutMsg>> {
        if !self.has(class) {
            return None;
        }
        let mut msg = self.free.pop()?;
        self.used[class as usize] += 1;
        msg.class = class;
        Some(msg)
    }

    pub fn give(&mut self, mut msg: Box<OutMsg>) {
        msg.clear();
        self.used[msg.class as usize] -= 1;
        self.free.push(msg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Class; CLASSES] = [Class::Control, Class::Rx, Class::Urgent, Class::Host, Class::Data];

    #[test]
    fn no_class_can_take_what_is_anothers() {
        for size in [1, 5, 7, 64, 512] {
            let mut pool = Pool::new(size);
            for class in ALL.into_iter().rev() {
                let taken: Vec<_> = core::iter::from_fn(|| pool.take(class)).collect();
                assert!(!taken.is_empty(), "{class:?} of {size}");
                // They stay out.
                taken.into_iter().for_each(core::mem::forget);
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut pool = Pool::new(5);
        let msg = pool.take(Class::Data).unwrap();
        assert!(pool.take(Class::Data).is_none());
        pool.give(msg);
        assert!(pool.has(Class::Data) && pool.free() == usize::from(pool.size()));
    }
}
