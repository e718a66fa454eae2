//! Exceptions. None is expected: interrupts stay masked, and are taken by asking the interrupt controller. So each is reported with all
//! that is known, and ends the machine.
//!
//! ```text
//!   fault at EL1t ─► SP_EL1 ─► registers saved ─► report, unless one is under way ─► end(EXIT_FAULT)
//!   fault while reporting ─► a fresh stack ─► one line ─► end; fault in that ─► end
//! ```

use super::{console, cores, end, failure, time};
use crate::esr;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// The verdict of a fault.
pub const EXIT_FAULT: u32 = 100;

/// What assembly saves. Its fields and their order are fixed.
#[repr(C)]
struct Frame {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

const _: () = assert!(size_of::<Frame>() == 288);

const KINDS: [&str; 4] = ["synchronous exception", "interrupt", "fast interrupt", "SError"];

unsafe extern "C" {
    static toe_vectors: u8;
}

/// For VBAR_EL1.
pub fn vectors() -> u64 {
    (&raw const toe_vectors).addr() as u64
}

/// How often each report was begun, by all cores: the second fault of a core that reports goes short.
static NESTED: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
extern "C" fn toe_exception(kind: u64, frame: &Frame) -> ! {
    // Not the first report, but on the console all that is known of each fault stands.
    let first = failure::begin();
    report(kind, frame);
    if first {
        tell(kind, frame);
    }
    end(EXIT_FAULT)
}

/// All that is known, on the console.
fn report(kind: u64, frame: &Frame) {
    let class = esr::class(frame.esr);
    let place = if kind >= 8 { " from EL0" } else { "" };
    let out = |what: core::fmt::Arguments<'_>| console::line_by_force(what);
    out(format_args!("\nFAULT on core {}, doing: {}, at {} ns", cores::index(), cores::doing(), time::now_ns()));
    out(format_args!("  {}{place}: {} (ESR {:#010x}, class {class:#04x})", KINDS[kind as usize % 4], esr::class_name(class), frame.esr));
    if esr::has_address(class) {
        let access = if class >= 0x24 && esr::is_write(frame.esr) { "write" } else { "access" };
        out(format_args!("  {access} of {:#018x} (FAR): {}", frame.far, esr::fault_name(frame.esr)));
        if let Some(stack) = cores::guard_hit(frame.far) {
            out(format_args!("  stack overflow: the guard page below the {stack}"));
        }
    }
    out(format_args!("  ELR {:#018x}  SP {:#018x}  SPSR {:#010x}", frame.elr, frame.sp, frame.spsr));
    for (row, four) in frame.x.chunks(4).enumerate() {
        let at = |i: usize| four.get(i).copied().unwrap_or(0);
        out(format_args!("  x{:<2} {:016x} {:016x} {:016x} {:016x}", row * 4, at(0), at(1), at(2), at(3)));
    }
}

/// In a line, to the board.
fn tell(kind: u64, frame: &Frame) {
    let class = esr::class(frame.esr);
    let (kind, name, at) = (KINDS[kind as usize % 4], esr::class_name(class), frame.elr);
    match cores::guard_hit(frame.far) {
        Some(stack) if esr::has_address(class) => failure::tell(format_args!("fault: overflow of the {stack}, at {at:#x}")),
        _ if esr::has_address(class) => {
            failure::tell(format_args!("fault: {name} of {:#x} ({}), at {at:#x}", frame.far, esr::fault_name(frame.esr)));
        }
        _ => failure::tell(format_args!("fault: {kind}, {name}, at {at:#x}")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn toe_nested(esr: u64, elr: u64, far: u64) -> ! {
    // Of the third nothing more is said: the console itself may be what faults.
    if NESTED.fetch_add(1, Ordering::Relaxed) == 0 {
        console::line_by_force(format_args!("\nFAULT while reporting on core {}: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}", cores::index()));
    }
    end(EXIT_FAULT)
}

global_asm!(
    r#"
    .macro toe_vector kind
    .balign 128
    sub     sp, sp, #288
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       toe_vector_saved
    .endm

    .macro toe_vector_nested
    .balign 128
    b       toe_vector_nested_entry
    .endm

    .text
    .balign 2048
    .global toe_vectors
toe_vectors:
    toe_vector 0
    toe_vector 1
    toe_vector 2
    toe_vector 3
    toe_vector_nested
    toe_vector_nested
    toe_vector_nested
    toe_vector_nested
    toe_vector 8
    toe_vector 9
    toe_vector 10
    toe_vector 11
    toe_vector 12
    toe_vector 13
    toe_vector 14
    toe_vector 15

toe_vector_saved:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, sp_el0
    stp     x30, x1, [sp, #240]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [sp, #256]
    mrs     x1, esr_el1
    mrs     x2, far_el1
    stp     x1, x2, [sp, #272]
    mov     x1, sp
    bl      toe_exception

toe_vector_nested_entry:
    mrs     x9, tpidr_el1               // a fresh stack, if this core has one of its own
    cbz     x9, 1f
    ldr     x10, [x9, #40]
    mov     sp, x10
1:  mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      toe_nested
"#
);
