//! The image itself: what is the board's own, below the tests.

#[cfg(not(feature = "tests"))]
mod board;
#[cfg(not(feature = "tests"))]
mod build_id;
#[cfg(not(feature = "tests"))]
mod card;
#[cfg(not(feature = "tests"))]
mod crew;
#[cfg(not(feature = "tests"))]
mod devices;
#[cfg(not(feature = "tests"))]
mod engine;
#[cfg(not(feature = "tests"))]
mod failure;
#[cfg(not(feature = "tests"))]
mod leader;
mod log;
#[cfg(not(feature = "tests"))]
mod mishap;
#[cfg(not(feature = "tests"))]
mod run;
#[cfg(feature = "tests")]
mod tests;

use log::boot;
use toe_arch::Platform;

toe_arch::board! { main: main, failed: failed, end: end }

fn main(platform: &'static Platform) -> ! {
    boot!("toe-virt: {} cores, started at EL{}", platform.cores(), platform.started_at());
    #[cfg(feature = "tests")]
    tests::run(platform);
    #[cfg(not(feature = "tests"))]
    serve(platform)
}

/// Finds the devices, and is a card.
#[cfg(not(feature = "tests"))]
fn serve(platform: &'static Platform) -> ! {
    let pairs = if platform.cores() > 1 { 2 } else { 1 };
    let secret = card::Secret::new(platform);
    match devices::start(platform, pairs, secret.instance) {
        Ok(devices) => card::run(platform, devices, &secret),
        Err(missing) => toe_arch::refuse(&missing),
    }
}

#[cfg(not(feature = "tests"))]
use failure::failed;

/// There is nobody to tell but the console.
#[cfg(feature = "tests")]
fn failed(_: &toe_arch::Failure<'_>) {}

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
