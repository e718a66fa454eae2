//! An image that counts the instructions of the data path: the fused card on one core, frames replayed from memory, nothing else there.
//!
//! ```text
//!   frames ─► port ─► Card ─► port: counts          the board's part: the clock stands still (`count`)
//!   application ─► context queue ─┘ └─► events      outside of what is measured
//!   QEMU, -icount shift=0: PMCCNTR_EL0 counts instructions ─► lines `run ...`, `stage ...` ─► cargo xtask insns
//! ```
//!
//! Elsewhere than on bare-metal AArch64 this is an empty program.
#![cfg_attr(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")), no_std, no_main)]

#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
extern crate alloc;

#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
mod bare;

#[cfg(not(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi"))))]
fn main() {
    eprintln!("toe-insns runs on QEMU's virt machine: cargo xtask insns");
}
