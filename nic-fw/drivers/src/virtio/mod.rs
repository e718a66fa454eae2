//! Virtio devices on PCI (VIRTIO 1.1): the way in, queues, and the network device.
//!
//! ```text
//!   pci ─► Transport: features, queues, status ─► Queue: descriptors out, used buffers back ─► net: RxPort, TxPort
//! ```

pub mod net;
pub mod queue;
pub mod transport;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

pub use queue::{Alarm, Broken, Queue};
pub use transport::{Features, Transport, TransportError};
