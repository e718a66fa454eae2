//! toe-window: makes the memory that a card inside QEMU shares with its host, and brings both together.
//!
//! ```text
//!                      ┌ toe-window ─────────────────┐
//!   QEMU ◄── socket ───┤ server: epoll, sockets      ├─── socket ──► toed
//!     │                │   └ roster: who is told what │                │
//!     │                └─────────────────────────────┘                │
//!     └───────── memfd (the window), eventfds: past the server ────────┘
//! ```
//!
//! It speaks QEMU's ivshmem protocol ([`toe_link::ivshmem`]) to all peers alike and knows nothing of cards. What passes between the peers
//! does not touch it: it works only when one comes or goes. A peer that does not read, breaks the protocol or dies is let go
//! and costs the others nothing.
//!
//! May depend on: anything.
#![forbid(unsafe_code)]

pub mod options;
pub mod roster;
pub mod server;
