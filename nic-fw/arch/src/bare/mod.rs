//! What only runs on the machine itself, at EL1.

mod bytes;
pub mod console;
pub mod cores;
mod enter;
mod exception;
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
pub use map::MapError;
pub use mmio::Registers;
pub use panic::{EXIT_PANIC, EXIT_START};
pub use platform::{Error, Platform, seal};
pub use start::off;

/// What a board's image gives: both are linked by name.
#[macro_export]
macro_rules! board {
    (main: $main:path, end: $end:path $(,)?) => {
        #[unsafe(no_mangle)]
        fn toe_board_main(platform: &'static $crate::Platform) -> ! {
            let main: fn(&'static $crate::Platform) -> ! = $main;
            main(platform)
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
