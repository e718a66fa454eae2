//! Start as an ELF image, by the boot protocol of Linux (x0: device tree; MMU off, EL2 or EL1) or that of QEMU for other images
//! (x0: 0; the device tree lies at the start of memory).
//!
//! ```text
//!   _start ─► boot tables: the GiB of the image, cached ─► toe_go ─► BSS = 0 ─► boot: device tree ─► start::run
//! ```
//!
//! The MMU is on before the first line of Rust: without it memory is Device, where unaligned accesses fault and exclusive ones may.

use super::panic::refuse;
use super::start::{self, Image};
use super::{console, enter, heap};
use crate::fdt::{self, blob};
use crate::machine::{Machine, Wrong};
use crate::pe::{Access, Section};
use crate::range::{PAGE, Range};
use aarch64_cpu::asm::barrier;
use core::arch::global_asm;
use core::slice;

global_asm!(
    r#"
    .section .text.boot, "ax"
    .global _start
_start:
    mov     x19, x0
    mrs     x20, CurrentEL
    adrp    x10, __boot_tables          // two pages: level 0, level 1
    add     x11, x10, #4096
    add     x13, x10, #8192
    mov     x12, x10
1:  stp     xzr, xzr, [x12], #16
    cmp     x12, x13
    b.lo    1b
    adrp    x14, __image_start
    lsr     x12, x14, #39
    orr     x13, x11, #3                // a table
    str     x13, [x10, x12, lsl #3]
    mov     x15, #0x705                 // a block: accessed, inner shareable, attribute 1
    ubfx    x12, x14, #30, #9
    orr     x13, x15, x12, lsl #30
    lsr     x16, x14, #39
    orr     x13, x13, x16, lsl #39
    str     x13, [x11, x12, lsl #3]
    cbz     x19, 2f                     // the GiB of the device tree, if level 1 reaches it
    lsr     x12, x19, #39
    cmp     x12, x16
    b.ne    2f
    ubfx    x12, x19, #30, #9
    orr     x13, x15, x12, lsl #30
    orr     x13, x13, x16, lsl #39
    str     x13, [x11, x12, lsl #3]
2:  dsb     sy                          // written past the caches: what they have of it is old
    mrs     x12, ctr_el0
    ubfx    x12, x12, #16, #4
    mov     x13, #4
    lsl     x13, x13, x12
    mov     x12, x10
    add     x14, x10, #8192
3:  dc      ivac, x12
    add     x12, x12, x13
    cmp     x12, x14
    b.lo    3b
    dsb     sy
    mov     x0, x19
    mov     x1, x10
    ldr     x2, ={tcr}
    mrs     x12, id_aa64mmfr0_el1       // bits of physical addresses, up to 48
    and     x12, x12, #15
    mov     x13, #5
    cmp     x12, x13
    csel    x12, x12, x13, lo
    orr     x2, x2, x12, lsl #32
    ldr     x3, ={mair}
    ldr     x4, ={sctlr}
    adrp    x5, __boot_stack_end
    adrp    x6, __boot_exception_stack_end
    adrp    x7, toe_vectors
    add     x7, x7, :lo12:toe_vectors
    mov     x8, xzr
    adr     x9, 4f
    b       toe_go
4:  adrp    x10, __bss_start
    add     x10, x10, :lo12:__bss_start
    adrp    x11, __bss_end
    add     x11, x11, :lo12:__bss_end
5:  cmp     x10, x11
    b.hs    6f
    stp     xzr, xzr, [x10], #16
    b       5b
6:  mov     x0, x19
    lsr     x1, x20, #2
    bl      toe_boot_elf
    .ltorg
"#,
    tcr = const enter::TCR_BASE,
    mair = const enter::MAIR,
    sctlr = const enter::SCTLR_BOOT,
);

/// What the linker script (`linker/image.ld`) says of the image. Only addresses: nothing is there to read.
mod symbols {
    unsafe extern "C" {
        pub static __image_start: u8;
        pub static __image_end: u8;
        pub static __text_start: u8;
        pub static __text_end: u8;
        pub static __rodata_start: u8;
        pub static __rodata_end: u8;
        pub static __data_start: u8;
        pub static __data_end: u8;
        pub static __boot_guard: u8;
        pub static __boot_stack_start: u8;
        pub static __boot_stack_end: u8;
        pub static __boot_exception_guard: u8;
        pub static __boot_exception_stack_start: u8;
        pub static __boot_exception_stack_end: u8;
        pub static __boot_tables: [u64; 1024];
        pub static __memory_start: u8;
    }
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const symbols::$symbol).addr() as u64
    };
}

fn section(start: u64, end: u64, access: Access) -> Option<Section> {
    Some(Section { range: Range::between(start, end)?.pages_out(), access })
}

fn image() -> Option<Image> {
    let sections = [
        section(address!(__text_start), address!(__text_end), Access::Execute),
        section(address!(__rodata_start), address!(__rodata_end), Access::Read),
        section(address!(__data_start), address!(__data_end), Access::Write),
        section(address!(__boot_stack_start), address!(__boot_stack_end), Access::Write),
        section(address!(__boot_exception_stack_start), address!(__boot_exception_stack_end), Access::Write),
    ];
    let guards = [address!(__boot_guard), address!(__boot_exception_guard)];
    Some(Image {
        sections: sections.into_iter().flatten().collect(),
        guards: guards.into_iter().filter_map(|base| Range::new(base, PAGE)).collect(),
    })
}

/// The GiB around an address, as boot tables map it.
fn gib(address: u64) -> Option<Range> {
    Range::new(address & !((1 << 30) - 1), 1 << 30)
}

/// The device tree: where x0 says, or at the start of memory. Only what the boot tables map is looked at.
fn device_tree(x0: u64) -> Option<&'static [u8]> {
    let image = address!(__image_start);
    let windows = [gib(image), gib(x0).filter(|_| x0 != 0 && x0 >> 39 == image >> 39)];
    [x0, address!(__memory_start)].into_iter().filter(|base| *base != 0).find_map(|base| {
        let window = windows.into_iter().flatten().find(|gib| gib.contains(base))?;
        let bytes = |len: usize| -> Option<&'static [u8]> {
            let range = Range::new(base, len as u64).filter(|range| window.covers(*range) && base.is_multiple_of(8))?;
            // SAFETY: mapped as normal memory by the boot tables, and nobody writes there while we read.
            Some(unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(range.base() as usize), len) })
        };
        bytes(blob::blob_len(bytes(blob::HEADER)?)?)
    })
}

/// Maps the GiB of the console in the boot tables, if nothing else is there, so that start-up can say what is wrong.
fn early_console(range: Range) {
    let (image, uart) = (address!(__image_start), range.base());
    let index = (uart >> 30 & 511) as usize;
    if uart >> 39 != image >> 39 || !uart.is_multiple_of(PAGE) {
        return;
    }
    let entry = (&raw const symbols::__boot_tables).cast::<u64>().cast_mut().wrapping_add(512 + index);
    // SAFETY: an entry of level 1 of the boot tables, which only this core uses. It is not valid before, so the TLB has nothing of it.
    unsafe {
        if entry.read_volatile() != 0 {
            return;
        }
        // A block, accessed, attribute 0, never executed.
        entry.write_volatile(uart >> 30 << 30 | 1 << 54 | 1 << 53 | 1 << 10 | 1);
    }
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    // SAFETY: mapped as a device now; the tables that follow map it as well.
    unsafe { console::set(range) };
}

fn machine(x0: u64, heap: &mut Option<Range>) -> Result<Machine, Wrong> {
    let tree = device_tree(x0).ok_or(Wrong::Missing("device tree"))?;
    fdt::uart(tree).into_iter().for_each(early_console);
    let mut machine = fdt::machine(tree)?;
    let image = Machine::range("our image", address!(__image_start), address!(__image_end) - address!(__image_start))?;
    machine.memory.reserve(image)?;
    machine.memory.reserve(Machine::range("device tree", tree.as_ptr().addr() as u64, tree.len() as u64)?)?;
    if !machine.memory.all.iter().any(|memory| memory.covers(image)) {
        return Err(Wrong::Missing("memory where our image is"));
    }
    machine.check(enter::mpidr())?;
    // Boot tables reach no further.
    *heap = gib(image.base()).and_then(|window| machine.memory.free.largest_in(window));
    Ok(machine)
}

#[unsafe(no_mangle)]
extern "C" fn toe_boot_elf(x0: u64, started_at: u64) -> ! {
    let mut heap = None;
    let machine = machine(x0, &mut heap).unwrap_or_else(|wrong| refuse(&wrong));
    let (Some(image), Some(heap)) = (image(), heap) else { refuse(&"no memory for the heap") };
    // SAFETY: free memory, which the boot tables map.
    unsafe { heap::set(heap) };
    start::run(machine, &image, heap, started_at as u8)
}
