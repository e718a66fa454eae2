//! The parts of a card that is a process of this machine.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use super::{Part, device, sibling};
use crate::cli;
use crate::errors::environment;
use crate::run_dir::RunDir;

pub fn parts(dir: &RunDir, options: &cli::Up) -> Result<Vec<Part>> {
    if let Some(option) = [("--uefi", options.uefi), ("--image", options.image.is_some()), ("--window", options.window.is_some())]
        .into_iter()
        .find_map(|(name, is_given)| is_given.then_some(name))
    {
        return Err(environment(format!("{option} is for --board virt")));
    }
    let socket = dir.file("card.sock");
    let words = words(options, &socket);
    let toed = Part::toed(dir, options, device("vfio-user", &socket), Vec::new())?;
    let card = Part { name: "toe-nic", program: sibling("toe-nic")?, words, is_ready: Box::new(move || socket.exists()) };
    Ok(vec![card, toed])
}

fn words(options: &cli::Up, socket: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--socket".into(), socket.into(), "--port".into(), options.port.clone().into()];
    let optional = [("--cores", &options.cores), ("--placement", &options.placement), ("--impair", &options.impair)];
    for (name, value) in optional {
        if let Some(value) = value {
            words.extend([name.into(), value.into()]);
        }
    }
    words.extend(options.nic_arg.iter().cloned());
    words
}
