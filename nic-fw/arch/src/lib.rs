//! AArch64 from the first instruction to a board's `main`.
#![cfg_attr(not(test), no_std)]

pub mod fdt;
pub mod machine;
pub mod range;
