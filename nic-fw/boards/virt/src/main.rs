//! The image for QEMU's `virt` machine: starts as ELF or as a UEFI application, and ends QEMU with a verdict.
//!
//! ```text
//!   toe-arch ─► main ─► tests (feature `tests`)          end ─► semihosting: QEMU's exit code
//! ```
//!
//! Anywhere but on bare-metal AArch64 this is an empty program, so that the workspace builds on a host.
#![cfg_attr(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")), no_std, no_main)]

#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
extern crate alloc;

#[cfg(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi")))]
mod image;

#[cfg(not(all(target_arch = "aarch64", any(target_os = "none", target_os = "uefi"))))]
fn main() {
    eprintln!("toe-virt runs on QEMU's virt machine: cargo xtask image virt");
}
