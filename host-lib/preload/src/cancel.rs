//! Calls that wait are cancellation points, as in libc.

use crate::real::next;
use libc::{c_int, pthread_t};
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use toe_sockets::{Errno, cancel};

unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

/// Does what may wait. The thread may end before it, or where it waits.
pub fn point<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    end_where_it_waits();
    // SAFETY: nothing is asked.
    cancel::here(unsafe { libc::pthread_self() } as usize);
    loop {
        // SAFETY: no caller up to the program's own holds anything that would have to be dropped.
        unsafe { pthread_testcancel() };
        match call() {
            Err(Errno::CANCELED) => {}
            outcome => {
                // A newer libc interrupts every thread that it cancels.
                if matches!(outcome, Err(Errno::INTR)) {
                    // SAFETY: as above; no outcome has to be dropped either.
                    unsafe { pthread_testcancel() };
                }
                return outcome;
            }
        }
    }
}

const PTHREAD_CANCEL_DEFERRED: c_int = 0;
const PTHREAD_CANCEL_ASYNCHRONOUS: c_int = 1;

thread_local! {
    /// As the program has asked for.
    static TYPE: Cell<c_int> = const { Cell::new(PTHREAD_CANCEL_DEFERRED) };
    /// The thread's real one stays deferred.
    static ENDS_WHERE_IT_WAITS: Cell<bool> = const { Cell::new(false) };
}

/// A thread that ended anywhere would take this library's locks with it: from its first call that waits here on it ends where it waits. When one
/// that may end at any time does, is left open.
fn end_where_it_waits() {
    if !ENDS_WHERE_IT_WAITS.try_with(|ends| ends.replace(true)).unwrap_or(true) {
        set_real_type(PTHREAD_CANCEL_DEFERRED);
    }
}

/// The thread may end here.
fn set_real_type(kind: c_int) {
    static ADDRESS: AtomicUsize = AtomicUsize::new(0);
    type Set = unsafe extern "C-unwind" fn(c_int, *mut c_int) -> c_int;
    // SAFETY: libc's function of this name, which may unwind, or `missing`, which ignores its arguments.
    let set = unsafe { std::mem::transmute::<usize, Set>(next(&ADDRESS, c"pthread_setcanceltype")) };
    // SAFETY: no caller holds anything that would have to be dropped.
    unsafe { set(kind, std::ptr::null_mut()) };
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_setcanceltype(kind: c_int, before: *mut c_int) -> c_int {
    if !matches!(kind, PTHREAD_CANCEL_DEFERRED | PTHREAD_CANCEL_ASYNCHRONOUS) {
        return libc::EINVAL;
    }
    let was = TYPE.try_with(|known| known.replace(kind)).unwrap_or(PTHREAD_CANCEL_DEFERRED);
    if !before.is_null() {
        // SAFETY: the application's room for a number.
        unsafe { *before = was };
    }
    if !ENDS_WHERE_IT_WAITS.try_with(Cell::get).unwrap_or(true) {
        set_real_type(kind);
    } else if kind == PTHREAD_CANCEL_ASYNCHRONOUS {
        // SAFETY: nothing is held here.
        unsafe { pthread_testcancel() };
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cancel(thread: pthread_t) -> c_int {
    // SAFETY: its argument, passed on.
    let result = unsafe { real!(pthread_cancel as fn(pthread_t) -> c_int)(thread) };
    if result == 0 {
        cancel::cancelled(thread as usize);
    }
    result
}
