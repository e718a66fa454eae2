//! toe-networks: TCP on networks of all kinds, in virtual time and beside Linux.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;
use toe_lab::programs;

use crate::cargo;
use crate::setup;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    Sim,
    Linux,
    Fairness,
    All,
}

/// Builds what is needed, and runs one part or what `All` stands for. `args`: more words for toe-networks.
pub fn run(part: Part, bless: bool, args: &[OsString]) -> Result<ExitCode> {
    let status = cargo::cargo(&["build", "--release", "-p", "toe-networks"]).status().context("cannot run cargo")?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    if part == Part::Sim {
        let mut command = Command::new(cargo::release_dir().join("toe-networks"));
        command.args(["sim", "--snapshot"]).arg(cargo::root().join("tools/networks/sim.txt")).args(bless.then_some("--bless"));
        return finish(command, args);
    }
    setup::packages()?;
    cargo::build_release()?;
    for (this, name) in [(Part::Linux, "linux"), (Part::Fairness, "fairness")] {
        if part == this || part == Part::All {
            let mut command = first_in_line();
            command.arg(name).arg("--plots").arg(cargo::target_dir().join("bench"));
            if finish(command, args)? != ExitCode::SUCCESS {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn finish(mut command: Command, args: &[OsString]) -> Result<ExitCode> {
    let status = command.args(args).status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// toe-networks, and with it all that it starts, before other programs of this machine, if that is allowed: a network that is late is another one.
fn first_in_line() -> Command {
    let program = cargo::release_dir().join("toe-networks");
    let words = ["--rr", "1"];
    if let Some(chrt) = programs::find("chrt")
        && Command::new(&chrt).args(words).arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        let mut command = Command::new(chrt);
        command.args(words).arg(program);
        return command;
    }
    Command::new(program)
}
