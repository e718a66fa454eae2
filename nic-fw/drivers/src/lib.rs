//! Drivers of the bare-metal boards: what they find on the PCI bus, and their console.
//!
//! ```text
//!   toe_hal::{RxPort, TxPort} ◄── virtio::net ─► virtio::{queue, transport} ──┐
//!   window, doorbell          ◄── ivshmem ────────────────────────────────────┼─► pci ─► Registers ─► Mmio ─► bus
//!   console                   ◄── pl011 ──────────────────────────────────────┘    DmaMemory, barrier ─► memory
//! ```
//!
//! Everything goes through [`Registers`] and [`pci::ConfigSpace`]: real memory on a board ([`Mmio`], [`pci::Ecam`]), devices made of
//! software in the tests. All addresses are passed in by the board, which has found them out (device tree, ACPI) and mapped them.
//!
//! *Devices are hostile.* What one can write (registers, used rings, buffers, capability lists) is a claim: read once, checked, bounded. A
//! device that lies costs itself its queue; it can't make a driver panic, wait without a deadline, or reach outside the memory
//! that it was given. What software can't prevent is a device that writes into memory which it has given back: that takes an IOMMU.
//!
//! *The way to a running port*, on one core before the others need it:
//!
//! ```text
//!   Ecam::new(window)       scan(Assign | Keep)      assign(windows: only after Assign)      enable(function)
//!   Msix::open, set(vector) for each interrupt       Transport::open       net::start(transport, memory, settings, ...)
//!      └► Net { rx: to the ingress core, tx: to the egress core, control: wherever the link is watched }
//! ```
//!
//! Memory comes from the board when a driver starts; nothing is allocated afterwards. May depend on: `toe-hal`.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

#[cfg(target_endian = "big")]
compile_error!("devices are little-endian, and so are all machines that this was written for");

extern crate alloc;

pub mod barrier;
pub mod dma;
pub mod ivshmem;
pub mod mmio;
pub mod pci;
pub mod pl011;
pub mod virtio;
pub mod wait;

pub use dma::DmaMemory;
pub use mmio::{Mmio, Registers};
pub use wait::{TimedOut, wait_until};
