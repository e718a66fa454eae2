//! What tests and demo need besides Rust: Debian packages and targets.
//!
//! As root we install what is missing, after saying so. Anybody else gets the line to type, and
//! exit status 2. Servers that come with packages are not left running, nor started at boot.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use toe_lab::programs;

pub use toe_qemu::{QEMU, UEFI_FIRMWARE};

/// A program that we run, and the Debian package that brings it. A name with slashes is a file.
pub type Need = (&'static str, &'static str);

/// For boards that have no operating system.
const EMULATOR: [Need; 2] = [(QEMU, "qemu-system-arm"), (UEFI_FIRMWARE, "qemu-efi-aarch64")];

/// For everything else.
const NEEDED: [Need; 15] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("redis-cli", "redis-tools"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("wget", "wget"),
    ("wrk", "wrk"),
];

/// Packages whose servers Debian starts by itself.
const SERVICES: [(&str, &str); 3] = [("nginx-light", "nginx"), ("redis-server", "redis-server"), ("iperf3", "iperf3")];

/// The target of the firmware crates.
pub const FIRMWARE_TARGET: &str = "aarch64-unknown-none";
/// The target of images that UEFI starts.
pub const UEFI_TARGET: &str = "aarch64-unknown-uefi";

const RUST_TARGETS: [&str; 2] = [FIRMWARE_TARGET, UEFI_TARGET];

/// Asked by invoke-rc.d and deb-systemd-invoke whether a service may be started; 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Something that the user has to change first: exit status 2.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.downcast_ref::<Missing>().is_some() { 2 } else { 1 })
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that the programs for tests and demo are there.
pub fn packages() -> Result<()> {
    provide(&NEEDED)
}

/// Makes sure that QEMU and its UEFI are there.
pub fn emulator() -> Result<()> {
    provide(&EMULATOR)
}

/// Makes sure that these are there.
pub fn provide(needs: &[Need]) -> Result<()> {
    let missing = missing(needs, is_there);
    if missing.is_empty() {
        return Ok(());
    }
    let line = install_line(&missing);
    if programs::find("apt-get").is_none() {
        return Err(Missing(format!(
            "not installed, and there is no apt-get here: {}; install what brings {}",
            missing.join(", "),
            commands(needs, &missing)
        ))
        .into());
    }
    if !is_root() {
        return Err(Missing(format!("Debian packages are missing. As root, type:\n    {line}")).into());
    }
    println!("Debian packages are missing; installing them with\n    {line}");
    install(&missing)?;
    let still = self::missing(needs, is_there);
    if still.is_empty() { Ok(()) } else { Err(Missing(format!("still missing after installation: {}", still.join(", "))).into()) }
}

/// What to type, one line each, before these needs and this Rust target are there; nothing if they are.
pub fn to_type(needs: &[Need], target: &str) -> Result<Vec<String>> {
    let packages = missing(needs, is_there);
    let apt = (!packages.is_empty()).then(|| install_line(&packages));
    Ok(apt.into_iter().chain((!has_rust_target(target)?).then(|| add_line(target))).collect())
}

fn is_there(name: &str) -> bool {
    if name.contains('/') { Path::new(name).exists() } else { programs::find(name).is_some() }
}

fn install_line(packages: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Packages whose programs are not there, each once.
fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn commands(needs: &[Need], packages: &[&str]) -> String {
    let names: Vec<&str> = needs.iter().filter(|(_, package)| packages.contains(package)).map(|(program, _)| *program).collect();
    names.join(", ")
}

fn install(packages: &[&str]) -> Result<()> {
    let _quiet = NoServices::begin()?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    if apt(&words).is_err() {
        // A fresh image has no package lists, an old one has stale ones.
        apt(&["update"])?;
        apt(&words).map_err(|e| Missing(format!("{e:#}; install them by hand: {}", packages.join(" "))))?;
    }
    for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
        // Without systemd there is nothing to disable.
        if Path::new("/run/systemd/system").exists() {
            let _ = Command::new("systemctl").args(["disable", "--quiet", service]).status();
        }
    }
    Ok(())
}

fn apt(words: &[&str]) -> Result<()> {
    let status = Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive").status().context("cannot run apt-get")?;
    if !status.success() {
        bail!("'apt-get {}' failed ({status})", words.join(" "));
    }
    Ok(())
}

/// While it lives, Debian starts no service that it installs.
struct NoServices {
    /// Ours to remove; None if the machine has a policy of its own.
    file: Option<PathBuf>,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(NoServices { file: None });
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        let guard = NoServices { file: Some(path.to_owned()) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

/// Makes sure that the firmware crates and the images can be built.
pub fn rust_targets() -> Result<()> {
    RUST_TARGETS.into_iter().try_for_each(provide_rust_target)
}

/// Makes sure that Rust can build for this target.
pub fn provide_rust_target(target: &str) -> Result<()> {
    if has_rust_target(target)? {
        return Ok(());
    }
    let line = add_line(target);
    println!("Rust target {target} is missing; adding it with\n    {line}");
    let added = Command::new("rustup").args(["target", "add", target]).status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Missing(format!("cannot add the Rust target. Type:\n    {line}")).into())
}

fn add_line(target: &str) -> String {
    format!("rustup target add {target}")
}

fn has_rust_target(target: &str) -> Result<bool> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    Ok(sysroot.join("lib/rustlib").join(target).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        let missing = |is_there: &dyn Fn(&str) -> bool| missing(&NEEDED, is_there);
        assert_eq!(missing(&|_| true), Vec::<&str>::new());
        assert_eq!(missing(&|program| !program.starts_with("redis")), ["redis-server", "redis-tools"]);
        let all = missing(&|_| false);
        assert!(all.contains(&"nginx-light") && all.iter().filter(|p| **p == "iproute2").count() == 1, "{all:?}");
        assert_eq!(super::missing(&EMULATOR, |program| program == QEMU), ["qemu-efi-aarch64"]);
        assert_eq!(commands(&NEEDED, &["iproute2"]), "ip, tc");
    }

    #[test]
    fn what_is_missing_is_what_there_is_to_type() {
        let needs = [("sh", "dash"), ("/nonexistent/file.h", "libfable-dev"), ("no-such-program-here", "fable")];
        let lines = to_type(&needs, "fable-unknown-none").expect("rustc");
        assert_eq!(lines, ["apt-get install -y --no-install-recommends libfable-dev fable", "rustup target add fable-unknown-none"]);
        assert_eq!(to_type(&needs[..1], ".").expect("rustc"), Vec::<String>::new());
    }

    #[test]
    fn what_the_user_must_do_is_exit_status_2() {
        let error = anyhow::Error::from(Missing("x".into()));
        assert_eq!(format!("{:?}", exit_code(&error)), format!("{:?}", ExitCode::from(2)));
        assert_eq!(format!("{:?}", exit_code(&anyhow::anyhow!("x"))), format!("{:?}", ExitCode::from(1)));
    }
}
