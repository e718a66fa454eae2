//! xtask: the one entry point for setting up, building, testing and showing FerroTOE.
//! Continuous integration calls exactly what a developer calls.
//!
//! ```text
//!   setup ◄── test ──► cargo (format, lint, unit, loom, AArch64), then tests/e2e_* as root and as a user
//!     ▲                 └► machine ──► image (AArch64, bare metal), QEMU
//!     └────── demo, bench ──► lab: namespaces, card, servers, measurements
//! ```
//!
//! May depend on `toe-lab` and `toe-qemu` only, so that it builds whatever state the rest is in.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod conformance;
mod demo;
mod dist;
mod fuzz;
mod image;
mod insns;
mod machine;
mod mutants;
mod networks;
mod pipeline;
mod platform;
mod progress;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use platform::Platform;

/// Sets up, builds, tests and shows FerroTOE
#[derive(Parser, Debug)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Install the Debian packages and the Rust targets that tests and demo need
    Setup,
    /// Build everything that is installed, optimised: target/release
    Build,
    /// Make the archive to copy to the machine that is to run it, such as a BlueField DPU
    Dist(dist::Options),
    /// Run all tests; the last line is the count
    Test(test::Options),
    /// Unmodified programs over our card, against the Linux kernel
    Demo(demo::Options),
    /// RPC and bulk transfer, our card and the Linux kernel side by side; or the stages of the card alone
    Bench(bench::Options),
    /// Build an image for a board without an operating system, and say how large it is
    Image(image::Options),
    /// Boot the images in QEMU and run their tests
    Machine(machine::Options),
    /// Count the instructions of the data path in QEMU, and compare them with those of the last time
    Insns(insns::Options),
    /// Fuzz what strangers can write: parsers, engine, data path
    Fuzz(fuzz::Options),
    /// Change TCP in one place after the other, and show which change no test notices
    Mutants(mutants::Options),
    /// Check that each requirement of the RFCs is cited by code and test, or has a reason, and show which
    Conformance(conformance::Options),
    /// Run scripted packets from files (docs/scripts.md); those of tests/scripts are part of `test`
    Script { files: Vec<std::path::PathBuf> },
    /// Write the C header of the contract with the card anew (nfp-fw)
    Header,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            setup::exit_code(&error)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => {
            setup::packages()?;
            setup::emulator()?;
            setup::rust_targets()?;
            Platform::Aarch64.provide()?;
            println!("all there");
            Ok(ExitCode::SUCCESS)
        }
        Command::Build => cargo::build_release().map(|()| ExitCode::SUCCESS),
        Command::Dist(options) => dist::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Machine(options) => machine::run(&options),
        Command::Insns(options) => insns::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Script { files } => cargo::run_scripts(&files),
        Command::Header => cargo::write_header().map(|()| ExitCode::SUCCESS),
    }
}
