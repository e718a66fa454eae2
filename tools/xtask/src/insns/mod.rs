//! `cargo xtask insns`: instructions of the data path, exact and the same each time, against a snapshot.
//!
//! ```text
//!   toe-insns (ELF, a72) ─► QEMU -icount shift=0 ─► lines ─► table ─┬─ the snapshot's ─► exit status 0
//!                                                                   └─ another ─► what differs, exit status 1
//! ```
//!
//! Counts are the compiler's as much as ours: with another one than the snapshot's the table is shown, and not compared.

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use toe_lab::job;

use crate::cargo;
use crate::image::{self, Cpu, Format};
use crate::setup::{self, QEMU};
use table::Table;

/// Nothing takes that long, also on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Args, Debug)]
pub struct Options {
    /// Make what is counted now the snapshot
    #[arg(long)]
    bless: bool,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages()?;
    setup::emulator()?;
    setup::rust_targets()?;
    let program = image::build(Cpu::A72, Format::Elf, "toe-insns", &["--features", "insns"])?;
    let table = Table::read(&count(&program)?)?;
    let (path, now) = (snapshot(), format!("{}{table}", head(&compiler()?)));
    print!("{now}");
    if options.bless {
        fs::write(&path, &now).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let before =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}: 'cargo xtask insns --bless' makes it", path.display()))?;
    Ok(compare(&before, &now))
}

/// Says how they differ, if they do.
fn compare(before: &str, now: &str) -> ExitCode {
    if before == now {
        println!("\nas in the snapshot");
        return ExitCode::SUCCESS;
    }
    if before.lines().next() != now.lines().next() {
        println!("\nnot compared: the snapshot is of another compiler, {}", before.lines().next().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    println!("\nnot as in the snapshot ('cargo xtask insns --bless' if that is right):\n{}", table::differences(before, now));
    ExitCode::FAILURE
}

/// The first line tells compilers apart.
fn head(compiler: &str) -> String {
    format!("{compiler}, cortex-a72\ninstructions for a unit of work: docs/benchmarks.md, \"Instructions\"\n\n")
}

fn snapshot() -> PathBuf {
    cargo::root().join("nic-fw/boards/virt/insns.txt")
}

/// As it names itself.
fn compiler() -> Result<String> {
    let done = Command::new("rustc").arg("--version").output().context("cannot run rustc")?;
    ensure!(done.status.success(), "rustc --version: {}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Runs the image; what it prints.
fn count(program: &Path) -> Result<String> {
    let mut command = Command::new(QEMU);
    command.args(["-M", "virt,gic-version=3,its=on", "-cpu", "cortex-a72", "-smp", "1", "-m", "256M"]);
    command.args(["-nographic", "-nodefaults", "-serial", "stdio", "-semihosting-config", "enable=on,target=native"]);
    // The cycle counter then counts instructions.
    command.args(["-icount", "shift=0"]).arg("-kernel").arg(program);
    let done = job::run(command, LIMIT)?;
    let output = done.stdout().replace('\r', "") + &done.stderr();
    ensure!(done.status.success(), "the image ended with {}:\n{output}", done.status);
    Ok(output)
}
