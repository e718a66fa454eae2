//! `cargo xtask image`: images for boards without an operating system, and what is in them.
//!
//! ```text
//!   cargo build --target aarch64-unknown-{none,uefi}, flags for the core, a target folder of its own
//!      └► target/image/toe-virt-a72.elf ─► sizes by section, static memory, stacks, which atomics
//! ```
//!
//! Flags for the core come from here and not from `.cargo/config.toml`: that one also speaks to builds for the host.

mod atomics;
mod sizes;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo::{self, cargo};
use crate::setup;

#[derive(Args, Debug)]
pub struct Options {
    /// Which board
    #[arg(value_enum)]
    board: Board,
    /// Which core: a72 has no LSE atomics (BlueField-2), a78 has (BlueField-3)
    #[arg(long, value_enum, default_value_t = Cpu::A72)]
    cpu: Cpu,
    /// A UEFI application instead of an ELF image
    #[arg(long)]
    uefi: bool,
    /// With the tests that `cargo xtask machine` runs
    #[arg(long)]
    tests: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Board {
    /// QEMU's `virt` machine
    Virt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Cpu {
    A72,
    A78,
}

impl Cpu {
    const fn name(self) -> &'static str {
        match self {
            Self::A72 => "a72",
            Self::A78 => "a78",
        }
    }

    /// For rustc's `-C target-cpu`.
    const fn target(self) -> &'static str {
        match self {
            Self::A72 => "cortex-a72",
            Self::A78 => "cortex-a78",
        }
    }

    const fn has_lse(self) -> bool {
        matches!(self, Self::A78)
    }
}

/// What an image is built as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Elf,
    Uefi,
}

impl Format {
    const fn target(self) -> &'static str {
        match self {
            Self::Elf => setup::FIRMWARE_TARGET,
            Self::Uefi => setup::UEFI_TARGET,
        }
    }

    const fn ending(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::Uefi => "efi",
        }
    }
}

/// Which image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    pub cpu: Cpu,
    pub format: Format,
    pub tests: bool,
}

impl Image {
    fn folder() -> PathBuf {
        cargo::target_dir().join("image")
    }

    /// Where it is when it has been built.
    pub fn path(self) -> PathBuf {
        let tests = if self.tests { "-tests" } else { "" };
        Self::folder().join(format!("toe-virt-{}{tests}.{}", self.cpu.name(), self.format.ending()))
    }

    /// Builds it; what its file says.
    pub fn build(self) -> Result<Vec<u8>> {
        let features: &[&str] = if self.tests { &["--features", "tests"] } else { &[] };
        let built = build(self.cpu, self.format, "toe-virt", features)?;
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        fs::write(self.path(), &bytes).with_context(|| format!("cannot write {}", self.path().display()))?;
        self.check(&bytes)?;
        Ok(bytes)
    }

    /// Instructions that its core does not have would not be reported: they fault before anybody can.
    fn check(self, bytes: &[u8]) -> Result<()> {
        let atomics = atomics::count(bytes)?;
        if atomics.lse > 0 && !self.cpu.has_lse() {
            bail!("{} LSE instructions in an image for {}, which has none", atomics.lse, self.cpu.target());
        }
        Ok(())
    }
}

/// Of the workspace's manifest.
const PROFILE: &str = "image";

/// The target without an operating system is meant for cores whose MMU may be off, so words that are not aligned are put together byte by
/// byte: a third of what a segment costs. Ours is on before the first line of Rust, and does not check alignment (toe-arch, `bare/enter.rs`).
/// The compiler warns that this name of a feature is not a stable one.
const UNALIGNED: &str = "-Ctarget-feature=-strict-align";

/// Builds a program of the package `toe-virt`; where it is.
pub fn build(cpu: Cpu, format: Format, program: &str, features: &[&str]) -> Result<PathBuf> {
    let folder = Image::folder().join(cpu.name());
    let mut command = cargo(&["build", "--profile", PROFILE, "-p", "toe-virt", "--bin", program, "--target", format.target()]);
    command.args(features).arg("--target-dir").arg(&folder);
    // Either of these would replace the flags of the target.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let name = format.target().to_uppercase().replace('-', "_");
    command.env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), format!("-Ctarget-cpu={} {UNALIGNED}", cpu.target()));
    let done = command.output().context("cannot run cargo")?;
    if !done.status.success() {
        bail!("the image could not be built:\n{}", String::from_utf8_lossy(&done.stderr));
    }
    let ending = if format == Format::Uefi { ".efi" } else { "" };
    Ok(folder.join(format.target()).join(PROFILE).join(format!("{program}{ending}")))
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::rust_targets()?;
    let Board::Virt = options.board;
    let format = if options.uefi { Format::Uefi } else { Format::Elf };
    let image = Image { cpu: options.cpu, format, tests: options.tests };
    let bytes = image.build()?;
    println!("{}", image.path().strip_prefix(cargo::root()).unwrap_or(&image.path()).display());
    print!("{}", sizes::table(&bytes)?);
    let atomics = atomics::count(&bytes)?;
    println!("atomics: {} exclusive, {} LSE instructions", atomics.exclusive, atomics.lse);
    Ok(ExitCode::SUCCESS)
}
