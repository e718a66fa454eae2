//! Copying and filling bytes: `memcpy`, `memmove` and `memset`, which compiled code calls.
//!
//! ```text
//!   up to 64 bytes:   ├─ front ─┤            both are loaded before either is stored: they may overlap, each other and the destination
//!                          ├─ back ─┤
//!   more:             64 bytes at a time, and then the back (moving upwards: the front), which was loaded first
//! ```
//!
//! Those of compiler-builtins are made for machines that can't access unaligned words: they copy most of what is not aligned alike byte
//! by byte. Here all memory that code copies is normal memory, the MMU is on before the first line of Rust, and alignment is not checked
//! (SCTLR_EL1.A is 0). Registers of devices are reached word by word and never come here.

use core::arch::global_asm;

global_asm!(
    r#"
    .text
    .balign 16
    .global memcpy
    .global memmove
memcpy:
memmove:
    add     x4, x1, x2                  // end of the source
    add     x5, x0, x2                  // end of the destination
    cmp     x2, #16
    b.lo    3f
    cmp     x2, #32
    b.hi    1f
    ldr     q0, [x1]
    ldr     q1, [x4, #-16]
    str     q0, [x0]
    str     q1, [x5, #-16]
    ret
1:  cmp     x2, #64
    b.hi    6f
    ldp     q0, q1, [x1]
    ldp     q2, q3, [x4, #-32]
    stp     q0, q1, [x0]
    stp     q2, q3, [x5, #-32]
    ret

3:  tbz     x2, #3, 4f                  // 8 to 15
    ldr     x6, [x1]
    ldr     x7, [x4, #-8]
    str     x6, [x0]
    str     x7, [x5, #-8]
    ret
4:  tbz     x2, #2, 5f                  // 4 to 7
    ldr     w6, [x1]
    ldr     w7, [x4, #-4]
    str     w6, [x0]
    str     w7, [x5, #-4]
    ret
5:  cbz     x2, 9f
    ldrb    w6, [x1]                    // 1 to 3: first, middle, last
    lsr     x8, x2, #1
    ldrb    w7, [x1, x8]
    ldrb    w9, [x4, #-1]
    strb    w6, [x0]
    strb    w7, [x0, x8]
    strb    w9, [x5, #-1]
9:  ret

6:  sub     x6, x0, x1
    cmp     x6, x2                      // the destination begins within the source: from the end
    b.lo    8f
    ldp     q4, q5, [x4, #-64]
    ldp     q6, q7, [x4, #-32]
    sub     x6, x5, #64
    mov     x3, x0
7:  ldp     q2, q3, [x1, #32]
    ldp     q0, q1, [x1], #64
    stp     q2, q3, [x3, #32]
    stp     q0, q1, [x3], #64
    cmp     x3, x6
    b.lo    7b
    stp     q4, q5, [x6]
    stp     q6, q7, [x6, #32]
    ret
8:  ldp     q4, q5, [x1]
    ldp     q6, q7, [x1, #32]
    add     x6, x0, #64
7:  ldp     q2, q3, [x4, #-32]
    ldp     q0, q1, [x4, #-64]!
    stp     q2, q3, [x5, #-32]
    stp     q0, q1, [x5, #-64]!
    cmp     x5, x6
    b.hi    7b
    stp     q4, q5, [x0]
    stp     q6, q7, [x0, #32]
    ret

    .balign 16
    .global memset
memset:
    dup     v0.16b, w1
    add     x5, x0, x2
    cmp     x2, #16
    b.lo    3f
    cmp     x2, #64
    b.hi    6f
    str     q0, [x0]
    str     q0, [x5, #-16]
    cmp     x2, #32
    b.ls    9f
    str     q0, [x0, #16]
    str     q0, [x5, #-32]
9:  ret
3:  tbz     x2, #3, 4f
    str     d0, [x0]
    str     d0, [x5, #-8]
    ret
4:  tbz     x2, #2, 5f
    str     s0, [x0]
    str     s0, [x5, #-4]
    ret
5:  cbz     x2, 9b
    lsr     x8, x2, #1
    strb    w1, [x0]
    strb    w1, [x0, x8]
    strb    w1, [x5, #-1]
    ret
6:  sub     x6, x5, #64
    mov     x3, x0
7:  stp     q0, q0, [x3, #32]
    stp     q0, q0, [x3], #64
    cmp     x3, x6
    b.lo    7b
    stp     q0, q0, [x6]
    stp     q0, q0, [x6, #32]
    ret
"#
);
