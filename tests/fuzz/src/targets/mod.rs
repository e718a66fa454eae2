//! One file, one target.

pub mod acpi;
pub mod card;
pub mod device_tree;
pub mod engine;
pub mod frame;
pub mod ivshmem;
pub mod stack;
pub mod tcp;
