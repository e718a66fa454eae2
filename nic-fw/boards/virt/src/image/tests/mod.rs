//! Tests on the machine: what only it can answer. Each prints a line; the exit code says whether all held.
//!
//! ```text
//!   words on the command line:  cores=4 el=2 mib=256 rounds=1000     what the machine has to be, and how long to try
//!                               fault=NAME                           does that instead: ends with a report, see `faults`
//! ```

mod crew;
mod faults;
mod interrupts;
mod memory;
mod sync;
mod time;

use alloc::format;
use alloc::string::String;
use crew::Crew;
use toe_arch::{Platform, println};

/// Why a test failed.
type Verdict = Result<(), String>;

/// What a test works with.
struct Bench {
    platform: &'static Platform,
    /// All cores but this one, waiting for something to do.
    crew: Crew,
    rounds: u32,
}

/// Fails a test unless something holds.
macro_rules! check {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(alloc::format!($($why)*));
        }
    };
}
use check;

type Test = (&'static str, fn(&Bench) -> Verdict);

const TESTS: &[Test] = &[
    ("the_machine_is_what_it_was_started_as", machine),
    ("memory_is_mapped_as_laid_out", memory::mapped_as_laid_out),
    ("what_is_mapped_later_is_mapped_as_asked", memory::mapped_later),
    ("nothing_is_mapped_twice", memory::not_twice),
    ("free_memory_is_memory", memory::free_memory),
    ("copies_are_right", memory::copies_are_right),
    ("time_does_not_go_backwards", time::forward),
    ("a_sleep_ends_at_its_deadline", time::deadline),
    ("a_deadline_that_is_past_ends_a_sleep", time::past),
    ("a_wake_before_the_sleep_ends_it", interrupts::wake_before_sleep),
    ("cores_are_themselves", interrupts::cores_are_themselves),
    ("a_core_wakes_every_other", interrupts::wakes_every_other),
    ("a_message_is_an_interrupt_of_its_core", interrupts::messages),
    ("a_core_that_runs_is_not_started_again", interrupts::not_started_again),
    ("atomics_are_atomic_across_cores", sync::atomics),
    ("rings_keep_order_across_cores", sync::rings),
    ("no_wake_is_lost", sync::no_wake_is_lost),
    ("stacks_are_deep_enough", memory::stacks),
    // The last one: behind it nobody may allocate.
    ("after_start_up_nothing_is_mapped_or_started", memory::sealed),
];

/// A number on the command line.
fn word(platform: &Platform, name: &str) -> Option<u32> {
    let words = platform.machine().command_line.split_whitespace();
    words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).next()
}

pub fn run(platform: &'static Platform) -> ! {
    let mut words = platform.machine().command_line.split_whitespace();
    if let Some(name) = words.find_map(|word| word.strip_prefix("fault=")) {
        faults::commit(name, platform);
    }
    // Before the crew has them: it starts them again.
    let mut failed = u32::from(!passed("a_core_that_has_returned_is_started_again", interrupts::started_again(platform)));
    let crew = Crew::start(platform).unwrap_or_else(|error| panic!("{error}"));
    let bench = Bench { platform, crew, rounds: word(platform, "rounds").unwrap_or(1000) };
    for (name, test) in TESTS {
        failed += u32::from(!passed(name, test(&bench)));
    }
    super::end(u32::from(failed > 0))
}

fn passed(name: &str, verdict: Verdict) -> bool {
    match &verdict {
        Ok(()) => println!("case {name} ... ok"),
        Err(why) => println!("case {name} ... FAILED: {why}"),
    }
    verdict.is_ok()
}

fn machine(bench: &Bench) -> Verdict {
    let (platform, machine) = (bench.platform, bench.platform.machine());
    let (cores, el) = (word(platform, "cores"), word(platform, "el"));
    check!(cores == Some(platform.cores() as u32), "{} cores, not {cores:?}", platform.cores());
    check!(el == Some(u32::from(platform.started_at())), "started at EL{}, not {el:?}", platform.started_at());
    check!(machine.gic.its.is_some(), "no ITS");
    check!(machine.windows().count() >= 1, "PCI windows: {:?}", machine.bridges);
    // UEFI keeps some of it to itself.
    let (mib, total) = (u64::from(word(platform, "mib").unwrap_or(0)), machine.memory.all.total() >> 20);
    check!(total <= mib && total + 6 > mib, "{total} MiB of memory, not {mib}: {:?}", machine.memory);
    check!(machine.uart.is_some() && machine.psci.is_some(), "{machine:?}");
    Ok(())
}

fn text(error: impl core::fmt::Display) -> String {
    format!("{error}")
}
