//! Descriptors: close, dup, fcntl, ioctl, chroot, and the end of the program (exit, exec).

use crate::real::{answer, status};
use libc::{FILE, c_char, c_int, c_uint, c_ulong, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use std::os::fd::AsRawFd;
use toe_sockets::{Errno, Kind, Sock, close as closing, kind};

pub use toe_sockets::close::exec as before_exec;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    match kind(fd) {
        // SAFETY: its argument, passed on.
        Kind::Other => unsafe { real!(close as fn(c_int) -> c_int)(fd) },
        _ => status(closing::close(fd)),
    }
}

/// Does what closes a stream's descriptor inside libc, where it does not come by here.
///
/// # Safety
/// `stream` is the application's.
unsafe fn closing_stream<T>(stream: *mut FILE, close: impl Fn() -> T) -> T {
    // SAFETY: the caller's promise.
    let fd = unsafe { libc::fileno(stream) };
    let mut result = None;
    if kind(fd) != Kind::Other {
        let _ = closing::close_by(fd, || {
            result = Some(close());
            Ok(())
        });
    }
    result.unwrap_or_else(close)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fclose(stream: *mut FILE) -> c_int {
    let real = real!(fclose as fn(*mut FILE) -> c_int);
    // SAFETY: the application's stream.
    unsafe { closing_stream(stream, || real(stream)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    let real = real!(freopen as fn(*const c_char, *const c_char, *mut FILE) -> *mut FILE);
    // SAFETY: its arguments, passed on.
    unsafe { closing_stream(stream, || real(path, mode, stream)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    // SAFETY: its arguments, passed on. On 64-bit Linux it is the same function.
    unsafe { freopen(path, mode, stream) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let real = real!(close_range as fn(c_uint, c_uint, c_int) -> c_int);
    if flags != 0 {
        // CLOSE_RANGE_CLOEXEC only marks, and ours are marked; CLOSE_RANGE_UNSHARE is for children that exec.
        // SAFETY: its arguments, passed on.
        return unsafe { real(first, last, flags) };
    }
    // SAFETY: numbers that the application wants closed.
    closing::close_range(first, last, |first, last| unsafe { real(first, last, 0) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: numbers only.
    unsafe { close_range(first.max(0).unsigned_abs(), c_uint::MAX, 0) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    let real = real!(dup as fn(c_int) -> c_int);
    match kind(fd) {
        Kind::Internal => answer(Err(Errno::BADF)),
        _ => {
            // SAFETY: its argument, passed on.
            let new = unsafe { real(fd) };
            if new < 0 { new } else { answer(closing::duplicated(fd, new)) }
        }
    }
}

/// Whether neither number concerns us.
fn foreign(old: c_int, new: c_int) -> bool {
    kind(old) == Kind::Other && kind(new) == Kind::Other
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if foreign(old, new) {
        // SAFETY: its arguments, passed on.
        return unsafe { real!(dup2 as fn(c_int, c_int) -> c_int)(old, new) };
    }
    answer(closing::dup3(old, new, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if foreign(old, new) || old == new || flags & !libc::O_CLOEXEC != 0 {
        // SAFETY: its arguments, passed on. (The same number twice, or strange flags: EINVAL from the kernel.)
        return unsafe { real!(dup3 as fn(c_int, c_int, c_int) -> c_int)(old, new, flags) };
    }
    answer(closing::dup3(old, new, flags))
}

/// fcntl on a socket of ours; `None`: the kernel does it on the token.
fn control(sock: Sock, command: c_int, argument: usize) -> Option<c_int> {
    match command {
        libc::F_GETFL => Some(answer(sock.status_flags())),
        libc::F_SETFL => Some(status(sock.set_nonblocking(argument as c_int & libc::O_NONBLOCK != 0))),
        _ => None,
    }
}

/// # Safety
/// As fcntl(2).
unsafe fn fcntl_with(real: unsafe extern "C" fn(c_int, c_int, usize) -> c_int, fd: c_int, command: c_int, argument: usize) -> c_int {
    let kind = kind(fd);
    if kind == Kind::Internal {
        return answer(Err(Errno::BADF));
    }
    if let Some(done) = Sock::find(fd).and_then(|sock| control(sock, command, argument)) {
        return done;
    }
    // SAFETY: its arguments, passed on.
    let result = unsafe { real(fd, command, argument) };
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) && kind != Kind::Other && result >= 0 {
        return answer(closing::duplicated(fd, result));
    }
    if matches!(command, libc::F_SETOWN | F_SETOWN_EX) && result == 0 {
        Sock::find(fd).into_iter().for_each(Sock::owned);
    }
    result
}

// Of Linux, and not in libc's crate.
const F_SETOWN_EX: c_int = 15;
const FIOSETOWN: c_ulong = 0x8901;
const SIOCSPGRP: c_ulong = 0x8902;
const SIOCATMARK: c_ulong = 0x8905;
const SIOCOUTQNSD: c_ulong = 0x894b;
/// Of interfaces, routes and neighbours, from SIOCADDRT to the last of wireless ones. They ask a token, which is a UNIX socket, in vain.
const OF_INTERFACES: std::ops::RangeInclusive<c_ulong> = 0x890b..=0x8bff;

/// The third argument, if there is one, is an int or a pointer: in a register either way on the ABIs of this library.
#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: its arguments, passed on.
    unsafe { fcntl_with(real!(fcntl as fn(c_int, c_int, usize) -> c_int), fd, command, argument) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: its arguments, passed on.
    unsafe { fcntl_with(real!(fcntl64 as fn(c_int, c_int, usize) -> c_int), fd, command, argument) }
}

/// The third argument as in [`fcntl`].
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_int) -> c_int {
    let put = |value: Result<c_int, Errno>| {
        if argument.is_null() {
            return status(Err(Errno::FAULT));
        }
        // SAFETY: these requests take a pointer to an int.
        status(value.map(|v| unsafe { *argument = v }))
    };
    let real = real!(ioctl as fn(c_int, c_ulong, *mut c_int) -> c_int);
    match (Sock::find(fd), request) {
        (Some(sock), libc::FIONREAD) => put(sock.queued_in()),
        (Some(sock), libc::TIOCOUTQ) => put(sock.queued_out()),
        (Some(sock), SIOCOUTQNSD) => put(sock.not_sent()),
        (Some(sock), SIOCATMARK) => put(sock.at_mark().map(c_int::from)),
        (Some(_), libc::FIONBIO | libc::FIOASYNC) if argument.is_null() => status(Err(Errno::FAULT)),
        // SAFETY: this request takes a pointer to an int.
        (Some(sock), libc::FIONBIO) => status(sock.set_nonblocking(unsafe { *argument } != 0)),
        // Signal-driven I/O is not there; programs that only switch it off must not notice.
        (Some(_), libc::FIOASYNC) => 0,
        (Some(sock), _) if OF_INTERFACES.contains(&request) => {
            let kernel = match sock.kernels() {
                Ok(kernel) => kernel,
                Err(e) => return status(Err(e)),
            };
            // SAFETY: the other two arguments, passed on.
            unsafe { real(kernel.as_raw_fd(), request, argument) }
        }
        (sock, _) => {
            // SAFETY: its arguments, passed on.
            let result = unsafe { real(fd, request, argument) };
            if matches!(request, FIOSETOWN | SIOCSPGRP) && result == 0 {
                sock.into_iter().for_each(Sock::owned);
            }
            result
        }
    }
}

/// libc's own calls an ioctl() that does not come by here.
#[unsafe(no_mangle)]
unsafe extern "C" fn sockatmark(fd: c_int) -> c_int {
    match Sock::find(fd) {
        Some(sock) => answer(sock.at_mark().map(c_int::from)),
        // SAFETY: its argument, passed on.
        None => unsafe { real!(sockatmark as fn(c_int) -> c_int)(fd) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn chroot(path: *const c_char) -> c_int {
    closing::chroot();
    // SAFETY: its argument, passed on.
    unsafe { real!(chroot as fn(*const c_char) -> c_int)(path) }
}

type Strings = *const *const c_char;

#[unsafe(no_mangle)]
unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(execve as fn(*const c_char, Strings, Strings) -> c_int)(path, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(execv as fn(*const c_char, Strings) -> c_int)(path, argv) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(execvp as fn(*const c_char, Strings) -> c_int)(file, argv) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(execvpe as fn(*const c_char, Strings, Strings) -> c_int)(file, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(fexecve as fn(c_int, Strings, Strings) -> c_int)(fd, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execveat(dir: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int {
    closing::exec();
    // SAFETY: its arguments, passed on.
    unsafe { real!(execveat as fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int)(dir, path, argv, envp, flags) }
}

type Actions = *const posix_spawn_file_actions_t;
type Attributes = *const posix_spawnattr_t;

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: Actions,
    attributes: Attributes,
    argv: Strings,
    envp: Strings,
) -> c_int {
    closing::spawn();
    let real = real!(posix_spawn as fn(*mut pid_t, *const c_char, Actions, Attributes, Strings, Strings) -> c_int);
    // SAFETY: its arguments, passed on.
    unsafe { real(pid, path, actions, attributes, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: Actions,
    attributes: Attributes,
    argv: Strings,
    envp: Strings,
) -> c_int {
    closing::spawn();
    let real = real!(posix_spawnp as fn(*mut pid_t, *const c_char, Actions, Attributes, Strings, Strings) -> c_int);
    // SAFETY: its arguments, passed on.
    unsafe { real(pid, file, actions, attributes, argv, envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn system(command: *const c_char) -> c_int {
    closing::spawn();
    // SAFETY: its argument, passed on.
    unsafe { real!(system as fn(*const c_char) -> c_int)(command) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    closing::spawn();
    // SAFETY: its arguments, passed on.
    unsafe { real!(popen as fn(*const c_char, *const c_char) -> *mut FILE)(command, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _exit(code: c_int) -> ! {
    closing::exiting();
    // SAFETY: its argument, passed on.
    unsafe { real!(_exit as fn(c_int) -> !)(code) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _Exit(code: c_int) -> ! {
    // SAFETY: the same function by another name.
    unsafe { _exit(code) }
}
