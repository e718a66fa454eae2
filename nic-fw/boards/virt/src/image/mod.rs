//! The image itself.

extern crate alloc;

use toe_arch::{Platform, println};

toe_arch::board! { main: main, end: end }

fn main(platform: &'static Platform) -> ! {
    println!("toe-virt: {} cores, started at EL{}, words: {:?}", platform.cores(), platform.started_at(), platform.machine().command_line);
    println!("verify {:?}", platform.verify_map().map_err(|e| println!("{e}")));
    for c in 1..platform.cores() {
        platform.start(c, move || println!("hello from {} {}", c, toe_arch::cores::index())).unwrap();
    }
    end(0)
}

/// Ends QEMU, whose exit code is the verdict.
fn end(verdict: u32) -> ! {
    semihosting::process::exit(verdict as i32)
}
