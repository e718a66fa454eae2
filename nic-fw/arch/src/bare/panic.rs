//! A panic ends the machine: which core, doing what, and the message.

use super::{console, cores, end};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// The verdict of a panic.
pub const EXIT_PANIC: u32 = 101;
/// The verdict of a start-up that found something wrong.
pub const EXIT_START: u32 = 102;

/// Somebody panics already: what panics while it is reported only ends.
static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !PANICKING.swap(true, Ordering::AcqRel) {
        console::line_by_force(format_args!("\nPANIC on core {}, doing: {}\n{info}", cores::index(), cores::doing()));
    }
    end(EXIT_PANIC)
}

/// Start-up can't go on.
pub fn refuse(why: &dyn core::fmt::Display) -> ! {
    console::line_by_force(format_args!("\nstart-up refused: {why}"));
    end(EXIT_START)
}
