//! POSIX sockets on the card: what `libtoe_preload.so` puts in the place of libc's functions.
//!
//! ```text
//!   preload (one extern "C" per libc function)
//!      │  raw arguments as spans, slices, numbers
//!      ▼
//!   open      socket bind listen accept connect      options   one table of socket options
//!   data      recv send sendfile splice              control   fcntl ioctl names shutdown
//!   urgent    MSG_OOB SIOCATMARK F_SETOWN
//!   close     close dup exit fork                    kernel    what is not ours becomes a kernel socket
//!   cancel    pthread_cancel
//!   poll      poll select            epoll  epoll_*
//!      ▼
//!   hub       the process's queues, who watches which socket, who sleeps      fdtable  number -> what it is
//!   process   region, daemon, pool                                            waiting  spin, then sleep
//!      ▼
//!   libtoe
//! ```
//!
//! A socket's descriptor is a token (`toe_abi::region::SocketSlot`): the kernel counts it, dup, fork and exec keep it. All of
//! its state is in the slot, so any process of the family can use it; this crate keeps only what belongs to one process.
//!
//! **Threads.** One pair of queues per process, behind the hub's lock; payload is copied under the slot's own locks. Any
//! thread that calls in takes events for all. Of the threads that sleep, one (the leader) waits for the card's interrupt
//! and wakes the others through their eventfds; when it leaves, it hands over.
//!
//! **Forks.** A child inherits tokens and region, and touches nothing until it uses a socket; then it attaches anew.
//!
//! May depend on: `libtoe` (and through it `toe-link`, `toe-abi`). All system calls go through rustix, which never passes
//! through libc's names: those are ours.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod close;
pub mod control;
pub mod data;
pub mod epoll;
pub mod fdtable;
mod hub;
mod kernel;
pub mod names;
pub mod open;
pub mod options;
pub mod poll;
mod process;
mod tcp_info;
pub mod urgent;
mod waiting;

pub use fdtable::{Kind, kind};
pub use rustix::io::Errno;
pub use toe::link::sys::SigMask;
pub use toe::link::user::IoSpan;

use toe::Socket;

/// Whether spans have room for nothing.
pub fn is_empty(spans: &[IoSpan]) -> bool {
    toe::link::user::total(spans) == Some(0)
}

/// A socket of ours that the application names by a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sock {
    fd: i32,
    slot: u32,
}

impl Sock {
    /// `None`: the descriptor is not one of ours.
    #[inline]
    pub fn find(fd: i32) -> Option<Self> {
        match fdtable::kind(fd) {
            Kind::Socket(slot) => Some(Self { fd, slot }),
            _ => None,
        }
    }

    /// The socket, after making sure that this process gets its events.
    fn socket(self) -> Result<Socket<'static>, Errno> {
        process::touch(self.slot)
    }

    /// The socket's words only: for calls that need no events.
    fn words(self) -> Result<Socket<'static>, Errno> {
        process::view(self.slot)
    }
}
