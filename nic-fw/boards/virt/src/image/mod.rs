//! The image itself: what is the board's own, below the tests.

#[cfg(feature = "tests")]
mod tests;

use toe_arch::{Platform, println};

toe_arch::board! { main: main, end: end }

fn main(platform: &'static Platform) -> ! {
    println!("toe-virt: {} cores, started at EL{}", platform.cores(), platform.started_at());
    #[cfg(feature = "tests")]
    tests::run(platform);
    #[cfg(not(feature = "tests"))]
    idle(platform)
}

/// What there is to do until the data path is here: all cores start, and sleep. The word `off` on the command line turns the machine off
/// instead.
#[cfg(not(feature = "tests"))]
fn idle(platform: &'static Platform) -> ! {
    use toe_arch::cores;
    static ASLEEP: cores::Doing = cores::Doing("nothing: asleep");
    let sleep = || -> ! {
        cores::set_doing(&ASLEEP);
        loop {
            cores::sleep_until(None, |_| ());
        }
    };
    for core in 1..platform.cores() {
        if let Err(error) = platform.start(core, move || sleep()) {
            println!("core {core} does not start: {error}");
            end(1)
        }
    }
    toe_arch::seal();
    let (heap, of) = platform.heap_used();
    println!("toe-virt: all cores run; {} KiB of {} KiB of heap are used", heap >> 10, of >> 10);
    if platform.machine().command_line.split_whitespace().any(|word| word == "off") {
        end(0)
    }
    sleep()
}

/// Ends QEMU, whose exit code is the verdict.
#[cfg(feature = "tests")]
fn end(verdict: u32) -> ! {
    semihosting::process::exit(verdict as i32)
}

/// Turns the machine off; where that is not possible, or not known yet, this core stops.
#[cfg(not(feature = "tests"))]
fn end(_: u32) -> ! {
    toe_arch::off();
    toe_arch::halt()
}
