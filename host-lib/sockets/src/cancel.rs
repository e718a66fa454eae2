//! Cancellation of threads (pthread_cancel(3)). A thread may only end where it holds nothing: so a call that sleeps is woken and comes back with
//! ECANCELED, whoever has called in lets the thread end if it is to, and else calls again.

use crate::hub;
use std::cell::Cell;

thread_local!(static THREAD: Cell<usize> = const { Cell::new(0) });

/// The calling thread as pthread_cancel() names it.
pub fn here(thread: usize) {
    let _ = THREAD.try_with(|this| this.set(thread));
}

pub(crate) fn this() -> usize {
    THREAD.try_with(Cell::get).unwrap_or(0)
}

/// After pthread_cancel().
pub fn cancelled(thread: usize) {
    hub::lock().cancel(thread);
}
