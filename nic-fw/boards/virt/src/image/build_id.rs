//! Which build this image is: the linker has put a hash of it into a note (`--build-id`), and the same into the ELF file.

use toe_abi::window::BUILD_WORDS;

/// The hash; zeroes if the linker was not asked for one.
#[cfg(target_os = "none")]
pub fn get() -> [u32; BUILD_WORDS] {
    /// Bytes of the hash, and of the note before it: three lengths and the owner's name (`GNU`).
    const HASH: usize = size_of::<[u32; BUILD_WORDS]>();
    const HEAD: usize = 16;
    unsafe extern "C" {
        static __build_id_start: u8;
        static __build_id_end: u8;
    }
    let (start, end) = (&raw const __build_id_start, &raw const __build_id_end);
    if end.addr().wrapping_sub(start.addr()) != HEAD + HASH {
        return [0; BUILD_WORDS];
    }
    // SAFETY: the linker script (`linker/image.ld`) has the note between the two, in constants, aligned to 4 bytes; it is as long as that.
    unsafe { start.add(HEAD).cast::<[u32; BUILD_WORDS]>().read() }
}

/// An application for UEFI has no such note.
#[cfg(target_os = "uefi")]
pub fn get() -> [u32; BUILD_WORDS] {
    [0; BUILD_WORDS]
}
