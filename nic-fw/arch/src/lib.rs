//! AArch64 from the first instruction to a board's `main`.
#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod esr;
pub mod fdt;
pub mod machine;
pub mod pe;
pub mod range;
pub mod ticks;
