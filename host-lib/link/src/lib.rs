//! How the host reaches a card: shared memory, queues, doorbells, and the daemon's socket.
//!
//! ```text
//!        toe (libtoe)                        toed
//!     client │ region │ lock          uds │ region │ card
//!     ───────┴────────┴───────────────────┴────────┴──────
//!       slot: a socket's words    ring: payload    user: an application's buffers
//!       fdnum: descriptors out of the application's way     sys: system calls that rustix lacks
//!       ivshmem: peers of a window that a virtual machine shares
//! ```
//!
//! A region ([`region`]) is written by every process of its family and by the card, so all of it is reached through
//! atomics ([`slot`], `toe_sync::queue`) or raw copies ([`ring`]), never through references to plain data; every offset
//! in it is a claim, checked where it is used. All system calls are raw ones (rustix): the preload library, which is built on
//! this crate, must never call itself.
//!
//! May depend on: `toe-abi`, `toe-sync`.

pub mod card;
pub mod client;
pub mod fdnum;
pub mod ivshmem;
pub mod lock;
pub mod region;
pub mod ring;
pub mod slot;
pub mod sys;
pub mod uds;
pub mod user;

pub use region::{Region, RegionError};
pub use slot::{Page, Slot};
pub use toe_sync as sync;
