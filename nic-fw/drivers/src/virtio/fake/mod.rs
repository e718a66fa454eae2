//! A virtio network device made of software, on the same memory as its driver. It obeys the specification, or breaks it where a test says
//! so.
//!
//! ```text
//!   FakeFunction (PCI) ─► FakeRegisters ─► FakeDevice: status, features, queues, kicks
//!                                             └► DeviceQueue: the device's side of a queue, on TestMemory
//!                                                   └► Peer: frames in and out
//! ```

mod device;
mod memory;
mod peer;
mod queue;

pub use device::{BAR_LEN, Control, FakeDevice, FakeRegisters, machine};
pub use memory::TestMemory;
pub use peer::{Peer, Sent};
pub use queue::{Chain, DeviceQueue};
