//! The archive as an operator finds it: unpacked, its programs run, its services and headers compared with them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use toe_lab::job::{self, Finished};
use toe_lab::namespaces;

use super::super::{Options, Outcome, steps::LIMIT};
use super::{ARM, transfer};
use crate::cargo::{self, logged};
use crate::dist;
use crate::progress::Step;

/// A run of a program from the archive.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Builds the archive, unpacks it, and tries what is in it.
pub fn archive(step: &Step, _: &Options) -> Result<Outcome> {
    let mut done = logged(step, "arm-archive", dist::build(ARM), LIMIT)?;
    if !done.success {
        return Ok(Outcome::Ran(done));
    }
    let folder = cargo::target_dir().join("xtask/dist");
    let made = dist::make(ARM, &folder)?;
    // Ubuntu 22.04, which BlueField's images are made of, has 2.35.
    ensure!(made.glibc <= (2, 35), "needs glibc {}.{}", made.glibc.0, made.glibc.1);
    let _ = fs::remove_dir_all(folder.join(&made.top));
    let packed = fs::read(&made.path)?;
    tar::Archive::new(GzDecoder::new(packed.as_slice())).unpack(&folder).context("unpacking it")?;
    let there = folder.join(&made.top);
    for (what, check) in CHECKS {
        step.note(what);
        check(&there).context(what)?;
        done.output.push_str(&format!("test result: ok. 1 passed; 0 failed; 0 ignored; {what}\n"));
    }
    step.note("a transfer");
    let refused = namespaces::refused();
    match &refused {
        Some(_) => done.output.push_str("test result: ok. 0 passed; 0 failed; 1 ignored; a transfer\n"),
        None => {
            transfer::echo(&there).context("a transfer through card, daemon and library")?;
            done.output.push_str("test result: ok. 1 passed; 0 failed; 0 ignored; a transfer\n");
        }
    }
    fs::remove_dir_all(&there)?;
    Ok(Outcome::Ran(done))
}

type Check = fn(&Path) -> Result<()>;

const CHECKS: [(&str, Check); 6] = [
    ("sums are right", sums),
    ("programs say what they are", programs),
    ("services use options that there are", services),
    ("the daemon reads its example of a configuration", configuration),
    ("a C program is linked with libtoe.so", library),
    ("the preload library answers for the kernel", preload),
];

fn sums(there: &Path) -> Result<()> {
    let mut command = Command::new("sha256sum");
    command.args(["--strict", "--check", "--quiet", dist::archive::SUMS]).current_dir(there);
    job::run(command, RUN_LIMIT)?.success().map(drop)
}

fn run(there: &Path, program: &str, words: &[&str]) -> Result<Finished> {
    let mut command = ARM.command(there.join("bin").join(program));
    command.args(words);
    job::run(command, RUN_LIMIT)
}

fn programs(there: &Path) -> Result<()> {
    for program in ["toectl", "toe-nic", "toed"] {
        let version = run(there, program, &["--version"])?.success()?.stdout();
        ensure!(version == format!("{program} {}\n", env!("CARGO_PKG_VERSION")), "{program} --version: {version}");
    }
    ensure!(run(there, "toe-nic", &["--help"])?.success()?.stdout().contains("--placement"));
    run(there, "toe-rpc", &["--help"])?.success().map(drop)
}

fn services(there: &Path) -> Result<()> {
    for unit in ["toe-nic", "toed"] {
        let text = fs::read_to_string(there.join(format!("systemd/{unit}.service")))?;
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart")?;
        ensure!(line.starts_with(&format!("/opt/ferrotoe/bin/{unit} ")), "{line}");
        let help = run(there, unit, &["--help"])?.success()?.stdout();
        for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
            ensure!(help.contains(&format!("{option} <")), "{unit} has no {option}");
        }
    }
    Ok(())
}

fn configuration(there: &Path) -> Result<()> {
    let (file, folder) = (there.join("etc/toed.toml"), there.join("run"));
    let words =
        ["--config", &file.to_string_lossy(), "--device", "vfio-user:/nonexistent/card.sock", "--run-dir", &folder.to_string_lossy()];
    let done = run(there, "toed", &words)?;
    // All is well but that there is no card.
    ensure!(done.status.code() == Some(2) && done.stderr().contains("/nonexistent/card.sock"), "{}: {}", done.status, done.stderr());
    Ok(())
}

const PROGRAM: &str = r#"
#include "ferrotoe_abi.h"
#include "toe.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        puts(socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerror(errno) : "a socket");
    else
        puts(toe_open("/nonexistent/toed.sock") ? "a context" : "no context");
    return sizeof(struct toe_host_desc) == TOE_DESC_LEN ? 0 : 1;
}
"#;

/// Compiles [`PROGRAM`], which finds the library where it is now.
fn library(there: &Path) -> Result<()> {
    fs::write(there.join("program.c"), PROGRAM)?;
    let mut compile = Command::new(ARM.compiler());
    compile.args("-Wall -Wextra -Werror -Iinclude program.c -Llib -ltoe -Wl,-rpath,$ORIGIN/../lib -o bin/program".split(' '));
    compile.current_dir(there);
    job::run(compile, RUN_LIMIT)?.success()?;
    let done = run(there, "program", &[])?.success()?;
    ensure!(done.stdout() == "no context\n" && done.stderr().contains("/nonexistent/toed.sock"), "{}{}", done.stdout(), done.stderr());
    Ok(())
}

/// The same program with the other library in front; where there is no daemon, a socket must not become the kernel's.
fn preload(there: &Path) -> Result<()> {
    let mut command = ARM.command(there.join("bin/program"));
    let library = there.join("lib/libtoe_preload.so");
    if ARM.is_here() {
        command.env("LD_PRELOAD", library);
    } else {
        // For the program, not for QEMU itself.
        command.env("QEMU_SET_ENV", format!("LD_PRELOAD={}", library.display()));
    }
    command.arg("socket").env("TOE_REQUIRE", "1").env("TOE_RUN_DIR", there.join("run"));
    let done = job::run(command, RUN_LIMIT)?.success()?;
    match done.stdout().trim() {
        "Network is down" => Ok(()),
        other => bail!("socket() gave: {other}; {}", done.stderr()),
    }
}
