//! How descriptors come and go: close, dup, close_range.
//!
//! The kernel counts a socket's descriptors, in all processes. This module keeps the table of numbers right and says in the
//! slot that the close was meant: then toed, seeing the last descriptor go, closes in order instead of resetting.

use crate::fdtable::{self, Kind};
use crate::hub::{self, Watcher};
use crate::{Errno, Sock, process};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use toe::Farewell;
use toe::link::sys::{AppFd, ppoll};

pub use crate::process::{chroot, exec, exiting, fork_child, fork_parent, fork_prepare, received, sent, spawn, start};

/// close(2) of a number that is ours.
pub fn close(fd: i32) -> Result<(), Errno> {
    close_by(fd, || AppFd(fd).close())
}

/// The same where libc closes it, by `close`.
pub fn close_by(fd: i32, close: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    if !process::is_own() {
        // A vfork child borrows our memory: its close must not change our table.
        return close();
    }
    match fdtable::kind(fd) {
        // As if it were not open: the application has not opened it.
        Kind::Internal => return Err(Errno::BADF),
        Kind::Socket(slot) => return end(fd, slot, close),
        Kind::Epoll(_) => forget(fd),
        Kind::Other => {}
    }
    close()
}

/// Closes a socket's number by `close`. If it was the socket's last in any process, the card is told, as toed may be stopped.
fn end(fd: i32, slot: u32, close: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    Sock { fd, slot }.linger();
    let farewell = say_goodbye(slot);
    forget(fd);
    // Asking for the last costs some system calls, of which a listener or a socket without connection has no use.
    let last = if farewell.is_some() { AppFd(fd).last_by(close)? } else { close().map(|()| false)? };
    let mut hub = hub::lock();
    if let Some(farewell) = farewell.filter(|_| last) {
        hub.part(farewell);
    }
    // Threads in poll() may have looked while the number still was the token's.
    hub.wake_waiters_of(slot);
    Ok(())
}

/// The number means nothing to us any more; the descriptor stays open.
pub(crate) fn forget(fd: i32) {
    let mut hub = hub::lock();
    match fdtable::clear(fd) {
        Kind::Socket(slot) => {
            for (epoll, item_fd) in hub.items_of(slot) {
                if item_fd == fd {
                    hub.unwatch(slot, Watcher::Item(epoll, fd));
                    hub.drop_item(epoll, fd);
                }
            }
            hub.release(slot);
        }
        Kind::Epoll(index) => hub.release_epoll(index),
        Kind::Internal | Kind::Other => {}
    }
}

/// Says in the slot that its close is meant, and what to tell the card if it was the last. Only if this process uses it: a child that merely
/// inherited it and exits has no say.
fn say_goodbye(slot: u32) -> Option<Farewell> {
    let socket = process::view(slot).ok().filter(|_| process::is_attached())?;
    // SO_LINGER with zero seconds asks for a reset.
    socket.mark_clean(socket.slot().tx.linger.load(Relaxed) != 1);
    socket.farewell()
}

impl Sock {
    /// SO_LINGER: a close that waits until the peer has acknowledged everything, also with O_NONBLOCK. On Linux the socket's last one does. Whether
    /// another process has a copy cannot be known before; where that may be, this does not wait, which loses nothing: the card sends on.
    fn linger(self) {
        let Ok(socket) = self.words() else { return };
        let seconds = socket.slot().tx.linger.load(Relaxed);
        if seconds <= 1 || process::is_shared() || hub::lock().holders(self.slot) > 1 {
            return;
        }
        // Acknowledgements wake nobody who is not waiting for room, so this looks by itself.
        let deadline = Instant::now() + Duration::from_secs((seconds - 1).into());
        while socket.unacked() != 0 && !socket.is_dead() && Instant::now() < deadline {
            hub::lock().drain();
            let _ = ppoll(&mut [], Some(Duration::from_millis(1)), None);
        }
    }
}

/// Notes that `new` is a copy of `old` now, after the kernel has made it one.
fn copied(old: i32, new: i32) {
    let kind = fdtable::kind(old);
    let mut hub = hub::lock();
    match kind {
        Kind::Socket(slot) => hub.hold(slot),
        Kind::Epoll(index) => hub.hold_epoll(index),
        Kind::Internal | Kind::Other => return,
    }
    fdtable::set(new, kind);
}

/// After dup(2) or fcntl(F_DUPFD) of a number of ours has made `new`. A copy whose number the table has no place for is taken back (EMFILE): it
/// would be the token.
pub fn duplicated(old: i32, new: i32) -> Result<i32, Errno> {
    if process::is_own() {
        if has_no_place(old, new) {
            let _ = AppFd(new).close();
            return Err(Errno::MFILE);
        }
        copied(old, new);
    }
    Ok(new)
}

/// Whether `new` cannot mean what `old` does.
fn has_no_place(old: i32, new: i32) -> bool {
    fdtable::kind(old) != Kind::Other && !fdtable::fits(new)
}

/// dup2(2) and dup3(2) where one of the numbers is ours. `flags`: O_CLOEXEC or 0.
pub fn dup3(old: i32, new: i32, flags: i32) -> Result<i32, Errno> {
    let cloexec = flags & libc::O_CLOEXEC != 0;
    if fdtable::kind(old) == Kind::Internal {
        return Err(Errno::BADF);
    }
    // The library's own file lives there. Linux gives this error for a number in the middle of being opened.
    if fdtable::kind(new) == Kind::Internal && process::is_own() {
        return Err(Errno::BUSY);
    }
    if old == new {
        return rustix::io::fcntl_getfd(AppFd(old)).map(|_| new);
    }
    if !process::is_own() {
        return AppFd(new).replace(AppFd(old), cloexec).map(|()| new);
    }
    // Fails before anything is closed, as the kernel would.
    rustix::io::fcntl_getfd(AppFd(old))?;
    if has_no_place(old, new) {
        return Err(Errno::BADF);
    }
    match fdtable::kind(new) {
        Kind::Socket(slot) => end(new, slot, || AppFd(new).replace(AppFd(old), cloexec))?,
        _ => {
            forget(new);
            AppFd(new).replace(AppFd(old), cloexec)?;
        }
    }
    copied(old, new);
    Ok(new)
}

/// close_range(2) without flags that matter to us: calls `close_kernel` for the stretches between sockets and the library's own files.
pub fn close_range(first: u32, last: u32, mut close_kernel: impl FnMut(u32, u32) -> i32) -> i32 {
    if !process::is_own() || first > last {
        return close_kernel(first, last);
    }
    let mut from = first;
    for (fd, kind) in fdtable::ours(first, last).collect::<Vec<_>>() {
        match kind {
            Kind::Internal | Kind::Socket(_) => {
                let number = fd.unsigned_abs();
                if number > from {
                    close_kernel(from, number - 1);
                }
                from = number + 1;
                if let Kind::Socket(slot) = kind {
                    let _ = end(fd, slot, || AppFd(fd).close());
                }
            }
            Kind::Epoll(_) => forget(fd),
            Kind::Other => {}
        }
    }
    if from > last { 0 } else { close_kernel(from, last) }
}
