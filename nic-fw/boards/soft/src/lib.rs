//! The soft card: the data path as a Linux process, a PCI device for its host over vfio-user.
//!
//! ```text
//!   toed ── vfio-user ──► device ──mailbox──► run ──► toe_datapath::Card ──► ports ──► wire
//!                         (own thread)        (data-path thread)   │
//!                                             memory, signals ◄────┘
//! ```
//!
//! What an established flow needs goes through shared memory and eventfds only; the device thread
//! serves registers, mappings and interrupts, and does not know what they are for.
//!
//! May depend on: `toe-datapath` and what is behind it, Linux.

pub mod board;
pub mod cli;
pub mod device;
pub mod disturb;
pub mod endpoint;
pub mod lent;
pub mod mailbox;
pub mod memory;
pub mod pci;
pub mod placement;
pub mod ports;
pub mod run;
pub mod signals;
pub mod wakes;
