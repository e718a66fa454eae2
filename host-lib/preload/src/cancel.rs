//! Calls that wait are cancellation points, as in libc.

use libc::{c_int, pthread_t};
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

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cancel(thread: pthread_t) -> c_int {
    // SAFETY: its argument, passed on.
    let result = unsafe { real!(pthread_cancel as fn(pthread_t) -> c_int)(thread) };
    if result == 0 {
        cancel::cancelled(thread as usize);
    }
    result
}
