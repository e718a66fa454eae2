//! System calls that rustix does not have, and descriptors that the application owns.

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::time::Duration;

/// A descriptor number that came from the application: ours to use in system calls, not to own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AppFd(pub RawFd);

impl AsFd for AppFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // A negative number must not become a `BorrowedFd` (-1 is its niche); this one is never open.
        let number = if self.0 < 0 { RawFd::MAX } else { self.0 };
        // SAFETY: the number goes to system calls only. If the application has closed it, they answer EBADF or act on what the
        // application has opened there: just as they would have without us.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}

impl AppFd {
    /// Closes it, on the application's behalf.
    pub fn close(self) -> Result<(), Errno> {
        if self.0 < 0 {
            return Err(Errno::BADF);
        }
        // SAFETY: SYS_close with a number that the application asked to be closed; it owns it.
        let result = unsafe { raw::call5(libc::SYS_close as usize, [self.0 as usize, 0, 0, 0, 0]) };
        if result < 0 { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(()) }
    }

    /// The same. `true`: no descriptor of the socket is left, in any process; `false`: one is, or it can't be known.
    pub fn close_last(self) -> Result<bool, Errno> {
        self.last_by(|| self.close())
    }

    /// Puts `file` at this number, closing what was there.
    pub fn replace(self, file: impl AsFd, cloexec: bool) -> Result<(), Errno> {
        if self.0 < 0 {
            return Err(Errno::BADF);
        }
        // SAFETY: see `close`; the temporary owner is forgotten below, so nothing is closed twice.
        let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.0) });
        let flags = if cloexec { rustix::io::DupFlags::CLOEXEC } else { rustix::io::DupFlags::empty() };
        rustix::io::dup3(file, &mut target, flags)
    }

    /// setsockopt(2).
    pub fn set_option(self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let at = value.as_ptr().expose_provenance();
        let args = [self.0 as usize, level as usize, name as usize, at, value.len()];
        // SAFETY: SYS_setsockopt only reads the value, which outlives the call.
        let result = unsafe { raw::call5(libc::SYS_setsockopt as usize, args) };
        if result < 0 { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(()) }
    }

    /// Does `close`, by which this number is closed. Whether that was a socket's last descriptor: as [`close_last`](Self::close_last).
    pub fn last_by(self, close: impl FnOnce() -> Result<(), Errno>) -> Result<bool, Errno> {
        let copies = Copies::new().and_then(|copies| copies.watch(self, 0).map(|()| copies));
        close()?;
        Ok(copies.and_then(|copies| copies.left(1)).is_ok_and(|left| left.is_empty()))
    }
}

/// Tells of sockets whether a descriptor of them is left, in any process. They must be such that can be written to: an epoll instance forgets
/// a socket when its last descriptor goes, and until then says that it is ready.
pub struct Copies(AppFd);

impl Copies {
    pub fn new() -> Result<Self, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(|epoll| Self(AppFd(epoll.into_raw_fd())))
    }

    /// To be called before the number is closed.
    pub fn watch(&self, socket: AppFd, key: u64) -> Result<(), Errno> {
        epoll::add(self.0, socket, epoll::EventData::new_u64(key), epoll::EventFlags::OUT)
    }

    /// The keys of sockets of which a descriptor is left, up to `most` (not 0).
    pub fn left(&self, most: usize) -> Result<Vec<u64>, Errno> {
        let mut found = Vec::with_capacity(most);
        epoll::wait(self.0, spare_capacity(&mut found), Some(&rustix::time::Timespec::default()))?;
        Ok(found.iter().map(|event| event.data.u64()).collect())
    }
}

/// To put something at a number that takes and gives nothing.
impl AsFd for Copies {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // Not by libc's close(), which may be the preloaded one, to which the number may be that of a socket: libc has closed it behind its back.
        let _ = self.0.close();
    }
}

/// A signal mask as the kernel has it: 64 signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigMask(pub u64);

/// ppoll(2): sleeps until a descriptor is ready, the time is over, or a signal was handled (EINTR), with `mask` in place
/// meanwhile. `None` for the timeout: for ever.
pub fn ppoll(fds: &mut [libc::pollfd], timeout: Option<Duration>, mask: Option<SigMask>) -> Result<usize, Errno> {
    // The kernel writes the time that is left into it.
    let mut time =
        timeout.map(|t| libc::timespec { tv_sec: t.as_secs().min(i64::MAX as u64) as libc::time_t, tv_nsec: t.subsec_nanos().into() });
    let time_ptr = time.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let mask_ptr = mask.as_ref().map_or(std::ptr::null(), |m| std::ptr::from_ref(&m.0));
    let args = [fds.as_mut_ptr().addr(), fds.len(), time_ptr.expose_provenance(), mask_ptr.expose_provenance(), size_of::<u64>()];
    fds.as_mut_ptr().expose_provenance();
    // SAFETY: SYS_ppoll with an array and its length, a timespec or null, a kernel sigset or null and its size.
    let result = unsafe { raw::call5(libc::SYS_ppoll as usize, args) };
    if result < 0 { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(result as usize) }
}

/// Signals 32 to 34: libc's own, by which setuid() reaches all threads. It waits for each of them.
const OF_LIBC: u64 = 7 << 31;

/// Runs `body` with the program's signals blocked in this thread, and in threads that it starts.
pub fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    let mut before = 0;
    change_signal_mask(libc::SIG_SETMASK, !OF_LIBC, Some(&mut before));
    let result = body();
    change_signal_mask(libc::SIG_SETMASK, before, None);
    result
}

fn change_signal_mask(how: i32, mask: u64, before: Option<&mut u64>) {
    let old = before.map_or(std::ptr::null_mut(), std::ptr::from_mut).expose_provenance();
    let new = std::ptr::from_ref(&mask).expose_provenance();
    let args = [how as usize, new, old, size_of::<u64>(), 0];
    // SAFETY: SYS_rt_sigprocmask with a kernel sigset to set or add, room for the one before or null, and their size.
    unsafe { raw::call5(libc::SYS_rt_sigprocmask as usize, args) };
}

/// Sends a signal to whoever F_SETOWN on this descriptor has named: a process, a group of them, or a thread. If nobody, or it may not be, then
/// nothing happens.
pub fn signal_owner(fd: AppFd, signal: i32) {
    /// `struct f_owner_ex`.
    #[repr(C)]
    #[derive(Default)]
    struct Owner {
        kind: i32,
        id: i32,
    }
    const F_GETOWN_EX: usize = 16;
    const TID: i32 = 0;
    const PGRP: i32 = 2;
    let mut owner = Owner::default();
    let at = std::ptr::from_mut(&mut owner).expose_provenance();
    // SAFETY: SYS_fcntl, F_GETOWN_EX, with room for what it answers.
    let result = unsafe { raw::call5(libc::SYS_fcntl as usize, [fd.0 as usize, F_GETOWN_EX, at, 0, 0]) };
    if result != 0 || owner.id <= 0 {
        return;
    }
    let (call, id) = match owner.kind {
        TID => (libc::SYS_tkill, owner.id),
        PGRP => (libc::SYS_kill, -owner.id),
        _ => (libc::SYS_kill, owner.id),
    };
    // SAFETY: SYS_kill and SYS_tkill take numbers only.
    unsafe { raw::call5(call as usize, [id as usize, signal as usize, 0, 0, 0]) };
}

/// What the kernel calls `struct sigaction`; handler and flags are at the same place on all of our machines.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// Whether a call that a signal has interrupted goes on after the handler: every handler that can have run in this thread asks for that
/// (SA_RESTART). Which of them has cannot be known, so one that does not decides for all; but signals that are blocked here have not, nor
/// libc's own, which it has without that flag up to glibc 2.33.
pub fn signals_restart() -> bool {
    const SIGNALS: usize = 64;
    let mut blocked = 0;
    change_signal_mask(libc::SIG_BLOCK, 0, Some(&mut blocked));
    let may_have_run = |signal: &usize| (blocked | OF_LIBC) >> (signal - 1) & 1 == 0;
    (1..=SIGNALS).filter(may_have_run).all(|signal| {
        let mut action = KernelSigaction::default();
        let at = std::ptr::from_mut(&mut action).expose_provenance();
        // SAFETY: SYS_rt_sigaction with nothing to set, room for what is set, and the size of its mask.
        let result = unsafe { raw::call5(libc::SYS_rt_sigaction as usize, [signal, 0, at, size_of::<u64>(), 0]) };
        let caught = result == 0 && action.handler != libc::SIG_DFL && action.handler != libc::SIG_IGN;
        !caught || action.flags & libc::SA_RESTART as usize != 0
    })
}

/// The system call instruction itself: libc's `ppoll` and `syscall` are names that the preload library replaces.
mod raw {
    /// # Safety
    /// Number and arguments make a system call that keeps Rust's promises.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn call5(number: usize, a: [usize; 5]) -> isize {
        let result: isize;
        // SAFETY: the x86-64 convention: number in rax, arguments in rdi, rsi, rdx, r10, r8; rcx and r11 are clobbered.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        result
    }

    /// # Safety
    /// As above.
    #[cfg(target_arch = "aarch64")]
    pub unsafe fn call5(number: usize, a: [usize; 5]) -> isize {
        let result: isize;
        // SAFETY: the AArch64 convention: number in x8, arguments from x0 on.
        unsafe {
            std::arch::asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") a[0] as isize => result,
                in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4],
                options(nostack),
            );
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn ppoll_reports_what_is_ready_and_keeps_to_its_time() {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let mut fds = [libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        assert_eq!(ppoll(&mut fds, Some(Duration::from_millis(1)), Some(SigMask(0))), Ok(0));
        rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(ppoll(&mut fds, None, None), Ok(1));
        assert_eq!(fds[0].revents, libc::POLLIN);
    }

    #[test]
    fn a_copy_anywhere_keeps_a_socket() {
        let pair = || crate::uds::token_pair().unwrap();
        let close = |fd: OwnedFd| AppFd(fd.into_raw_fd()).close_last();
        let (_far, near) = pair();
        let copy = near.try_clone().unwrap();
        assert_eq!((close(near), close(copy)), (Ok(false), Ok(true)));
        // Under way from one process to another.
        let ((_far, near), (inbox, outbox)) = (pair(), pair());
        crate::uds::send(&outbox, &[1], &[near.as_fd()]).unwrap();
        assert_eq!(close(near), Ok(false));
        let mut fds = Vec::new();
        crate::uds::recv(&inbox, &mut [0; 8], &mut fds).unwrap();
        assert_eq!(close(fds.pop().unwrap()), Ok(true));
        // The other end has gone.
        let (far, near) = pair();
        drop(far);
        assert_eq!(close(near), Ok(true));
        assert_eq!(AppFd(-1).close_last(), Err(Errno::BADF));
    }

    #[test]
    fn a_thread_can_be_kept_free_of_the_programs_signals() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        let before = blocked();
        let inside = with_signals_blocked(|| std::thread::spawn(blocked).join().unwrap());
        // SIGKILL and SIGSTOP cannot be.
        let unblockable = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
        assert_eq!(inside, !(OF_LIBC | unblockable));
        assert_eq!(blocked(), before);
    }

    #[test]
    fn a_negative_number_is_nobodys() {
        assert_eq!(AppFd(-1).close(), Err(Errno::BADF));
        assert!(rustix::io::fcntl_getfd(AppFd(-1)).is_err());
    }
}
