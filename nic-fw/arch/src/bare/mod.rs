//! What only runs on the machine itself.
//!
//! ```text
//!   elf, uefi ─► start ─► enter (EL1) ─► platform ─► board          heap, stack, map: memory
//!                  │                        │                       console, panic, exception: what goes wrong
//!                  └─ gic, its              └─ cores, time, psci    mmio: registers
//! ```

mod bytes;
pub mod console;
pub mod cores;
mod enter;
mod exception;
mod failure;
pub mod gic;
mod heap;
mod map;
mod mmio;
mod panic;
mod platform;
mod psci;
mod stack;
mod start;
pub mod time;

#[cfg(target_os = "none")]
mod elf;
#[cfg(target_os = "uefi")]
mod uefi;

pub use exception::EXIT_FAULT;
pub use failure::Failure;
pub use map::MapError;
pub use mmio::Registers;
pub use panic::{EXIT_PANIC, EXIT_START, refuse};
pub use platform::{Error, Platform, seal};
pub use start::off;

/// What a board's image gives, linked by name: where it begins, how it ends, and who else hears why.
///
/// `failed` is called at most once, by the core that fails first, whatever that held: see [`Failure`].
#[macro_export]
macro_rules! board {
    (main: $main:path, failed: $failed:path, end: $end:path $(,)?) => {
        #[unsafe(no_mangle)]
        fn toe_board_main(platform: &'static $crate::Platform) -> ! {
            let main: fn(&'static $crate::Platform) -> ! = $main;
            main(platform)
        }

        #[unsafe(no_mangle)]
        fn toe_board_failed(failure: &$crate::Failure<'_>) {
            let failed: fn(&$crate::Failure<'_>) = $failed;
            failed(failure)
        }

        #[unsafe(no_mangle)]
        fn toe_board_end(verdict: u32) -> ! {
            let end: fn(u32) -> ! = $end;
            end(verdict)
        }
    };
}

/// Ends the machine with a verdict, as the board can: 0 is success.
pub fn end(verdict: u32) -> ! {
    unsafe extern "Rust" {
        fn toe_board_end(verdict: u32) -> !;
    }
    // SAFETY: `board!` defines it with this type.
    unsafe { toe_board_end(verdict) }
}

/// This core does nothing any more.
pub fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}
