//! A split virtqueue (VIRTIO 1.1, 2.6): buffers out to the device, used buffers back.
//!
//! ```text
//!   buffer i, descriptor i: ours ──post──► written ──kick: publish, notify──► the device's ──pop──► ours
//!
//!   available ring  .. │ published │ posted, not published │ ..       next_avail counts, mod 2^16
//!   used ring       .. │ popped │ used by the device │ ..             last_used
//! ```
//!
//! *Descriptor i always describes buffer i*, so what comes back needs no look at shared memory: the private shadow (`shadow.rs`) knows whose
//! each descriptor is, and the table itself is only ever written. The device writes the used ring and one event index; each is read
//! once and checked. A queue whose device breaks the rules is [`Broken`]: nothing more is read from it, and an [`Alarm`]
//! is raised. After a reset of the device all buffers are ours again ([`rewind`](Queue::rewind)), and it is told of the queue anew
//! ([`reopen`](Queue::reopen)).
//!
//! *Bursts*: [`post`](Queue::post) as many as there are, then [`kick`](Queue::kick) once: one publication, one look at whether the device
//! wants to be told, at most one write to its register.
//!
//! *Sleep* ([`arm`](Queue::arm)): the device interrupts when it has used the next buffer. Interrupts that were not asked for
//! still come now and then (a device checks event indices modulo 2^16); they do no harm.

mod alarm;
mod event;
mod rings;
mod shadow;
#[cfg(test)]
mod tests;

pub use alarm::Alarm;
pub use rings::Rings;
pub use shadow::NotOurs;

use crate::{DmaMemory, Registers, barrier};
use shadow::Shadow;

/// Most descriptors of a split queue (2.6).
pub const SIZE_MAX: u16 = 1 << 15;

/// The device has broken the rules of the queue: it named a buffer that it did not have, or more of them than it had. What it has it
/// keeps, until it has been reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// A part of a chain: a descriptor of ours and what of its buffer the device may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub id: u16,
    /// Bytes, from [`BufferShape::skip`] on.
    pub len: u32,
    /// The device writes; else it reads. All that it reads come before all that it writes.
    pub is_written: bool,
}

/// A chain that the device has used: its first descriptor, and how many bytes the device says that it wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    pub id: u16,
    /// A claim; not above what the chain has for writing.
    pub len: u32,
    /// The device claims to have written more than there was room for.
    pub is_overlong: bool,
}

/// How the buffers of a queue lie in its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferShape {
    /// Bytes from one buffer to the next.
    pub stride: usize,
    /// Bytes at the front of each that the device does not get.
    pub skip: usize,
}

/// Where to tell the device that a queue has new buffers.
#[derive(Clone, Debug)]
pub struct Notifier<R> {
    register: R,
    queue: u16,
}

impl<R: Registers> Notifier<R> {
    /// `register`: 16 bits.
    pub fn new(register: R, queue: u16) -> Self {
        Self { register, queue }
    }

    fn notify(&self) {
        self.register.write16(0, self.queue);
    }
}

/// One queue and its buffers. One core's.
#[derive(Debug)]
pub struct Queue<R> {
    rings: Rings,
    shadow: Shadow,
    buffers: DmaMemory,
    shape: BufferShape,
    notifier: Notifier<R>,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    has_event_idx: bool,
    /// Posted so far, mod 2^16.
    next_avail: u16,
    /// Published so far: what the device may take.
    published: u16,
    /// Popped so far.
    last_used: u16,
    is_armed: bool,
    is_broken: bool,
    alarm: Alarm,
    kicks: u64,
}

impl<R: Registers> Queue<R> {
    /// Over rings that the device has been told of. There are as many buffers as `buffers` has room for, at most the size
    /// of the queue. Interrupts are off.
    pub fn new(rings: Rings, buffers: DmaMemory, shape: BufferShape, notifier: Notifier<R>, has_event_idx: bool) -> Self {
        let count = buffers.len().checked_div(shape.stride).unwrap_or(0).min(usize::from(rings.size()));
        let mut this = Self {
            shadow: Shadow::new(count as u16),
            rings,
            buffers,
            shape,
            notifier,
            has_event_idx,
            next_avail: 0,
            published: 0,
            last_used: 0,
            is_armed: false,
            is_broken: false,
            alarm: Alarm::default(),
            kicks: 0,
        };
        this.disarm();
        this
    }

    /// The same, with an alarm for the case that the device breaks the rules.
    pub fn with_alarm(mut self, alarm: Alarm) -> Self {
        self.alarm = alarm;
        self
    }

    /// Nothing more is read from the device or told to it: its buffers stay its own, as in a queue that it has broken.
    pub fn shut(&mut self) {
        self.is_broken = true;
    }

    /// The device has been reset, so all buffers are ours and the rings are empty. Still shut.
    pub fn rewind(&mut self) {
        self.rings.clear();
        self.shadow.clear();
        (self.next_avail, self.published, self.last_used) = (0, 0, 0);
        self.disarm();
    }

    /// The device has been told of the rings again.
    pub fn reopen(&mut self, notifier: Notifier<R>) {
        self.notifier = notifier;
        self.is_broken = false;
    }

    /// For the device.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Buffers, and descriptors in use.
    pub fn buffers(&self) -> u16 {
        self.shadow.len()
    }

    /// Bytes of a buffer that the device gets.
    pub fn buffer_len(&self) -> usize {
        self.shape.stride.saturating_sub(self.shape.skip)
    }

    /// The bytes of buffer `id` that the device gets, for reading and writing while it is [`is_ours`](Self::is_ours).
    /// Out of range it is the first buffer's.
    pub fn buffer(&self, id: u16) -> *mut u8 {
        let offset = if id < self.shadow.len() { usize::from(id) * self.shape.stride } else { 0 };
        self.buffers.base().wrapping_add(offset + self.shape.skip)
    }

    /// Whether buffer `id` is not the device's.
    pub fn is_ours(&self, id: u16) -> bool {
        self.shadow.is_ours(id)
    }

    /// Chains that the device has, published or not.
    pub fn in_flight(&self) -> u16 {
        self.shadow.chains()
    }

    /// Whether the device has broken the rules.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Writes to the device's register so far.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Hands a chain of buffers to the device, at the next [`kick`](Self::kick). An error changes nothing: a part is not
    /// ours, named twice, or longer than its buffer.
    pub fn post(&mut self, parts: &[Part]) -> Result<(), NotOurs> {
        if parts.iter().any(|part| part.len as usize > self.buffer_len()) {
            return Err(NotOurs);
        }
        let head = self.shadow.hand_over(parts)?;
        for (i, part) in parts.iter().enumerate() {
            let address = self.buffers.device_address() + (usize::from(part.id) * self.shape.stride + self.shape.skip) as u64;
            let next = parts.get(i + 1).map(|next| next.id);
            self.rings.describe(part, address, next);
        }
        self.rings.offer(self.next_avail, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(())
    }

    /// Posted since the last kick.
    pub fn unpublished(&self) -> u16 {
        self.next_avail.wrapping_sub(self.published)
    }

    /// Publishes all that was posted, and tells the device if it wants to be told. Once per burst.
    pub fn kick(&mut self) {
        let (old, new) = (self.published, self.next_avail);
        if old == new || self.is_broken {
            return;
        }
        // Descriptors and ring entries before the index. Partner: the device's reading of the index before them.
        barrier::publish();
        self.rings.set_avail_index(new);
        self.published = new;
        // The index before the look at whether the device sleeps. Partner: its full barrier between saying so and its second look.
        barrier::full();
        // At most a queue's size was published, so the difference is exact although indices wrap.
        let wants_it = match self.has_event_idx {
            true => event::is_due(self.rings.avail_event(), new, old),
            false => !self.rings.device_is_awake(),
        };
        if wants_it {
            self.kicks += 1;
            self.notifier.notify();
        }
    }

    /// Whether the device says that it has used something that was not popped yet. Of a broken queue nothing is expected.
    pub fn has_used(&self) -> bool {
        !self.is_broken && self.rings.used_index() != self.last_used
    }

    /// The next used chain; its buffers are ours again, the device's writes to them visible.
    pub fn pop(&mut self) -> Result<Option<Used>, Broken> {
        if self.is_broken {
            return Err(Broken);
        }
        let waiting = self.rings.used_index().wrapping_sub(self.last_used);
        if waiting == 0 {
            return Ok(None);
        }
        // The index before the entry and the buffers. Partner: the device's write barrier before it sets the index.
        barrier::consume();
        let (id, len) = self.rings.used(self.last_used);
        // It can't have used more chains than were published; `take_back` checks that it had this one.
        let published = self.shadow.chains().saturating_sub(self.unpublished());
        let taken = if waiting > published { None } else { self.shadow.take_back(id) };
        let Some((id, room)) = taken else {
            self.is_broken = true;
            self.alarm.raise();
            return Err(Broken);
        };
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some(Used { id, len: len.min(room), is_overlong: len > room }))
    }

    /// The descriptor after `id` in the chain that was popped last.
    pub fn next_in_chain(&self, id: u16) -> Option<u16> {
        self.shadow.next(id)
    }

    /// Lets the device interrupt when it has used the next buffer. Returns whether it has used one already: then it may never
    /// interrupt, and the caller must not sleep.
    pub fn arm(&mut self) -> bool {
        self.is_armed = true;
        match self.has_event_idx {
            true => self.rings.set_used_event(self.last_used),
            false => self.rings.set_interrupts(true),
        }
        // The wish before the second look. Partner: the device's full barrier between its setting of the index and its look at the wish.
        barrier::full();
        self.has_used()
    }

    /// No interrupts, or as few as the device can do: nothing must be lost that [`arm`](Self::arm) does not find.
    pub fn disarm(&mut self) {
        self.is_armed = false;
        match self.has_event_idx {
            // Just passed: due again when the index has gone once round.
            true => self.rings.set_used_event(self.last_used.wrapping_sub(1)),
            false => self.rings.set_interrupts(false),
        }
    }

    pub fn is_armed(&self) -> bool {
        self.is_armed
    }
}
