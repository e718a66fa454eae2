//! The Linux machines that programs are built for: this one and, by cross compilers of Debian's, others.
//!
//! ```text
//!   Platform ──► cargo --target TRIPLE, linker gcc-TRIPLE      what is not installed: an error that says what to type
//!        └─────► emulator (QEMU's user mode): runs on this machine what was built for the other
//! ```
//!
//! Linker and emulator go to cargo by its environment, for our commands alone: a setting in the repository would stand in the way of
//! those who build on a machine of that kind.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::cargo::{cargo, target_dir};
use crate::setup::{self, Missing, Need};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Platform {
    /// 64-bit Arm: BlueField DPUs, Arm servers
    Aarch64,
    /// 64-bit PCs and servers
    #[value(name = "x86_64")]
    X86_64,
}

/// Each needs, on a machine of another kind: a linker, libc to link against, and an emulator.
const AARCH64: [Need; 3] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    ("qemu-aarch64", "qemu-user"),
];
const X86_64: [Need; 3] = [
    ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
    ("/usr/x86_64-linux-gnu/include/stdio.h", "libc6-dev-amd64-cross"),
    ("qemu-x86_64", "qemu-user"),
];

impl Platform {
    /// As in the names of archives, and in `std::env::consts::ARCH`.
    pub const fn name(self) -> &'static str {
        match self {
            Platform::Aarch64 => "aarch64",
            Platform::X86_64 => "x86_64",
        }
    }

    /// Rust's name for it.
    pub const fn triple(self) -> &'static str {
        match self {
            Platform::Aarch64 => "aarch64-unknown-linux-gnu",
            Platform::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// `e_machine` of its programs (ELF).
    pub const fn elf_machine(self) -> u16 {
        match self {
            Platform::Aarch64 => object::elf::EM_AARCH64,
            Platform::X86_64 => object::elf::EM_X86_64,
        }
    }

    /// The largest memory page that its kernels use, bytes: what is loaded must be aligned to it.
    pub const fn page_max(self) -> u64 {
        match self {
            Platform::Aarch64 => 64 * 1024,
            Platform::X86_64 => 4096,
        }
    }

    /// This machine is one.
    pub fn is_here(self) -> bool {
        env::consts::ARCH == self.name()
    }

    /// Linker, libc, emulator; nothing on a machine of that kind.
    pub fn needs(self) -> &'static [Need] {
        match self {
            _ if self.is_here() => &[],
            Platform::Aarch64 => &AARCH64,
            Platform::X86_64 => &X86_64,
        }
    }

    /// Makes sure that we can build for it, and run what was built.
    pub fn provide(self) -> Result<()> {
        setup::provide(self.needs())?;
        setup::provide_rust_target(self.triple())
    }

    /// Whether we can; if not, the error says what to type.
    pub fn check(self) -> Result<()> {
        let lines = setup::to_type(self.needs(), self.triple())?;
        if lines.is_empty() {
            return Ok(());
        }
        let (name, lines) = (self.name(), lines.join("\n    "));
        Err(Missing(format!("what builds programs for {name} is not installed. Type (or let 'cargo xtask setup' do it):\n    {lines}"))
            .into())
    }

    /// The C compiler, which links as well.
    pub fn compiler(self) -> &'static str {
        self.needs().first().map_or("cc", |(program, _)| program)
    }

    /// What runs its programs on this machine; nothing on a machine of that kind.
    pub fn emulator(self) -> Vec<&'static str> {
        match self {
            _ if self.is_here() => Vec::new(),
            Platform::Aarch64 => vec!["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
            Platform::X86_64 => vec!["qemu-x86_64", "-L", "/usr/x86_64-linux-gnu"],
        }
    }

    /// Runs one of its programs.
    pub fn command(self, program: impl Into<OsString>) -> Command {
        let mut words = self.emulator().into_iter().map(OsString::from).chain([program.into()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    /// `cargo VERB --target ...`, with linker and emulator.
    pub fn cargo(self, verb: &str) -> Command {
        let mut command = cargo(&[verb, "--target", self.triple()]);
        if !self.is_here() {
            command.env(self.variable("LINKER"), self.compiler()).env(self.variable("RUNNER"), self.emulator().join(" "));
        }
        command
    }

    /// Cargo's variable for a setting of this target.
    pub fn variable(self, setting: &str) -> String {
        format!("CARGO_TARGET_{}_{setting}", self.triple().to_uppercase().replace('-', "_"))
    }

    /// Where cargo puts what it builds for it with this profile.
    pub fn built(self, profile: &str) -> PathBuf {
        target_dir().join(self.triple()).join(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_each_other() {
        for platform in Platform::value_variants() {
            assert!(platform.triple().starts_with(platform.name()));
            assert_eq!(platform.to_possible_value().expect("listed").get_name(), platform.name());
            assert_eq!(platform.is_here(), platform.emulator().is_empty());
        }
        assert_eq!(Platform::Aarch64.variable("LINKER"), "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
    }

    #[test]
    fn programs_of_this_machine_run_without_an_emulator() {
        let here = Platform::value_variants().iter().find(|p| p.is_here()).expect("a machine of one of these kinds");
        assert_eq!(here.command("true").get_program(), "true");
        assert_eq!(here.compiler(), "cc");
    }
}
