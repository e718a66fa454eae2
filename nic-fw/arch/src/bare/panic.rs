//! A panic ends the machine: which core, doing what, and the message. So does a start-up that found something wrong.

use super::{console, cores, end, failure};
use core::panic::PanicInfo;

/// The verdict of a panic.
pub const EXIT_PANIC: u32 = 101;
/// The verdict of a start-up that found something wrong.
pub const EXIT_START: u32 = 102;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if failure::begin() {
        console::line_by_force(format_args!("\nPANIC on core {}, doing: {}\n{info}", cores::index(), cores::doing()));
        match info.location() {
            Some(at) => failure::tell(format_args!("panic: {}, at {}:{}", info.message(), at.file(), at.line())),
            None => failure::tell(format_args!("panic: {}", info.message())),
        }
    }
    end(EXIT_PANIC)
}

/// Start-up can't go on.
pub fn refuse(why: &dyn core::fmt::Display) -> ! {
    if failure::begin() {
        console::line_by_force(format_args!("\nstart-up refused: {why}"));
        failure::tell(format_args!("start-up refused: {why}"));
    }
    end(EXIT_START)
}
