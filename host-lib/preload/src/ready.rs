//! Readiness: poll, select, epoll.

use crate::cancel::point;
use crate::real::{count, set_errno, status};
use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use std::cell::Cell;
use std::time::{Duration, Instant};
use toe_sockets::poll::{Sets, bits, concerns_us, members};
use toe_sockets::{Errno, Kind, SigMask, epoll, kind};

/// Milliseconds as poll(2) takes them: negative waits for ever.
fn millis(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// # Safety
/// `time` is null or readable.
unsafe fn from_timespec(time: *const timespec) -> Result<Option<Duration>, Errno> {
    // SAFETY: the caller's promise.
    let Some(time) = (unsafe { time.as_ref() }) else { return Ok(None) };
    let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) else {
        return Err(Errno::INVAL);
    };
    Ok(Some(Duration::new(seconds, nanos)))
}

/// # Safety
/// `mask` is null or a signal set.
unsafe fn from_sigset(mask: *const sigset_t) -> Option<SigMask> {
    // SAFETY: the caller's promise; the first eight bytes are the signals that the kernel knows.
    (!mask.is_null()).then(|| SigMask(unsafe { mask.cast::<u64>().read_unaligned() }))
}

/// # Safety
/// `n` entries at `fds` are the application's.
unsafe fn slice<'a>(fds: *mut pollfd, n: nfds_t) -> &'a mut [pollfd] {
    if fds.is_null() || n == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(fds, n as usize) }
}

fn ours(fds: &[pollfd]) -> bool {
    concerns_us(fds.iter().map(|fd| fd.fd))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the application's array.
    let list = unsafe { slice(fds, n) };
    if !ours(list) {
        // SAFETY: its arguments, passed on.
        return unsafe { real!(poll as fn(*mut pollfd, nfds_t, c_int) -> c_int)(fds, n, timeout) };
    }
    count(point(|| toe_sockets::poll::poll(list, millis(timeout), None)))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __poll_chk(fds: *mut pollfd, n: nfds_t, timeout: c_int, len: size_t) -> c_int {
    if len / size_of::<pollfd>() >= n as usize {
        // SAFETY: same arguments.
        return unsafe { poll(fds, n, timeout) };
    }
    // SAFETY: its arguments, passed on: libc ends the program.
    unsafe { real!(__poll_chk as fn(*mut pollfd, nfds_t, c_int, size_t) -> c_int)(fds, n, timeout, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ppoll(fds: *mut pollfd, n: nfds_t, time: *const timespec, mask: *const sigset_t) -> c_int {
    // SAFETY: the application's array.
    let list = unsafe { slice(fds, n) };
    if !ours(list) {
        let real = real!(ppoll as fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int);
        // SAFETY: its arguments, passed on.
        return unsafe { real(fds, n, time, mask) };
    }
    // SAFETY: the application's time and mask.
    let (timeout, mask) = unsafe { (from_timespec(time), from_sigset(mask)) };
    count(timeout.and_then(|timeout| point(|| toe_sockets::poll::poll(list, timeout, mask))))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __ppoll_chk(fds: *mut pollfd, n: nfds_t, time: *const timespec, mask: *const sigset_t, len: size_t) -> c_int {
    if len / size_of::<pollfd>() >= n as usize {
        // SAFETY: same arguments.
        return unsafe { ppoll(fds, n, time, mask) };
    }
    let real = real!(__ppoll_chk as fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t, size_t) -> c_int);
    // SAFETY: its arguments, passed on: libc ends the program.
    unsafe { real(fds, n, time, mask, len) }
}

/// # Safety
/// Each pointer is null or an fd_set with room for `n` bits, and may be there twice.
unsafe fn sets<'a>(n: usize, pointers: [*mut fd_set; 3]) -> Sets<'a> {
    // SAFETY: the caller's promise: programs may pass sets larger or smaller than an fd_set, only `n` counts.
    pointers.map(|p| (!p.is_null()).then(|| unsafe { std::slice::from_raw_parts(p.cast::<Cell<u64>>(), n.div_ceil(64)) }))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn select(n: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *mut timeval) -> c_int {
    let number = bits(usize::try_from(n).unwrap_or(0));
    // SAFETY: the application's sets.
    let sets = || unsafe { sets(number, [read, write, except]) };
    if !concerns_us(members(sets(), number)) {
        let real = real!(select as fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *mut timeval) -> c_int);
        // SAFETY: its arguments, passed on. (Less than nothing: EINVAL from the kernel.)
        return unsafe { real(n.min(number as c_int), read, write, except, time) };
    }
    // SAFETY: null or the application's time.
    let time = unsafe { time.as_mut() };
    let timeout = match &time {
        None => None,
        Some(t) => match (u64::try_from(t.tv_sec), u64::try_from(t.tv_usec)) {
            (Ok(s), Ok(us)) => Some(Duration::from_secs(s).saturating_add(Duration::from_micros(us))),
            _ => return status(Err(Errno::INVAL)),
        },
    };
    let start = Instant::now();
    let result = point(|| toe_sockets::poll::select(number, sets(), timeout, None));
    if let (Some(time), Some(timeout)) = (time, timeout) {
        // Linux leaves the time that was not used.
        let left = timeout.saturating_sub(start.elapsed());
        time.tv_sec = left.as_secs() as libc::time_t;
        time.tv_usec = left.subsec_micros().into();
    }
    count(result)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pselect(
    n: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let number = bits(usize::try_from(n).unwrap_or(0));
    // SAFETY: the application's sets.
    let sets = || unsafe { sets(number, [read, write, except]) };
    if !concerns_us(members(sets(), number)) {
        let real = real!(pselect as fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *const timespec, *const sigset_t) -> c_int);
        // SAFETY: its arguments, passed on. (Less than nothing: EINVAL from the kernel.)
        return unsafe { real(n.min(number as c_int), read, write, except, time, mask) };
    }
    // SAFETY: the application's time and mask.
    let (timeout, mask) = unsafe { (from_timespec(time), from_sigset(mask)) };
    count(timeout.and_then(|timeout| point(|| toe_sockets::poll::select(number, sets(), timeout, mask))))
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create(size: c_int) -> c_int {
    // SAFETY: its argument, passed on.
    let fd = unsafe { real!(epoll_create as fn(c_int) -> c_int)(size) };
    epoll::created(fd);
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: its argument, passed on.
    let fd = unsafe { real!(epoll_create1 as fn(c_int) -> c_int)(flags) };
    epoll::created(fd);
    fd
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if kind(fd) != Kind::Other {
        // SAFETY: null or the application's event.
        let event = (!event.is_null()).then(|| unsafe { event.read_unaligned() });
        if event.is_none() && op != libc::EPOLL_CTL_DEL && matches!(kind(fd), Kind::Socket(_)) {
            return status(Err(Errno::FAULT));
        }
        let (events, data) = event.map_or((0, 0), |e| (e.events, e.u64));
        match epoll::ctl(epfd, op, fd, events, data) {
            Ok(None) => {}
            result => return status(result.map(drop)),
        }
    }
    // SAFETY: its arguments, passed on.
    let result = unsafe { real!(epoll_ctl as fn(c_int, c_int, c_int, *mut epoll_event) -> c_int)(epfd, op, fd, event) };
    if result == 0 && known(fd) && known(epfd) {
        // SAFETY: null only for EPOLL_CTL_DEL, as the kernel has been content with it.
        let (events, data) = if event.is_null() { (0, 0) } else { unsafe { ((*event).events, (*event).u64) } };
        epoll::nested(epfd, op, fd, events, data);
    }
    result
}

/// # Safety
/// `max` events at `events` are the application's.
unsafe fn wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: Result<Option<Duration>, Errno>,
    mask: Option<SigMask>,
) -> c_int {
    let Ok(max @ 1..) = usize::try_from(max) else {
        set_errno(Errno::INVAL);
        return -1;
    };
    if events.is_null() {
        set_errno(Errno::FAULT);
        return -1;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(events, max) };
    count(timeout.and_then(|timeout| point(|| epoll::wait(epfd, out, timeout, mask))))
}

/// Whether an epoll descriptor is one that may hold sockets of ours.
fn known(epfd: c_int) -> bool {
    matches!(kind(epfd), Kind::Epoll(_))
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_wait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int {
    if !known(epfd) {
        let real = real!(epoll_wait as fn(c_int, *mut epoll_event, c_int, c_int) -> c_int);
        // SAFETY: its arguments, passed on.
        return unsafe { real(epfd, events, max, timeout) };
    }
    // SAFETY: the application's array.
    unsafe { wait(epfd, events, max, Ok(millis(timeout)), None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    if !known(epfd) {
        let real = real!(epoll_pwait as fn(c_int, *mut epoll_event, c_int, c_int, *const sigset_t) -> c_int);
        // SAFETY: its arguments, passed on.
        return unsafe { real(epfd, events, max, timeout, mask) };
    }
    // SAFETY: the application's array and mask.
    unsafe { wait(epfd, events, max, Ok(millis(timeout)), from_sigset(mask)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    if !known(epfd) {
        let real = real!(epoll_pwait2 as fn(c_int, *mut epoll_event, c_int, *const timespec, *const sigset_t) -> c_int);
        // SAFETY: its arguments, passed on.
        return unsafe { real(epfd, events, max, time, mask) };
    }
    // SAFETY: the application's array, time and mask.
    unsafe { wait(epfd, events, max, from_timespec(time), from_sigset(mask)) }
}
