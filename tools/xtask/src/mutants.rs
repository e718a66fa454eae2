//! `cargo xtask mutants`: changes TCP in one place after the other, and tells which change no test notices (docs/testing.md, "Mutants").
//!
//! ```text
//!   cargo-mutants ◄── .cargo/mutants.toml: what is changed, by which tests it is judged, what is no change
//!        └─► target/xtask/mutants.out: missed.txt, caught.txt, timeout.txt, and the output of each
//! ```

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo;
use crate::setup::Missing;

#[derive(Args, Debug)]
pub struct Options {
    /// Only those whose line in --list this regular expression matches, such as ack.rs, or 'in rto_ms'
    filters: Vec<String>,
    /// Only what was changed since this commit
    #[arg(long, value_name = "COMMIT")]
    since: Option<String>,
    /// Mutants at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// A part of them: the Kth of N, from 0
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Show them, and test none
    #[arg(long)]
    list: bool,
}

/// Exit status of cargo-mutants: 0 if all were noticed, 2 if some were missed, 3 if one ran out of time, else it failed itself.
pub fn run(options: &Options) -> Result<ExitCode> {
    let found = cargo::cargo(&["mutants", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(Missing("cargo-mutants is not installed. Type:\n    cargo install --locked cargo-mutants".to_owned()).into());
    }
    let folder = cargo::target_dir().join("xtask");
    fs::create_dir_all(&folder)?;
    let mut command = cargo::cargo(&["mutants"]);
    // Read by a person.
    command.env_remove("CARGO_TERM_COLOR").arg("--output").arg(&folder).args(["--jobs", &options.jobs.to_string()]);
    command.args(options.filters.iter().flat_map(|filter| ["--re", filter]));
    if let Some(commit) = &options.since {
        let path = folder.join("mutants.diff");
        let diff = Command::new("git").args(["diff", commit]).current_dir(cargo::root()).output().context("cannot run git")?;
        ensure!(diff.status.success(), "git diff {commit}: {}", String::from_utf8_lossy(&diff.stderr));
        fs::write(&path, diff.stdout)?;
        command.arg("--in-diff").arg(path);
    }
    command.args(options.shard.iter().flat_map(|shard| ["--shard", shard]));
    command.args(options.list.then_some("--list"));
    let status = command.status().context("cannot run cargo")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
