//! Eventfds of contexts: the card writes one (interrupt) and waits on the other (kick).

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use toe_abi::CtxId;
use toe_hal::Kick;

/// Interrupt eventfds by context, shared by the card (which raises) and the run loop (which sets).
#[derive(Clone, Debug)]
pub struct Interrupts(Rc<RefCell<Box<[Option<OwnedFd>]>>>);

impl Interrupts {
    pub fn new(max_contexts: u16) -> Self {
        Self(Rc::new(RefCell::new((0..max_contexts).map(|_| None).collect())))
    }

    /// Sets or takes away the eventfd of a context.
    pub fn set(&self, ctx: CtxId, fd: Option<OwnedFd>) -> io::Result<()> {
        if let Some(fd) = &fd {
            // A write that blocks would stop the whole card, and the host could arrange for it.
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        let mut fds = self.0.borrow_mut();
        *fds.get_mut(usize::from(ctx.0)).ok_or(rustix::io::Errno::INVAL)? = fd;
        Ok(())
    }
}

impl Kick for Interrupts {
    fn interrupt(&mut self, ctx: CtxId) {
        if let Some(Some(fd)) = self.0.borrow().get(usize::from(ctx.0)) {
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
