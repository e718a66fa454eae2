//! One QEMU, from its start to its exit code.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use toe_lab::job;

use super::boots::Boot;
use super::lies;
use crate::image::{Cpu, Format};
use crate::setup::{QEMU, UEFI_FIRMWARE};

/// Nothing takes that long, also on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(300);

/// What a boot left.
pub struct Ended {
    pub code: i32,
    /// The console.
    pub output: String,
    pub took: Duration,
    /// Tests that have run, and what was wrong with those that failed.
    pub cases: Vec<(String, Option<String>)>,
}

pub fn run(boot: &Boot) -> Result<Ended> {
    let mut command = command(boot);
    if let Some(lie) = boot.lie {
        command.arg("-dtb").arg(lies::tell(lie, self::command(boot))?);
    }
    let done = job::run(command, LIMIT)?;
    let output = done.stdout().replace('\r', "") + &done.stderr();
    let code = done.status.code().with_context(|| format!("QEMU was killed:\n{output}"))?;
    let cases = output.lines().filter_map(case).collect();
    Ok(Ended { code, output, cases, took: done.took })
}

fn command(boot: &Boot) -> Command {
    let mut command = Command::new(QEMU);
    let gic = if boot.gic == 3 { "gic-version=3,its=on" } else { "gic-version=2" };
    let el2 = if boot.el == 2 { ",virtualization=on" } else { "" };
    command.args(["-M", &format!("virt,{gic}{el2}")]);
    command.args(["-cpu", if boot.image.cpu == Cpu::A72 { "cortex-a72" } else { "neoverse-n1" }]);
    command.args(["-smp", &boot.cores.to_string(), "-m", &format!("{}M", boot.mib), "-nographic", "-nodefaults", "-serial", "stdio"]);
    command.args(["-semihosting-config", "enable=on,target=native"]);
    // A device, so that UEFI has addresses to give.
    command.args(["-device", "virtio-rng-pci"]);
    if boot.image.format == Format::Uefi {
        command.args(["-bios", UEFI_FIRMWARE]);
    }
    command.arg("-kernel").arg(boot.image.path()).args(["-append", &boot.words]);
    command
}

/// `case NAME ... ok` or `case NAME ... FAILED: WHY`, behind whatever UEFI left on the line.
fn case(line: &str) -> Option<(String, Option<String>)> {
    let (name, verdict) = line.split_once("case ")?.1.split_once(" ... ")?;
    let problem = (verdict != "ok").then(|| verdict.to_owned());
    Some((name.to_owned(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found() {
        assert_eq!(case("case a_b ... ok"), Some(("a_b".into(), None)));
        assert_eq!(case("\u{1b}[2Jcase a_b ... FAILED: why ... not"), Some(("a_b".into(), Some("FAILED: why ... not".into()))));
        assert_eq!(case("core 0: 1 of 2 bytes"), None);
    }
}
