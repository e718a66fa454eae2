//! What is built for Arm Linux: its tests under QEMU's emulation of user programs, and the archive for a DPU.
//!
//! On an Arm machine the other steps have run those tests already. QEMU on a PC keeps to the PC's order of memory accesses: an ordering
//! that is missing shows in loom or in a review, and not here.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use toe_lab::job::{self, Finished};

use super::steps::{LIMIT, TESTS};
use super::{Options, Outcome};
use crate::cargo::{self, Done, logged};
use crate::dist;
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

/// Emulation is slow: fewer cases of each property, fewer seeds of each simulation.
const CASES: &str = "32";
const SEEDS: &str = "24";

/// Tests that are left out under emulation, as libtest has their names.
struct LeftOut {
    why: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "a test looks there for the names"))]
    file: &'static str,
    names: &'static [&'static str],
}

const NO_PACKET_SOCKETS: &str = "QEMU does not pass on the options of packet sockets";

const UNIT_OUT: [LeftOut; 5] = [
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
            "interface::a_killed_cards_filter_is_taken_over",
            "interface::an_interface_that_is_down_is_brought_up",
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
            "a_second_card_is_refused",
            "an_interface_that_vanishes_ends_the_card",
            "an_idle_card_sleeps",
        ],
    },
    LeftOut { why: "the cross compiler is for C alone", file: "nfp-fw/tests/header.rs", names: &["header_compiles_as_c99_and_cxx"] },
];

const SIMULATION_OUT: [LeftOut; 1] = [LeftOut {
    why: "a gibibyte takes minutes under emulation",
    file: "tests/tests/sim.rs",
    names: &["a_gibibyte_each_way_over_a_lossy_wire"],
}];

/// Cargo's tests with these words, but for some.
fn emulated(step: &Step, name: &str, words: &[&str], left_out: &[LeftOut]) -> Result<Outcome> {
    if ARM.is_here() {
        return Ok(Outcome::Skipped("this is an Arm machine: the other steps have run them".into()));
    }
    let left_out: Vec<_> = left_out.iter().flat_map(|group| group.names.iter().map(|name| (*name, group.why))).collect();
    let mut command = ARM.cargo("test");
    command.args(words).args(["--no-fail-fast", "--", "--exact"]);
    left_out.iter().for_each(|(name, _)| _ = command.args(["--skip", name]));
    // Tests that start programs of ours or compile some need to know how.
    command.env("TOE_TEST_RUNNER", ARM.emulator().join(" ")).env("CC", ARM.compiler());
    command.env("PROPTEST_CASES", CASES).env("RUST_BACKTRACE", "0");
    if words.contains(&TESTS) {
        command.env("TOE_SIM_SEEDS", SEEDS);
    }
    Ok(Outcome::RanWithout(logged(step, name, command, LIMIT)?, left_out))
}

/// Unit and property tests, and those that start the programs.
pub fn unit(step: &Step, _: &Options) -> Result<Outcome> {
    let mut words = vec!["--lib", "--bins", "--tests"];
    PACKAGES.iter().for_each(|package| words.extend(["-p", *package]));
    emulated(step, "arm-unit", &words, &UNIT_OUT)
}

/// Engine, data path and library over a lossy wire.
pub fn simulation(step: &Step, _: &Options) -> Result<Outcome> {
    emulated(step, "arm-simulation", &["-p", TESTS, "--lib", "--test", "sim"], &SIMULATION_OUT)
}

/// A run of a program from the archive.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Builds the archive, unpacks it, and tries what is in it.
pub fn archive(step: &Step, _: &Options) -> Result<Outcome> {
    let mut done = logged(step, "arm-archive", dist::build(ARM), LIMIT)?;
    if !done.success {
        return Ok(Outcome::Ran(done));
    }
    let folder = cargo::target_dir().join("xtask/dist");
    let made = dist::make(ARM, &folder)?;
    // Ubuntu 22.04, which BlueField's images are made of, has 2.35.
    ensure!(made.glibc <= (2, 35), "needs glibc {}.{}", made.glibc.0, made.glibc.1);
    let _ = fs::remove_dir_all(folder.join(&made.top));
    let packed = fs::read(&made.path)?;
    tar::Archive::new(GzDecoder::new(packed.as_slice())).unpack(&folder).context("unpacking it")?;
    let there = folder.join(&made.top);
    for (what, check) in CHECKS {
        step.note(what);
        check(&there).context(what)?;
        done.output.push_str(&format!("test result: ok. 1 passed; 0 failed; 0 ignored; {what}\n"));
    }
    fs::remove_dir_all(&there)?;
    Ok(Outcome::Ran(done))
}

type Check = fn(&Path) -> Result<()>;

const CHECKS: [(&str, Check); 6] = [
    ("sums are right", sums),
    ("programs say what they are", programs),
    ("services use options that there are", services),
    ("the daemon reads its example of a configuration", configuration),
    ("a C program is linked with libtoe.so", library),
    ("the preload library answers for the kernel", preload),
];

fn sums(there: &Path) -> Result<()> {
    let mut command = Command::new("sha256sum");
    command.args(["--strict", "--check", "--quiet", dist::archive::SUMS]).current_dir(there);
    job::run(command, RUN_LIMIT)?.success().map(drop)
}

fn run(there: &Path, program: &str, words: &[&str]) -> Result<Finished> {
    let mut command = ARM.command(there.join("bin").join(program));
    command.args(words);
    job::run(command, RUN_LIMIT)
}

fn programs(there: &Path) -> Result<()> {
    for program in ["toectl", "toe-nic", "toed"] {
        let version = run(there, program, &["--version"])?.success()?.stdout();
        ensure!(version == format!("{program} {}\n", env!("CARGO_PKG_VERSION")), "{program} --version: {version}");
    }
    ensure!(run(there, "toe-nic", &["--help"])?.success()?.stdout().contains("--placement"));
    run(there, "toe-rpc", &["--help"])?.success().map(drop)
}

fn services(there: &Path) -> Result<()> {
    for unit in ["toe-nic", "toed"] {
        let text = fs::read_to_string(there.join(format!("systemd/{unit}.service")))?;
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart")?;
        ensure!(line.starts_with(&format!("/opt/ferrotoe/bin/{unit} ")), "{line}");
        let help = run(there, unit, &["--help"])?.success()?.stdout();
        for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
            ensure!(help.contains(&format!("{option} <")), "{unit} has no {option}");
        }
    }
    Ok(())
}

fn configuration(there: &Path) -> Result<()> {
    let (file, folder) = (there.join("etc/toed.toml"), there.join("run"));
    let words =
        ["--config", &file.to_string_lossy(), "--device", "vfio-user:/nonexistent/card.sock", "--run-dir", &folder.to_string_lossy()];
    let done = run(there, "toed", &words)?;
    // All is well but that there is no card.
    ensure!(done.status.code() == Some(2) && done.stderr().contains("/nonexistent/card.sock"), "{}: {}", done.status, done.stderr());
    Ok(())
}

const PROGRAM: &str = r#"
#include "ferrotoe_abi.h"
#include "toe.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        puts(socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerror(errno) : "a socket");
    else
        puts(toe_open("/nonexistent/toed.sock") ? "a context" : "no context");
    return sizeof(struct toe_host_desc) == TOE_DESC_LEN ? 0 : 1;
}
"#;

/// Compiles [`PROGRAM`], which finds the library where it is now.
fn library(there: &Path) -> Result<()> {
    fs::write(there.join("program.c"), PROGRAM)?;
    let mut compile = Command::new(ARM.compiler());
    compile.args("-Wall -Wextra -Werror -Iinclude program.c -Llib -ltoe -Wl,-rpath,$ORIGIN/../lib -o bin/program".split(' '));
    compile.current_dir(there);
    job::run(compile, RUN_LIMIT)?.success()?;
    let done = run(there, "program", &[])?.success()?;
    ensure!(done.stdout() == "no context\n" && done.stderr().contains("/nonexistent/toed.sock"), "{}{}", done.stdout(), done.stderr());
    Ok(())
}

/// The same program with the other library in front; where there is no daemon, a socket must not become the kernel's.
fn preload(there: &Path) -> Result<()> {
    let mut command = ARM.command(there.join("bin/program"));
    let library = there.join("lib/libtoe_preload.so");
    if ARM.is_here() {
        command.env("LD_PRELOAD", library);
    } else {
        // For the program, not for QEMU itself.
        command.env("QEMU_SET_ENV", format!("LD_PRELOAD={}", library.display()));
    }
    command.arg("socket").env("TOE_REQUIRE", "1").env("TOE_RUN_DIR", there.join("run"));
    let done = job::run(command, RUN_LIMIT)?.success()?;
    match done.stdout().trim() {
        "Network is down" => Ok(()),
        other => bail!("socket() gave: {other}; {}", done.stderr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
