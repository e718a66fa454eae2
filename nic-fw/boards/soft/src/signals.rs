//! Eventfds of contexts: the card writes one (interrupt) and waits on the other (kick).
//!
//! ```text
//!   SET_IRQS ──► Interrupts::set ──► [ctx] ◄── interrupt ── core with the contexts       written, never read
//!            └─► Kicks::set      ──► epoll of that core                                  waited on, never read
//! ```

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toe_abi::CtxId;
use toe_hal::Kick;

/// Interrupt eventfds by context, shared by the card (which raises) and the run loop (which sets).
///
/// Both are on one core, the one that has the contexts and obeys the host: the lock lets the two be moved there and is never waited
/// for, so it costs an atomic swap beside the system call that follows. It also keeps an eventfd open while it is written.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<Mutex<Box<[Option<OwnedFd>]>>>);

impl Interrupts {
    pub fn new(max_contexts: u16) -> Self {
        Self(Arc::new(Mutex::new((0..max_contexts).map(|_| None).collect())))
    }

    fn fds(&self) -> MutexGuard<'_, Box<[Option<OwnedFd>]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or takes away the eventfd of a context.
    pub fn set(&self, ctx: CtxId, fd: Option<OwnedFd>) -> io::Result<()> {
        if let Some(fd) = &fd {
            // A write that blocks would stop the whole card, and the host could arrange for it.
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        let mut fds = self.fds();
        let place = fds.get_mut(usize::from(ctx.0)).ok_or(rustix::io::Errno::INVAL)?;
        let old = std::mem::replace(place, fd);
        drop(fds);
        // Closed after the lock is free: an interrupt need not wait for that.
        drop(old);
        Ok(())
    }
}

impl Kick for Interrupts {
    fn interrupt(&mut self, ctx: CtxId) {
        if let Some(Some(fd)) = self.fds().get(usize::from(ctx.0)) {
            // EAGAIN: the counter is at its maximum, so whoever waits is awake. Anything else is the host's own doing.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

/// Kick eventfds by context, registered with the run loop's epoll: edge-triggered and never read, so that
/// nothing an application does to its copy can block the card.
#[derive(Debug)]
pub struct Kicks(Box<[Option<OwnedFd>]>);

impl Kicks {
    pub fn new(max_contexts: u16) -> Self {
        Self((0..max_contexts).map(|_| None).collect())
    }

    /// Sets or takes away the eventfd of a context. Its events carry the context's number.
    pub fn set(&mut self, epoll: &OwnedFd, ctx: CtxId, fd: Option<OwnedFd>) -> io::Result<()> {
        let slot = self.0.get_mut(usize::from(ctx.0)).ok_or(rustix::io::Errno::INVAL)?;
        if let Some(old) = slot.take() {
            // Explicitly: closing our copy leaves the registration alive as long as others have one.
            epoll::delete(epoll, &old)?;
        }
        if let Some(fd) = &fd {
            let data = epoll::EventData::new_u64(ctx.0.into());
            epoll::add(epoll, fd, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        }
        *slot = fd;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;

    fn count(fd: &OwnedFd) -> Option<u64> {
        let mut count = [0; 8];
        rustix::io::read(fd, &mut count).ok().map(|_| u64::from_ne_bytes(count))
    }

    #[test]
    fn an_interrupt_reaches_the_eventfd_set_last_from_any_thread() {
        let interrupts = Interrupts::new(4);
        let [first, second] = std::array::from_fn(|_| rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let interrupt = |ctx| {
            let mut card = interrupts.clone();
            std::thread::spawn(move || card.interrupt(CtxId(ctx))).join().unwrap();
        };
        interrupt(1);
        interrupts.set(CtxId(1), Some(first.try_clone().unwrap())).unwrap();
        interrupt(1);
        interrupts.set(CtxId(1), Some(second.try_clone().unwrap())).unwrap();
        interrupt(1);
        interrupts.set(CtxId(1), None).unwrap();
        [1, 2, 99].into_iter().for_each(interrupt);
        assert_eq!((count(&first), count(&second)), (Some(1), Some(1)));
        assert!(interrupts.set(CtxId(4), None).is_err(), "no such context");
    }

    #[test]
    fn a_full_eventfd_does_not_block_the_card() {
        let mut interrupts = Interrupts::new(1);
        let fd = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        interrupts.set(CtxId(0), Some(fd.try_clone().unwrap())).unwrap();
        interrupts.interrupt(CtxId(0));
        assert_eq!(count(&fd), Some(u64::MAX - 1));
    }
}
