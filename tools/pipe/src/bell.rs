//! A bell: whoever has something for a thread that may sleep rings it.
//!
//! The protocol is that of `toe_sync::sleep`: `prepare`, look again, sleep; `publish`, `ring`.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::thread::Thread;

use toe_sync::sleep;

#[derive(Default)]
pub struct Bell {
    parked: AtomicU32,
    /// Nobody yet: nobody has to be woken.
    thread: OnceLock<Thread>,
}

impl Bell {
    /// From now on it wakes this thread.
    pub fn hang_here(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// First step of going to sleep. Look again after it.
    pub fn prepare(&self) {
        sleep::prepare(&self.parked);
    }

    /// Awake.
    pub fn cancel(&self) {
        sleep::cancel(&self.parked);
    }

    /// Wakes the thread if it sleeps, after something was published for it.
    pub fn ring(&self) {
        if let Some(thread) = self.thread.get()
            && sleep::must_wake(&self.parked)
        {
            thread.unpark();
        }
    }
}
