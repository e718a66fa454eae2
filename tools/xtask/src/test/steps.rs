//! The steps, cheap and telling ones first.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Options, Outcome, Part, arm, e2e};
use crate::cargo::{self, cargo, logged};
use crate::image::{Cpu, Format, Image};
use crate::progress::Step;
use crate::setup::{self, FIRMWARE_TARGET, UEFI_TARGET};

/// No step takes that long; compiling all from nothing on two slow cores comes nearest.
pub const LIMIT: Duration = Duration::from_secs(1800);

/// The crates that run on a card.
const FIRMWARE: [&str; 8] = ["toe-abi", "toe-wire", "toe-sync", "toe-tcp", "toe-hal", "toe-datapath", "toe-drivers", "toe-arch"];

/// The package of what crosses crates; its end-to-end tests are a step of their own.
pub const TESTS: &str = "toe-tests";

/// Two rows that run side by side: what computes, and what mostly waits for timers and for programs.
pub fn all() -> [Vec<Part>; 2] {
    let computes = vec![
        Part { name: "format", run: format },
        Part { name: "lint", run: lint },
        Part { name: "lint of the images", run: lint_images },
        Part { name: "conformance", run: conformance },
        Part { name: "unit and property tests", run: unit },
        Part { name: "loom", run: loom },
        Part { name: "firmware for AArch64", run: firmware },
        Part { name: "on the machine (QEMU)", run: machine },
        Part { name: "instruction counts", run: insns },
        Part { name: "rules and simulation", run: simulation },
        Part { name: "Arm Linux: unit and property tests", run: arm::unit },
        Part { name: "Arm Linux: simulation", run: arm::simulation },
        Part { name: "Arm Linux: archive", run: arm::archive },
    ];
    let waits = vec![
        Part { name: "release build", run: release },
        Part { name: "end to end as root", run: e2e::as_root },
        Part { name: "end to end as a user", run: e2e::as_user },
        Part { name: "end to end, pipelined", run: e2e::pipelined },
        Part { name: "end to end in QEMU", run: in_qemu },
    ];
    [computes, waits]
}

/// rustfmt and clippy are components that a minimal installation leaves out.
fn has_component(name: &str) -> bool {
    let mut command = cargo(&[name, "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn ran(step: &Step, name: &str, command: Command) -> Result<Outcome> {
    Ok(Outcome::Ran(logged(step, name, command, LIMIT)?))
}

fn format(step: &Step, _: &Options) -> Result<Outcome> {
    if !has_component("fmt") {
        return Ok(Outcome::Skipped("'rustup component add rustfmt' brings it".into()));
    }
    ran(step, "format", cargo(&["fmt", "--all", "--check", "--", "-l"]))
}

fn lint(step: &Step, _: &Options) -> Result<Outcome> {
    if !has_component("clippy") {
        return Ok(Outcome::Skipped("'rustup component add clippy' brings it".into()));
    }
    ran(step, "lint", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// What is there only on bare metal, which the lint for the host does not see.
fn lint_images(step: &Step, _: &Options) -> Result<Outcome> {
    if !has_component("clippy") {
        return Ok(Outcome::Skipped("'rustup component add clippy' brings it".into()));
    }
    let targets = ["--target", FIRMWARE_TARGET, "--target", UEFI_TARGET];
    let mut command = cargo(&["clippy", "-p", "toe-arch", "-p", "toe-virt", "--features", "toe-virt/tests,toe-virt/insns"]);
    command.args(targets).args(["--", "-D", "warnings"]);
    ran(step, "lint-images", command)
}

/// Each requirement of the RFCs is cited by code and test, or says why not.
fn conformance(step: &Step, _: &Options) -> Result<Outcome> {
    ran(step, "conformance", cargo(&["run", "--quiet", "--package", "xtask", "--", "conformance"]))
}

/// Of the data path, against the snapshot.
fn insns(step: &Step, _: &Options) -> Result<Outcome> {
    ran(step, "insns", cargo(&["run", "--quiet", "--package", "xtask", "--", "insns"]))
}

/// Boots of the bare-metal image, each case by name.
fn machine(step: &Step, _: &Options) -> Result<Outcome> {
    ran(step, "machine", cargo(&["run", "--quiet", "--package", "xtask", "--", "machine"]))
}

fn unit(step: &Step, _: &Options) -> Result<Outcome> {
    ran(step, "unit", cargo(&["test", "--workspace", "--exclude", TESTS, "--no-fail-fast"]))
}

fn loom(step: &Step, _: &Options) -> Result<Outcome> {
    let mut command = cargo(&["test", "--release", "-p", "toe-sync", "--test", "loom"]);
    // Other flags would make cargo build everything else anew, so these artefacts live apart.
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", cargo::target_dir().join("loom"));
    ran(step, "loom", command)
}

fn firmware(step: &Step, _: &Options) -> Result<Outcome> {
    let mut command = cargo(&["build", "--release", "--target", FIRMWARE_TARGET]);
    for package in FIRMWARE {
        command.args(["-p", package]);
    }
    ran(step, "firmware", command)
}

/// All tests of the package that need no namespaces, optimised: the simulation runs thousands of seeds.
fn simulation(step: &Step, _: &Options) -> Result<Outcome> {
    let mut command = cargo(&["test", "--release", "--no-fail-fast", "-p", TESTS, "--lib"]);
    for name in test_programs(|name| !name.starts_with("e2e_"))? {
        command.args(["--test", &name]);
    }
    ran(step, "simulation", command)
}

/// Real programs on the image: the same whoever runs it, as long as tap devices are open to all.
fn in_qemu(step: &Step, _: &Options) -> Result<Outcome> {
    setup::rust_targets()?;
    for format in [Format::Elf, Format::Uefi] {
        Image { cpu: Cpu::A72, format, tests: false }.build()?;
    }
    let words = [
        "test",
        "--release",
        "-p",
        TESTS,
        "--test",
        "virt",
        "--test",
        "virt_failure",
        "--",
        "--include-ignored",
        "--show-output",
        "--test-threads=1",
    ];
    ran(step, "in-qemu", cargo(&words))
}

fn release(step: &Step, _: &Options) -> Result<Outcome> {
    let mut command = cargo(&["build", "--release"]);
    for package in cargo::INSTALLED {
        command.args(["-p", package]);
    }
    ran(step, "release", command)
}

/// The test programs in `tests/tests` whose name is `wanted`.
pub fn test_programs(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let folder = cargo::root().join("tests/tests");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .filter(|name| wanted(name))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_steps_are_different() {
        let mut names: Vec<&str> = all().iter().flatten().map(|part| part.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn test_programs_are_found_by_name() {
        assert!(test_programs(|name| name.starts_with("e2e_")).expect("folder").len() > 1);
        assert!(test_programs(|_| false).expect("folder").is_empty());
    }
}
