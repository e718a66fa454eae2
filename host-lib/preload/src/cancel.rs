//! Calls that wait are cancellation points, as in libc.

use libc::{c_int, pthread_t};
use std::cell::Cell;
use toe_sockets::{Errno, cancel};

unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

/// Does what may wait. The thread may end before it, or where it waits.
pub fn point<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
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

thread_local!(static TYPE: Cell<c_int> = const { Cell::new(PTHREAD_CANCEL_DEFERRED) });

/// A thread that ended anywhere would take this library's locks with it. So all of them end where they wait, and only hear that it is otherwise:
/// when a thread that may end at any time does, is left open.
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
    if kind == PTHREAD_CANCEL_ASYNCHRONOUS {
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
