//! What the device thread asks of the data-path thread, which alone owns the card.
//!
//! ```text
//!   device thread: call ──► queue ──► data-path thread, between two rounds
//!                       └─► eventfd (wakes it if it sleeps)
//!                  wait ◄── answer, with what is to be unmapped
//! ```

use crate::memory::Mapping;
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use toe_abi::CtxId;

/// How long the device thread waits for an answer. A round of the data path takes microseconds.
const DEADLINE: Duration = Duration::from_secs(4);

/// Which of a context's two eventfds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Card to host.
    Interrupt,
    /// Host to card.
    Kick,
}

/// A request to the data path.
#[derive(Debug)]
pub enum Command {
    Map(Mapping),
    Unmap {
        iova: u64,
        len: u64,
    },
    /// Use the control region at this I/O virtual address.
    Attach {
        iova: u64,
    },
    Detach,
    Reset,
    /// Sets (or takes away) eventfds of contexts, from `first` on.
    Signals {
        signal: Signal,
        first: CtxId,
        fds: Vec<Option<OwnedFd>>,
    },
    /// The host's connection has ended.
    EndSession,
}

/// Mappings that the data path no longer uses: the asker drops (unmaps) them, which takes time.
pub type Answer = io::Result<Vec<Mapping>>;

/// The way of commands to the data path: the [`Mailbox`], where that is another thread.
pub trait Dispatch: Send + Sync {
    /// Asks and waits for the answer.
    fn call(&self, command: Command) -> Answer;
}

/// A command and the way back.
pub struct Letter {
    pub command: Command,
    reply: mpsc::SyncSender<Answer>,
}

impl Letter {
    /// Splits the way back off.
    pub fn open(self) -> (Command, impl FnOnce(Answer)) {
        let reply = self.reply;
        // Nobody waits any more: then the mappings in the answer are dropped here.
        (self.command, move |answer| drop(reply.send(answer)))
    }
}

pub struct Mailbox {
    /// `None`: the data path has ended. Under the lock, so that no letter comes into a queue that nobody looks at any more.
    queue: Mutex<Option<VecDeque<Letter>>>,
    /// There may be letters: spares the lock in rounds without.
    waiting: AtomicBool,
    wake: OwnedFd,
}

impl Mailbox {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::new(Some(VecDeque::new())),
            waiting: AtomicBool::new(false),
            wake: rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Letter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes readable with the first letter.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes `fd` unreadable again; letters are looked for afterwards.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // EAGAIN: it wasn't readable.
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    /// The next letter.
    pub fn take(&self) -> Option<Letter> {
        // Acquire: pairs with the release in `call`.
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.queue();
        let queue = queue.as_mut()?;
        let letter = queue.pop_front();
        if queue.is_empty() {
            // Under the lock: a letter that comes later sets it again.
            self.waiting.store(false, Ordering::Release);
        }
        letter
    }

    /// The data path has ended: every call fails from now on.
    pub fn close(&self) {
        // Letters that wait lose their way back, which their askers notice.
        drop(self.queue().take());
    }
}

impl Dispatch for Mailbox {
    fn call(&self, command: Command) -> Answer {
        let (reply, answer) = mpsc::sync_channel(1);
        match &mut *self.queue() {
            Some(queue) => queue.push_back(Letter { command, reply }),
            None => return Err(io::Error::from_raw_os_error(libc::EIO)),
        }
        // Release: pairs with the acquire in `take`. The eventfd stays readable until `clear`, so no wake-up is lost.
        self.waiting.store(true, Ordering::Release);
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        answer.recv_timeout(DEADLINE).map_err(|e| match e {
            mpsc::RecvTimeoutError::Timeout => io::Error::from_raw_os_error(libc::ETIMEDOUT),
            mpsc::RecvTimeoutError::Disconnected => io::Error::from_raw_os_error(libc::EIO),
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_call_waits_for_its_answer() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let asker = std::thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.call(Command::Reset).map(|m| m.len())
        });
        let letter = loop {
            if let Some(letter) = mailbox.take() {
                break letter;
            }
            std::thread::yield_now();
        };
        let (command, reply) = letter.open();
        assert!(matches!(command, Command::Reset));
        reply(Ok(Vec::new()));
        assert_eq!(asker.join().unwrap().unwrap(), 0);
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn a_call_that_comes_with_the_end_fails_at_once() {
        for _ in 0..500 {
            let mailbox = Mailbox::new().unwrap();
            let go = AtomicBool::new(false);
            let error = std::thread::scope(|scope| {
                let asker = scope.spawn(|| {
                    go.store(true, Ordering::Release);
                    mailbox.call(Command::Detach)
                });
                while !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                mailbox.close();
                asker.join().unwrap().unwrap_err()
            });
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "nobody is left who could answer");
        }
    }

    #[test]
    fn after_the_end_calls_fail_at_once() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.close();
        assert_eq!(mailbox.call(Command::Detach).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
