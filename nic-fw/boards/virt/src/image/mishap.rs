//! Failures on purpose, so that it can be tried what a host makes of them.
//!
//! ```text
//!   words on the kernel's command line:  fail=start                         start-up finds something wrong
//!                                        fail=panic fail-after=MILLISECONDS  the last core, which does nothing else, panics then
//!                                        fail=fault fail-after=MILLISECONDS  it writes where nothing is mapped
//! ```

use super::log::boot;
use toe_arch::cores::{self, Doing};
use toe_arch::{Platform, time};

static WAITING: Doing = Doing("waiting for its time to fail, as it was told to");

/// Not mapped in any layout: the first page of all.
const NOWHERE: usize = 0x10;

/// What is to happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    Start,
    Panic,
    Fault,
}

/// What the command line asks for, and after how many milliseconds.
pub fn asked(platform: &Platform) -> Option<(Mishap, u64)> {
    let word = |name: &str| {
        let mut words = platform.machine().command_line.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let mishap = match word("fail")? {
        "start" => Mishap::Start,
        "panic" => Mishap::Panic,
        "fault" => Mishap::Fault,
        _ => return None,
    };
    Some((mishap, word("fail-after").and_then(|ms| ms.parse().ok()).unwrap_or(0)))
}

/// Cores that are left for the card.
pub fn cores_left(platform: &Platform) -> usize {
    let spent = asked(platform).is_some_and(|(mishap, _)| mishap != Mishap::Start);
    platform.cores().saturating_sub(usize::from(spent)).max(1)
}

/// Fails now, or sets the last core to fail later.
pub fn arrange(platform: &'static Platform) {
    let Some((mishap, after_ms)) = asked(platform) else { return };
    boot!("told to fail after {} ms", after_ms);
    if mishap == Mishap::Start {
        toe_arch::refuse(&"it was told to");
    }
    let last = platform.cores() - 1;
    let at = time::now_ns().saturating_add(after_ms.saturating_mul(1_000_000));
    if let Err(error) = platform.start(last, move || wait_and_fail(mishap, at)) {
        panic!("core {last} does not start: {error}");
    }
}

fn wait_and_fail(mishap: Mishap, at_ns: u64) {
    cores::set_doing(&WAITING);
    while time::now_ns() < at_ns {
        cores::sleep_until(Some(at_ns), |_| ());
    }
    if mishap == Mishap::Panic {
        panic!("it was told to");
    }
    // SAFETY: none: it faults, which is what it is for.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(NOWHERE).write_volatile(5) };
}
