//! Failures on purpose, so that it can be tried what a host makes of them.
//!
//! ```text
//!   words on the kernel's command line:  fail=start                         start-up finds something wrong
//!                                        fail=panic fail-after=MILLISECONDS  the last core, which does nothing else, panics then
//!                                        fail=fault fail-after=MILLISECONDS  it writes where nothing is mapped
//!                                        fail=port fail-after=MILLISECONDS   it says that the network device breaks the rules: every so
//!                                                                            many milliseconds
//! ```

use super::log::boot;
use toe_arch::cores::{self, Doing};
use toe_arch::{Platform, time};
use toe_drivers::virtio::Alarm;

static WAITING: Doing = Doing("waiting for its time to fail, as it was told to");

/// Not mapped in any layout: the first page of all.
const NOWHERE: usize = 0x10;

/// What is to happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    Start,
    Panic,
    Fault,
    Port,
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
        "port" => Mishap::Port,
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
pub fn arrange(platform: &'static Platform, alarm: &Alarm, leader: usize) {
    let Some((mishap, after_ms)) = asked(platform) else { return };
    boot!("told to fail after {} ms", after_ms);
    if mishap == Mishap::Start {
        toe_arch::refuse(&"it was told to");
    }
    let last = platform.cores() - 1;
    let at = time::now_ns().saturating_add(after_ms.saturating_mul(1_000_000));
    let alarm = alarm.clone();
    let fail = move || if mishap == Mishap::Port { break_port(&alarm, leader, after_ms) } else { wait_and_fail(mishap, at) };
    if let Err(error) = platform.start(last, fail) {
        panic!("core {last} does not start: {error}");
    }
}

fn wait(at_ns: u64) {
    cores::set_doing(&WAITING);
    while time::now_ns() < at_ns {
        cores::sleep_until(Some(at_ns), |_| ());
    }
}

fn break_port(alarm: &Alarm, leader: usize, every_ms: u64) {
    loop {
        wait(time::now_ns().saturating_add(every_ms.max(1).saturating_mul(1_000_000)));
        alarm.raise();
        cores::wake(leader);
    }
}

fn wait_and_fail(mishap: Mishap, at_ns: u64) {
    wait(at_ns);
    if mishap == Mishap::Panic {
        panic!("it was told to");
    }
    // SAFETY: none: it faults, which is what it is for.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(NOWHERE).write_volatile(5) };
}
