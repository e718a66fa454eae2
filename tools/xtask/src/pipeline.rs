//! toe-pipe, the benchmark of the stages: one static binary, the same here as on the machine it is carried to.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// The target that programs for this kind of machine are built for.
fn target() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

/// Builds it, with cargo's own progress display on the screen.
fn build() -> Result<PathBuf> {
    let target = target();
    let mut command = cargo::cargo(&["build", "--release", "-p", "toe-pipe", "--target", &target]);
    // With a target of its own the flag holds for the program, and not for what runs during the build.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    command.env(flags, "-C target-feature=+crt-static").env_remove("CARGO_TERM_COLOR");
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(cargo::target_dir().join(target).join("release/toe-pipe"))
}

/// Builds and runs it.
pub fn run(args: &[OsString]) -> Result<ExitCode> {
    let program = build()?;
    let status = Command::new(&program).args(args).status().with_context(|| format!("cannot run {}", program.display()))?;
    // It has said what went wrong, if something did.
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds it, makes sure that it stands alone and runs, and says where it is.
pub fn build_only() -> Result<ExitCode> {
    let program = build()?;
    ensure_static(&program)?;
    let version = Command::new(&program).arg("--version").output().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(version.status.success(), "{} --version: {}", program.display(), version.status);
    let bytes = std::fs::metadata(&program)?.len();
    print!("{}", String::from_utf8_lossy(&version.stdout));
    println!(
        "{} ({:.1} MB, statically linked) runs on any {ARCH} Linux: copy it there, and see --help",
        program.display(),
        bytes as f64 / 1e6
    );
    Ok(ExitCode::SUCCESS)
}

/// By ldd, if there is one.
fn ensure_static(program: &Path) -> Result<()> {
    let Ok(said) = Command::new("ldd").arg(program).output() else { return Ok(()) };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("statically linked") || text.contains("not a dynamic executable") {
        return Ok(());
    }
    bail!("{} needs libraries of this machine:\n{text}", program.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_libraries_is_not_static() {
        let Ok(own) = std::env::current_exe() else { return };
        if Command::new("ldd").arg("--version").output().is_err() {
            eprintln!("skipped: there is no ldd");
            return;
        }
        assert!(ensure_static(&own).unwrap_err().to_string().contains("libc"));
    }
}
