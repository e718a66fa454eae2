//! Barriers between this core and a device that reads and writes the same memory.
//!
//! ```text
//!   driver                                    device
//!   write descriptor; publish(); write index ── reads index, then descriptor
//!   read index; consume(); read entry        ── writes entry, then index
//!   write index; full(); read event index    ── writes event index, full barrier, reads index
//! ```
//!
//! On AArch64 a device may be outside of the domain that a plain fence (`dmb ish`) orders, so these reach the outer shareable one
//! (Arm ARM, B2.3; VIRTIO_F_ORDER_PLATFORM). Elsewhere the drivers run in tests only, against devices made of software.

/// All writes before come before all writes after it. Partner: the device's reading in the opposite order.
#[inline]
pub fn publish() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no state.
    unsafe {
        core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
}

/// All reads before come before all accesses after it. Partner: the device's writing in the opposite order.
#[inline]
pub fn consume() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no state.
    unsafe {
        core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
}

/// All accesses before, to memory and to registers, come before all after it. Partner: the same barrier of the device.
#[inline]
pub fn full() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no state.
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
