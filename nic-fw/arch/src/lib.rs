//! AArch64, from the first instruction to a board's `main`: for boards without an operating system.
//!
//! ```text
//!   ELF: device tree ─► fdt ──┐                                              board
//!                             ├─► machine ─► layout ─► EL1, MMU, cores, GIC ─► main(&Platform)
//!   UEFI: ACPI tables ─► acpi ┘   checked    regions   `bare`                  │ start, wake, sleep_until
//!                                                                              │ map, map_message, now_ns
//! ```
//!
//! The upper half (`fdt`, `acpi`, `machine`, `layout`, `pe`, ...) reads what others wrote, which may be anything; it has no `unsafe`, builds
//! and is tested on a host. `bare` is the machine itself, and exists only where it can run.
//!
//! *One world*: all cores run at EL1, with addresses mapped to themselves, interrupts masked for ever (they end a WFI and are then asked
//! for), code on SP_EL0 and exceptions on SP_EL1. Every wait has a deadline. Whatever goes wrong is printed and ends the machine.
//! *Start-up allocates*, from a heap that `seal` then closes.
//!
//! May depend on: `toe-hal`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod esr;
pub mod fdt;
pub mod layout;
pub mod machine;
pub mod pe;
pub mod range;
pub mod ticks;

#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
mod bare;
#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
pub use bare::*;
