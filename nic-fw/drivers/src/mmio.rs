//! Registers of a device: aligned accesses of one width each, in program order for one device, inside the bounds of its window.
//!
//! ```text
//!   Mmio { base, len } ──part(at, len)──► Mmio of one structure ──read32(at)──► one load instruction
//! ```

/// A window of device registers. Offsets are bytes from its start and must be multiples of the access's width; outside the window
/// reads give all ones and writes go nowhere, as on a bus where nothing answers.
pub trait Registers: Clone {
    /// Bytes of the window.
    fn window_len(&self) -> usize;

    /// A window into this one; `None` if it would lie outside.
    fn part(&self, at: usize, len: usize) -> Option<Self>;

    fn read8(&self, at: usize) -> u8;
    fn read16(&self, at: usize) -> u16;
    fn read32(&self, at: usize) -> u32;
    fn write8(&self, at: usize, value: u8);
    fn write16(&self, at: usize, value: u16);
    fn write32(&self, at: usize, value: u32);
}

/// Registers in the address space of this machine. Copies are the same registers: who may write which is up to the drivers.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: *mut u8,
    len: usize,
}

// SAFETY: the pointer is to registers, valid on every core (see `Mmio::new`).
unsafe impl Send for Mmio {}
// SAFETY: as above; accesses are single instructions, so two cores at once are two accesses one after the other.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// # Safety
    /// `len` bytes at `base` are registers of a device, mapped as device memory (ordered, not speculated on) on every core and for ever, or
    /// memory that nobody accesses but through this. What writing them makes the device do to memory is its driver's argument.
    pub const unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len }
    }

    /// Where a register of type `T` lies, if it does.
    fn at<T>(self, at: usize) -> Option<*mut T> {
        let inside = at.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        let ptr = self.base.wrapping_add(at).cast::<T>();
        debug_assert!(!inside || ptr.is_aligned(), "register at {at:#x}");
        (inside && ptr.is_aligned()).then_some(ptr)
    }
}

macro_rules! accesses {
    ($($read:ident, $write:ident: $width:ty;)*) => {
        $(
            fn $read(&self, at: usize) -> $width {
                // SAFETY: inside the window and aligned; the window is valid (see `Mmio::new`).
                self.at(at).map_or(<$width>::MAX, |ptr| unsafe { instruction::$read(ptr) })
            }

            fn $write(&self, at: usize, value: $width) {
                if let Some(ptr) = self.at(at) {
                    // SAFETY: inside the window and aligned; the window is valid (see `Mmio::new`).
                    unsafe { instruction::$write(ptr, value) };
                }
            }
        )*
    };
}

impl Registers for Mmio {
    fn window_len(&self) -> usize {
        self.len
    }

    fn part(&self, at: usize, len: usize) -> Option<Self> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then(|| Self { base: self.base.wrapping_add(at), len })
    }

    accesses! {
        read8, write8: u8;
        read16, write16: u16;
        read32, write32: u32;
    }
}

/// One load or store each. A volatile access may become an instruction that also writes its address register back; a
/// hypervisor that has to emulate the device can't decode such a one. So the instruction is chosen here.
#[cfg(target_arch = "aarch64")]
mod instruction {
    use core::arch::asm;

    macro_rules! instructions {
        ($($read:ident $load:literal, $write:ident $store:literal: $width:ty;)*) => {
            $(
                /// # Safety
                /// A valid, aligned address of a register.
                pub unsafe fn $read(ptr: *mut $width) -> $width {
                    let value: u32;
                    // SAFETY: the caller vouches for the address.
                    unsafe { asm!(concat!($load, " {0:w}, [{1}]"), out(reg) value, in(reg) ptr, options(nostack, preserves_flags)) };
                    value as $width
                }

                /// # Safety
                /// A valid, aligned address of a register.
                pub unsafe fn $write(ptr: *mut $width, value: $width) {
                    // SAFETY: the caller vouches for the address.
                    unsafe {
                        let value = u32::from(value);
                        asm!(concat!($store, " {0:w}, [{1}]"), in(reg) value, in(reg) ptr, options(nostack, preserves_flags));
                    }
                }
            )*
        };
    }

    instructions! {
        read8 "ldrb", write8 "strb": u8;
        read16 "ldrh", write16 "strh": u16;
        read32 "ldr", write32 "str": u32;
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod instruction {
    macro_rules! instructions {
        ($($read:ident, $write:ident: $width:ty;)*) => {
            $(
                /// # Safety
                /// A valid, aligned address of a register.
                pub unsafe fn $read(ptr: *mut $width) -> $width {
                    // SAFETY: the caller vouches for the address.
                    unsafe { ptr.read_volatile() }
                }

                /// # Safety
                /// A valid, aligned address of a register.
                pub unsafe fn $write(ptr: *mut $width, value: $width) {
                    // SAFETY: the caller vouches for the address.
                    unsafe { ptr.write_volatile(value) }
                }
            )*
        };
    }

    instructions! {
        read8, write8: u8;
        read16, write16: u16;
        read32, write32: u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(words: &mut [u32]) -> Mmio {
        // SAFETY: memory of the test, accessed through nothing else meanwhile.
        unsafe { Mmio::new(words.as_mut_ptr().cast(), size_of_val(words)) }
    }

    #[test]
    fn each_width_touches_its_own_bytes() {
        let mut words = [u32::MAX, 0x1122_3344, u32::MAX];
        let mmio = over(&mut words);
        assert_eq!((mmio.read32(4), mmio.read16(4), mmio.read16(6), mmio.read8(7)), (0x1122_3344, 0x3344, 0x1122, 0x11));
        mmio.write8(4, 0xaa);
        mmio.write16(6, 0xbbcc);
        assert_eq!(mmio.read32(4), 0xbbcc_33aa);
        mmio.write32(4, 0);
        assert_eq!(words, [u32::MAX, 0, u32::MAX]);
    }

    #[test]
    fn outside_the_window_nothing_answers() {
        let mut words = [7; 4];
        let mmio = over(&mut words).part(4, 8).unwrap();
        assert_eq!((mmio.read32(8), mmio.read16(usize::MAX - 1), mmio.read8(8)), (u32::MAX, u16::MAX, u8::MAX));
        mmio.write32(8, 1);
        mmio.write8(usize::MAX, 1);
        assert_eq!((mmio.part(0, 9).map(|m| m.len), mmio.part(usize::MAX, 2).map(|m| m.len)), (None, None));
        assert_eq!(mmio.part(4, 4).unwrap().read32(0), 7);
        assert_eq!(words, [7; 4]);
    }
}
