//! execl and its kin. Their arguments go on as they have come, in registers and on the stack, to libc's function of the same name.

use crate::fd::before_exec;
use libc::c_int;
use std::arch::naked_asm;

/// Saves the registers that hold arguments, asks `next` for the address of libc's function, and goes on there.
#[cfg(target_arch = "x86_64")]
macro_rules! go_on {
    ($next:path) => {
        naked_asm!(
            // The stack is aligned after the seventh. (al: how many vector registers there are.)
            "push rdi; push rsi; push rdx; push rcx; push r8; push r9; push rax",
            "call {next}",
            "mov r11, rax",
            "pop rax; pop r9; pop r8; pop rcx; pop rdx; pop rsi; pop rdi",
            "jmp r11",
            next = sym $next,
        )
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! go_on {
    ($next:path) => {
        naked_asm!(
            "stp x29, x30, [sp, #-80]!",
            "stp x0, x1, [sp, #16]",
            "stp x2, x3, [sp, #32]",
            "stp x4, x5, [sp, #48]",
            "stp x6, x7, [sp, #64]",
            "bl {next}",
            "mov x16, x0",
            "ldp x0, x1, [sp, #16]",
            "ldp x2, x3, [sp, #32]",
            "ldp x4, x5, [sp, #48]",
            "ldp x6, x7, [sp, #64]",
            "ldp x29, x30, [sp], #80",
            "br x16",
            next = sym $next,
        )
    };
}

macro_rules! variadic {
    ($($name:ident)*) => {$(
        mod $name {
            pub extern "C" fn next() -> usize {
                super::before_exec();
                real!($name as fn() -> super::c_int) as usize
            }
        }

        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            go_on!($name::next)
        }
    )*};
}

variadic! { execl execle execlp }
