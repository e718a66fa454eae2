//! The end-to-end tests: as root, as an ordinary user, and on a card whose stages are pipelined over four cores.
//!
//! A user may be unable to read the repository (under /root, say), so what runs is a copy in a
//! folder of its own that everybody can read: our programs and the test programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use toe_lab::{job, namespaces, programs};

use super::{Options, Outcome, steps};
use crate::cargo::{self, Done, cargo, logged};
use crate::progress::Step;
use crate::setup::is_root;

const LIMIT: Duration = Duration::from_secs(600);
const LIMIT_FULL: Duration = Duration::from_secs(1800);

/// Tests at once: most of their time they wait.
const AT_ONCE: &str = "2";

/// `nobody`: an ordinary user that every machine has.
const USER: u32 = 65534;

pub fn as_root(step: &Step, options: &Options) -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped("this is not root; run it with sudo to include it".into()));
    }
    let stage = Stage::make(step)?;
    run_all(step, &stage, "e2e-root", options, || stage.command())
}

/// On four cores, two of each stage that can be there twice, with random delays before the steps of every stage.
pub fn pipelined(step: &Step, options: &Options) -> Result<Outcome> {
    if !is_root()
        && let Some(why) = namespaces::refused()
    {
        return Ok(Outcome::Skipped(format!("the kernel refuses user namespaces to ordinary users: {why}")));
    }
    let stage = Stage::make(step)?;
    let words = format!("--placement {} --nic-arg=--disturb=seed=1", stage.sources().join("placements/four.toml").display());
    run_all(step, &stage, "e2e-pipelined", options, || {
        let mut command = stage.command();
        command.env(toe_lab::UP_ENV, &words);
        command
    })
}

pub fn as_user(step: &Step, options: &Options) -> Result<Outcome> {
    let refused = if is_root() { refused_to_user() } else { namespaces::refused() };
    if let Some(why) = refused {
        return Ok(Outcome::Skipped(format!("the kernel refuses user namespaces to ordinary users: {why}")));
    }
    let stage = Stage::make(step)?;
    run_all(step, &stage, "e2e-user", options, || if is_root() { stage.command_as(USER) } else { stage.command() })
}

/// Whether USER may make the namespaces that a lab is made of.
fn refused_to_user() -> Option<String> {
    let mut command = as_uid(USER);
    command.args(["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]);
    let done = job::run(command, Duration::from_secs(10)).and_then(job::Finished::success);
    done.err().map(|error| format!("{error:#}").trim().to_owned())
}

/// `setpriv` with what makes an ordinary user of root; the program's words follow.
fn as_uid(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]).args(["--clear-groups", "--no-new-privs"]);
    command
}

fn run_all(step: &Step, stage: &Stage, log: &str, options: &Options, command: impl Fn() -> Command) -> Result<Outcome> {
    let mut total = Done { output: String::new(), success: true, problem: None, log: PathBuf::new() };
    let limit = if options.full { LIMIT_FULL } else { LIMIT };
    for program in &stage.programs {
        let name = program.file_name().and_then(|n| n.to_str()).context("a test program without a name")?;
        let mut command = command();
        command.arg(program).args(["--include-ignored", "--show-output", "--test-threads", AT_ONCE]);
        command.env(programs::BIN_DIR_ENV, &stage.dir).env(programs::SOURCES_ENV, stage.sources()).current_dir(&stage.dir);
        // Messages name what was done and seen; stacks would hide them.
        command.env("RUST_BACKTRACE", "0");
        if options.full {
            command.env("TOE_TEST_FULL", "1");
        }
        let done = logged(step, &format!("{log}-{name}"), command, limit)?;
        total.output.push_str(&done.output);
        if !done.success && total.success {
            (total.success, total.problem, total.log) = (false, done.problem.map(|p| format!("{name}: {p}")), done.log);
        }
    }
    Ok(Outcome::Ran(total))
}

/// A folder that everybody can read, gone when dropped.
struct Stage {
    dir: PathBuf,
    programs: Vec<PathBuf>,
}

impl Stage {
    fn make(step: &Step) -> Result<Stage> {
        let built = build(step)?;
        let dir = std::env::temp_dir().join(format!("toe-stage-{}", std::process::id()));
        let mut stage = Stage { dir, programs: Vec::new() };
        let _ = fs::remove_dir_all(&stage.dir);
        fs::create_dir(&stage.dir).with_context(|| format!("cannot make {}", stage.dir.display()))?;
        fs::set_permissions(&stage.dir, fs::Permissions::from_mode(0o755))?;
        for name in programs::BUILT {
            copy(&cargo::release_dir().join(name), &stage.dir.join(name))?;
        }
        for (name, from) in built {
            let to = stage.dir.join(name);
            copy(&from, &to)?;
            stage.programs.push(to);
        }
        copy_tree(&cargo::root().join("tests/programs"), &stage.sources())?;
        let home = stage.home();
        fs::create_dir(&home)?;
        if is_root() {
            chown(&home, Some(USER), Some(USER))?;
        }
        Ok(stage)
    }

    /// Programs in other languages that tests compile or run.
    fn sources(&self) -> PathBuf {
        self.dir.join("programs")
    }

    fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    fn command(&self) -> Command {
        // env adds nothing; it makes both kinds of command take the program as an argument.
        Command::new("env")
    }

    fn command_as(&self, uid: u32) -> Command {
        let mut command = as_uid(uid);
        command.env("HOME", self.home()).env("TMPDIR", self.home()).env_remove("XDG_RUNTIME_DIR").env_remove("LD_LIBRARY_PATH");
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Copies a folder; one that is not there is empty.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Builds the test programs and returns their names and files.
fn build(step: &Step) -> Result<Vec<(String, PathBuf)>> {
    let names = steps::test_programs(|name| name.starts_with("e2e_"))?;
    let mut command = cargo(&["test", "--release", "-p", steps::TESTS, "--no-run", "--message-format=json-render-diagnostics"]);
    for name in &names {
        command.args(["--test", name]);
    }
    let done = logged(step, "e2e-build", command, steps::LIMIT)?;
    if !done.success {
        bail!("the test programs do not compile:\n{}", job::tail(&super::counts::relevant(&done.output), 60));
    }
    let built: Vec<(String, PathBuf)> = done.output.lines().filter_map(artefact).collect();
    ensure!(built.len() == names.len(), "cargo built {} test programs of {}", built.len(), names.len());
    Ok(built)
}

/// A line of cargo's JSON that tells of a program, as (target, file).
fn artefact(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let executable = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), executable.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"e2e_web"},"executable":"/t/e2e_web-1"}"#;
        assert_eq!(artefact(line), Some(("e2e_web".into(), "/t/e2e_web-1".into())));
        assert_eq!(artefact(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#), None);
        assert_eq!(artefact("   Compiling x"), None);
    }
}
