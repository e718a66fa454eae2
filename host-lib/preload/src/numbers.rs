//! syscall(2): system calls by their numbers, as programs make those for which their libc had no name once (libuv, ivykis, vsftpd, NGINX Unit).
//!
//! ```text
//!   syscall(number, ...) ──► concerns a descriptor of ours? ──yes──► the function of that name, here
//!                              │no                      └─ a fork: the library learns of it
//!                              ▼
//!                            libc's syscall
//! ```

use crate::fd::{close, close_range, dup, dup3};
use crate::net::{accept, accept4};
use crate::ready::{epoll_ctl, epoll_pwait, epoll_pwait2};
use crate::real::status;
use libc::{c_int, c_long, c_uint};
use toe_sockets::close::{fork_child, fork_parent, fork_prepare};
use toe_sockets::{Errno, Kind, epoll, kind};

/// The arguments of a system call.
type Arguments = [usize; 6];

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    let arguments = [a, b, c, d, e, f];
    // SAFETY: the application's arguments, for the call that it names.
    let real = || unsafe { real!(syscall as fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long)(number, a, b, c, d, e, f) };
    match number {
        // As a kernel without it: libuv (Node.js) would tell the kernel's epoll instance of our sockets by a ring, and not hear of them.
        libc::SYS_io_uring_setup => status(Err(Errno::NOSYS)).into(),
        libc::SYS_epoll_create1 => {
            let fd = real();
            epoll::created(fd as c_int);
            fd
        }
        // SAFETY: as above.
        _ if unsafe { is_fork(number, &arguments) } => fork(real),
        // SAFETY: as above.
        _ => unsafe { by_name(number, &arguments) }.map_or_else(real, c_long::from),
    }
}

/// What the function of the call's name answers, if the call concerns a descriptor of ours.
///
/// # Safety
/// The arguments are right for the call of this number.
unsafe fn by_name(number: c_long, &[a, b, c, d, e, _]: &Arguments) -> Option<c_int> {
    let int = |argument: usize| argument as c_int;
    let is_ours = |argument: usize| kind(int(argument)) != Kind::Other;
    // SAFETY: the caller's promise. (The size of a signal mask, the sixth, is what libc would pass.)
    Some(unsafe {
        match number {
            libc::SYS_close if is_ours(a) => close(int(a)),
            libc::SYS_close_range => close_range(a as c_uint, b as c_uint, int(c)),
            libc::SYS_dup if is_ours(a) => dup(int(a)),
            libc::SYS_dup3 if is_ours(a) || is_ours(b) => dup3(int(a), int(b), int(c)),
            libc::SYS_accept if is_ours(a) => accept(int(a), pointer(b), pointer(c)),
            libc::SYS_accept4 if is_ours(a) => accept4(int(a), pointer(b), pointer(c), int(d)),
            libc::SYS_epoll_ctl if is_ours(a) || is_ours(c) => epoll_ctl(int(a), int(b), int(c), pointer(d)),
            libc::SYS_epoll_pwait if is_ours(a) => epoll_pwait(int(a), pointer(b), int(c), int(d), pointer(e)),
            libc::SYS_epoll_pwait2 if is_ours(a) => epoll_pwait2(int(a), pointer(b), int(c), pointer(d), pointer(e)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 if is_ours(a) || is_ours(b) => crate::fd::dup2(int(a), int(b)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait if is_ours(a) => crate::ready::epoll_wait(int(a), pointer(b), int(c), int(d)),
            _ => return None,
        }
    })
}

fn pointer<T>(argument: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(argument)
}

/// Whether the call makes a process with memory of its own.
///
/// # Safety
/// As [`by_name`].
unsafe fn is_fork(number: c_long, &[a, b, ..]: &Arguments) -> bool {
    let flags = match number {
        libc::SYS_clone => a as u64,
        // SAFETY: clone3(2): the first word of a structure of as many bytes.
        libc::SYS_clone3 if a != 0 && b >= size_of::<u64>() => unsafe { pointer::<u64>(a).read_unaligned() },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork => 0,
        _ => return false,
    };
    flags & libc::CLONE_VM as u64 == 0
}

/// Does for `call` what libc's fork() has handlers for.
fn fork(call: impl FnOnce() -> c_long) -> c_long {
    fork_prepare();
    let pid = call();
    if pid == 0 {
        fork_child()
    } else {
        fork_parent()
    }
    pid
}
