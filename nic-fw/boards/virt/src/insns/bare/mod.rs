//! What runs on the machine.

mod app;
mod board;
mod control;
mod count;
mod frames;
mod memory;
mod port;
mod rig;
mod runs;

use toe_arch::{Platform, println};

toe_arch::board! { main: main, failed: failed, end: end }

fn main(_: &'static Platform) -> ! {
    count::start();
    match runs::all() {
        Ok(()) => end(0),
        Err(why) => {
            println!("toe-insns: {why}");
            end(1)
        }
    }
}

/// There is nobody to tell but the console.
fn failed(_: &toe_arch::Failure<'_>) {}

/// Ends QEMU, whose exit code is the verdict.
fn end(verdict: u32) -> ! {
    semihosting::process::exit(verdict as i32)
}
