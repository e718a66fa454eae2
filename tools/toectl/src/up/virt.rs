//! The parts of a card inside QEMU.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use toe_qemu::{Machine, QEMU, UEFI_FIRMWARE, Wire};

use super::{Part, QEMU_PART, device, sibling};
use crate::cli;
use crate::errors::environment;
use crate::interface;
use crate::run_dir::RunDir;

/// Interrupts of each end of the window, and so the most contexts, toed's included.
const VECTORS: u16 = 64;
const CORES: u32 = 4;
/// Most cores that make sense to an image.
const CORES_MAX: u32 = 16;
const WINDOW: &str = "64M";
/// What the image prints on its console when toed may come.
const READY: &str = "ready: ";

pub fn parts(dir: &RunDir, options: &cli::Up) -> Result<Vec<Part>> {
    let described = describe(dir, options)?;
    let window = described.window.clone();
    let size = options.window.as_deref().unwrap_or(WINDOW);
    let words: Vec<OsString> =
        vec!["--socket".into(), window.clone().into(), "--size".into(), size.into(), "--vectors".into(), VECTORS.to_string().into()];
    // The words of its log are in the ELF file; a UEFI application logs on its console alone.
    let image = if described.uefi { Vec::new() } else { vec!["--image".into(), described.image.clone().into()] };
    let toed = Part::toed(dir, options, device("ivshmem", &window), image)?;
    Ok(vec![
        Part { name: "toe-window", program: sibling("toe-window")?, words, is_ready: Box::new(move || window.exists()) },
        machine(dir, qemu()?, described.words()),
        toed,
    ])
}

/// QEMU, ready when the image says so on its console.
pub fn machine(dir: &RunDir, program: PathBuf, words: Vec<OsString>) -> Part {
    let console = dir.file(&format!("{QEMU_PART}.log"));
    let is_ready = move || fs::read(&console).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(READY));
    Part { name: QEMU_PART, program, words, is_ready: Box::new(is_ready) }
}

fn describe(dir: &RunDir, options: &cli::Up) -> Result<Machine> {
    if let Some(option) = [("--placement", &options.placement), ("--impair", &options.impair)]
        .into_iter()
        .find_map(|(name, value)| value.is_some().then_some(name))
    {
        return Err(environment(format!("{option} is not for --board virt")));
    }
    let Some(("tap", name)) = options.port.split_once(':').filter(|(_, name)| !name.contains(',')) else {
        return Err(environment(format!("--port {}: a card in QEMU has a TAP interface and no options, such as tap:tap0", options.port)));
    };
    let pairs = if interface::exists(name) && !interface::is_multi_queue(name) { 1 } else { 2 };
    let cores = match options.cores.as_deref().map_or(Ok(CORES), str::parse) {
        Ok(cores @ 1..=CORES_MAX) => cores,
        _ => {
            let given = options.cores.as_deref().unwrap_or_default();
            return Err(environment(format!("--cores {given}: with --board virt a number of cores from 1 to {CORES_MAX}")));
        }
    };
    if options.uefi && !Path::new(UEFI_FIRMWARE).exists() {
        return Err(environment(format!("{UEFI_FIRMWARE} is not there (package qemu-efi-aarch64)")));
    }
    let append: Vec<String> = options.nic_arg.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Ok(Machine {
        image: image(options)?,
        uefi: options.uefi,
        cores,
        wire: Wire::Tap { name: name.to_owned(), pairs },
        window: dir.file("window.sock"),
        vectors: VECTORS,
        append: append.join(" "),
        monitor: None,
    })
}

/// The image, if it is one of the kind that was asked for.
fn image(options: &cli::Up) -> Result<PathBuf> {
    let (magic, kind, build): (&[u8], _, _) = match options.uefi {
        true => (b"MZ", "a UEFI application", "cargo xtask image virt --uefi"),
        false => (b"\x7fELF", "an ELF file", "cargo xtask image virt"),
    };
    let Some(path) = &options.image else {
        return Err(environment(format!("--board virt needs --image PATH; '{build}' builds one")));
    };
    let bad = |what: String| environment(format!("--image {}: {what}; '{build}' builds one", path.display()));
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut begin));
    read.map_err(|e| bad(format!("cannot be read: {e}")))?;
    if begin != magic {
        return Err(bad(format!("is not {kind}")));
    }
    // Daemons work in the root folder.
    std::path::absolute(path).map_err(|e| bad(e.to_string()))
}

fn qemu() -> Result<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(QEMU)).find(|path| path.is_file());
    found.ok_or_else(|| environment(format!("{QEMU} is not installed (package qemu-system-arm)")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn refused(words: &[&str]) -> String {
        let line = ["toectl", "up", "--board", "virt", "--ip", "10.0.0.2/24"].iter().chain(words);
        let Command::Up(options) = Cli::try_parse_from(line).expect("a command line").command else { panic!("up") };
        let dir = RunDir::chosen(Some(Path::new("/nonexistent"))).expect("a path");
        describe(&dir, &options).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_wrong_is_named_and_what_to_do() {
        let me = env::current_exe().expect("a path");
        let me = me.to_str().expect("text");
        for (words, wanted) in [
            (&["--port", "tap:no-such-if"][..], "needs --image PATH; 'cargo xtask image virt' builds one"),
            (&["--port", "tap:no-such-if", "--image", "/nonexistent"], "--image /nonexistent: cannot be read"),
            (&["--port", "tap:no-such-if", "--image", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], "is not an ELF file"),
            (&["--port", "af_packet:eth1", "--image", me], "such as tap:tap0"),
            (&["--port", "tap:t,script=/bin/sh", "--image", me], "and no options"),
            (&["--port", "tap:t", "--image", me, "--cores", "1,2"], "a number of cores"),
            (&["--port", "tap:t", "--image", me, "--impair", "loss=0.1"], "--impair is not for --board virt"),
        ] {
            let said = refused(words);
            assert!(said.contains(wanted), "{said}");
        }
    }
}
