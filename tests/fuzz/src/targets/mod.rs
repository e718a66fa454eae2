//! One file, one target.

pub mod acpi;
pub mod app;
mod bytes;
mod calls;
pub mod card;
#[allow(dead_code, reason = "its own source of choices is not used here")]
#[path = "../../../../nic-fw/tcp/tests/tcp/choices.rs"]
mod choices;
pub mod device_tree;
pub mod engine;
pub mod frame;
mod host;
pub mod ivshmem;
pub mod library;
mod lives;
pub mod pci;
mod peers;
pub mod stack;
pub mod steps;
pub mod tcp;
pub mod vfio_user;
pub mod virtio;
