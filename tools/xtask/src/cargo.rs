//! Running cargo and other commands as steps: their output goes to a log, and to the screen only
//! when they fail.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use toe_lab::job;

use crate::progress::Step;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

pub fn target_dir() -> PathBuf {
    let asked = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    asked.map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where optimised programs are.
pub fn release_dir() -> PathBuf {
    target_dir().join("release")
}

/// Where proptest has its seed from; without it, each run has its own.
pub const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

/// The same for each run, unless the environment has another.
pub fn proptest_seed() -> String {
    env::var(PROPTEST_SEED).unwrap_or_else(|_| "1".into())
}

/// The cargo that runs us, in the repository.
pub fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root()).env("CARGO_TERM_COLOR", "never").env(PROPTEST_SEED, proptest_seed());
    command
}

/// What a command printed, and whether its exit status was 0.
#[derive(Debug)]
pub struct Done {
    pub output: String,
    pub success: bool,
    /// Why it ended early, if it did.
    pub problem: Option<String>,
    pub log: PathBuf,
}

/// Runs a command with its output in `target/xtask/NAME.log`, the present line shown by `step`.
pub fn logged(step: &Step, name: &str, mut command: Command, limit: Duration) -> Result<Done> {
    let folder = target_dir().join("xtask");
    fs::create_dir_all(&folder)?;
    let log = folder.join(format!("{name}.log"));
    let mut file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let (sender, lines) = mpsc::channel();
    for pipe in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let deadline = Instant::now() + limit;
    let (mut output, mut problem) = (String::new(), None);
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(file, "{line}")?;
                step.note(&line);
                output.push_str(&line);
                output.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                problem = Some(format!("not done after {} s", limit.as_secs()));
                job::kill_tree(&mut child);
                break;
            }
        }
    }
    let success = child.wait()?.success() && problem.is_none();
    Ok(Done { output, success, problem, log })
}

fn boxed(pipe: impl std::io::Read + Send + 'static) -> Box<dyn std::io::Read + Send> {
    Box::new(pipe)
}

/// Everything that is installed.
pub const INSTALLED: [&str; 8] = ["toe-nic", "toe-window", "toed", "toectl", "toe-bench", "toe-netem", "libtoe", "toe-preload"];

/// Builds [`INSTALLED`], with cargo's own progress display on the screen.
pub fn build_release() -> Result<()> {
    println!("building what is installed: cargo build --release");
    let mut command = cargo(&["build", "--release"]);
    // Read by a person.
    command.env_remove("CARGO_TERM_COLOR");
    for package in INSTALLED {
        command.args(["-p", package]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

/// Runs scripted packets, of any folder.
pub fn run_scripts(files: &[PathBuf]) -> Result<ExitCode> {
    let absolute: Vec<PathBuf> = files.iter().map(fs::canonicalize).collect::<Result<_, _>>().context("cannot find a script")?;
    let list = env::join_paths(absolute)?;
    let mut command = cargo(&["test", "--quiet", "-p", "toe-tests", "--test", "scripts"]);
    let status = command.env("TOE_SCRIPTS", list).status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The C header of `toe-abi`, which firmware in other languages includes.
pub fn write_header() -> Result<()> {
    let status = cargo(&["run", "--quiet", "-p", "toe-nfp-header", "--", "--write"]).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the header could not be written ({status})");
    }
    Ok(())
}
