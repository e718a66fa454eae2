//! What is built for Arm Linux: its tests under QEMU's emulation of user programs, and the archive for a DPU.
//!
//! On an Arm machine the other steps have run those tests already. QEMU on a PC keeps to the PC's order of memory accesses: an ordering
//! that is missing shows in loom or in a review, and not here.

mod archive;
mod transfer;

pub use archive::archive;

use anyhow::Result;

use super::steps::{LIMIT, TESTS};
use super::{Options, Outcome};
use crate::cargo::logged;
use crate::platform::Platform;
use crate::progress::Step;

const ARM: Platform = Platform::Aarch64;

/// Packages whose tests run under emulation: all that is for a card's Linux or a host's.
const PACKAGES: [&str; 15] = [
    "toe-abi",
    "toe-wire",
    "toe-sync",
    "toe-tcp",
    "toe-hal",
    "toe-datapath",
    "toe-nic",
    "toe-engine",
    "toe-link",
    "libtoe",
    "toe-sockets",
    "toe-preload",
    "toed",
    "toectl",
    "toe-nfp-header",
];

/// Emulation is slow: fewer cases of each property, fewer seeds of each test that has some; for the simulation, whose runs are long, fewer still.
const CASES: &str = "32";
const SEEDS: &str = "32";
const SIMULATION_SEEDS: &str = "12";

/// Tests that are left out under emulation, as libtest has their names.
struct LeftOut {
    why: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "a test looks there for the names"))]
    file: &'static str,
    names: &'static [&'static str],
}

const NO_PACKET_SOCKETS: &str = "QEMU does not pass on the options of packet sockets";

const UNIT_OUT: [LeftOut; 12] = [
    LeftOut {
        why: NO_PACKET_SOCKETS,
        file: "nic-fw/boards/soft/tests/port/main.rs",
        names: &[
            "frames_pass_both_ways",
            "leases_come_back_in_any_order_and_the_ring_goes_round",
            "another_core_reads_frames_and_sends",
            "halves_keep_what_they_share",
            "a_full_ring_loses_frames_and_says_so",
            "a_port_is_waited_on_by_its_descriptor",
            "a_port_with_frames_on_loan_is_waited_on_by_edges",
        ],
    },
    LeftOut {
        why: NO_PACKET_SOCKETS,
        file: "nic-fw/boards/soft/tests/port/interface.rs",
        names: &[
            "interface::the_kernel_does_not_see_the_cards_frames",
            "interface::what_others_attached_to_the_interface_stays",
            "interface::what_others_attach_while_the_card_runs_stays",
            "interface::an_interface_that_gets_another_name_is_the_same",
            "interface::the_interface_takes_every_multicast_while_the_card_runs",
            "interface::a_killed_cards_filter_is_taken_over",
            "interface::an_interface_that_is_down_is_brought_up",
            "interface::segments_pass_when_the_mtu_has_been_lowered",
            "interface::unusable_interfaces_are_refused",
        ],
    },
    LeftOut {
        why: NO_PACKET_SOCKETS,
        file: "nic-fw/boards/soft/tests/port/super_frames.rs",
        names: &["super_frames::super_frames_both_ways_over_af_packet"],
    },
    LeftOut {
        why: NO_PACKET_SOCKETS,
        file: "nic-fw/boards/soft/tests/process.rs",
        names: &[
            "ready_then_ended_by_a_signal_leaves_nothing",
            "a_killed_card_is_followed_by_the_next",
            "whoever_started_the_card_hears_when_it_is_ready",
            "a_second_card_is_refused",
            "an_interface_that_vanishes_ends_the_card",
            "an_idle_card_sleeps",
        ],
    },
    LeftOut { why: "the cross compiler is for C alone", file: "nfp-fw/tests/header.rs", names: &["header_compiles_as_c99_and_cxx"] },
    LeftOut {
        why: "a dozen threads for thousands of polls take minutes under emulation",
        file: "nic-fw/datapath/tests/common/mod.rs",
        names: &["an_application_keeps_within_its_rate::on_threads"],
    },
    LeftOut {
        why: "/proc tells of the signals that QEMU blocks",
        file: "host-lib/link/src/sys.rs",
        names: &["sys::tests::a_thread_can_be_kept_free_of_the_programs_signals"],
    },
    LeftOut {
        why: "QEMU forks where a program asks for vfork: parent and child share no memory",
        file: "host-lib/sockets/tests/spawned.rs",
        names: &["the_parent_has_its_connection_back"],
    },
    LeftOut {
        why: "QEMU knows neither SO_MAX_PACING_RATE nor IP_BIND_ADDRESS_NO_PORT",
        file: "host-lib/sockets/tests/posix.rs",
        names: &["a_rate_and_a_late_port_go_with_a_socket_to_the_kernel"],
    },
    LeftOut {
        why: "QEMU thinks that all threads have one table of descriptors",
        file: "host-lib/sockets/tests/limits.rs",
        names: &["what_fails_at_the_limit_works_again_below_it"],
    },
    LeftOut {
        why: "QEMU does not know SO_COOKIE",
        file: "host-ctrl/toed/src/shell/machine.rs",
        names: &["shell::machine::tests::a_socket_is_known_by_more_than_a_number_that_comes_again"],
    },
    LeftOut {
        why: "QEMU takes every option of TCP for a number",
        file: "host-lib/sockets/tests/posix.rs",
        names: &["congestion_control_goes_with_a_socket_to_the_kernel"],
    },
];

const SIMULATION_OUT: [LeftOut; 1] = [LeftOut {
    why: "a gibibyte takes minutes under emulation",
    file: "tests/tests/sim.rs",
    names: &["a_gibibyte_each_way_over_a_lossy_wire"],
}];

/// Cargo's tests with these words, but for some.
fn emulated(step: &Step, name: &str, words: &[&str], seeds: &str, left_out: &[LeftOut]) -> Result<Outcome> {
    if ARM.is_here() {
        return Ok(Outcome::Skipped("this is an Arm machine: the other steps have run them".into()));
    }
    let left_out: Vec<_> = left_out.iter().flat_map(|group| group.names.iter().map(|name| (*name, group.why))).collect();
    let mut command = ARM.cargo("test");
    command.args(words).args(["--no-fail-fast", "--", "--exact"]);
    left_out.iter().for_each(|(name, _)| _ = command.args(["--skip", name]));
    // Tests that start programs of ours or compile some need to know how.
    command.env("TOE_TEST_RUNNER", ARM.emulator().join(" ")).env("CC", ARM.compiler());
    command.env("PROPTEST_CASES", CASES).env("TOE_SIM_SEEDS", seeds).env("RUST_BACKTRACE", "0");
    Ok(Outcome::RanWithout(logged(step, name, command, LIMIT)?, left_out))
}

/// Unit and property tests, and those that start the programs.
pub fn unit(step: &Step, _: &Options) -> Result<Outcome> {
    let mut words = vec!["--lib", "--bins", "--tests"];
    PACKAGES.iter().for_each(|package| words.extend(["-p", *package]));
    emulated(step, "arm-unit", &words, SEEDS, &UNIT_OUT)
}

/// Engine, data path and library over a lossy wire.
pub fn simulation(step: &Step, _: &Options) -> Result<Outcome> {
    emulated(step, "arm-simulation", &["-p", TESTS, "--lib", "--test", "sim"], SIMULATION_SEEDS, &SIMULATION_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo;
    use std::fs;

    /// A name that is nobody's any more would leave nothing out, and say that it did.
    #[test]
    fn what_is_left_out_exists() {
        for group in UNIT_OUT.iter().chain(&SIMULATION_OUT) {
            let text = fs::read_to_string(cargo::root().join(group.file)).expect(group.file);
            for name in group.names {
                let function = name.rsplit("::").next().expect("a name");
                assert!(text.contains(&format!("fn {function}()")), "{} has no {name}", group.file);
            }
        }
    }
}
