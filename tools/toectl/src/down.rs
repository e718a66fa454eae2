//! `toectl down`: leaves nothing, whatever state the instance is in.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::errors::environment;
use crate::interface;
use crate::process::Identity;
use crate::run_dir::RunDir;

/// In the order in which they are stopped: toed still tells applications and peers.
const PROCESSES: [&str; 4] = ["toed", "toe-nic", "qemu", "toe-window"];

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one that has ended may still seem to listen.
const LETTING_GO: Duration = Duration::from_secs(2);

pub fn down(dir: &RunDir) -> Result<()> {
    if !dir.exists() {
        println!("nothing is running in {}", dir.path().display());
        return Ok(());
    }
    let _lock = dir.lock()?;
    // A folder without our note is one that we did not make.
    let and_folder = dir.read_undo().is_some_and(|undo| undo.made_folder);
    clean(dir, and_folder)
}

/// A process of this instance that is alive.
pub fn running(dir: &RunDir) -> Option<(&'static str, i32)> {
    PROCESSES.iter().find_map(|name| {
        let identity = Identity::read(&dir.file(&format!("{name}.pid")))?;
        identity.is_alive().then_some((*name, identity.pid))
    })
}

/// Who listens here without having been started by us. A process that was killed may take a moment to let go of its sockets.
fn stranger(dir: &RunDir) -> Option<&'static str> {
    let deadline = Instant::now() + LETTING_GO;
    loop {
        let who = dir.listener()?;
        if Instant::now() >= deadline {
            return Some(who);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Stops what runs, gives the interface back, removes the files, and the folder if asked.
pub fn clean(dir: &RunDir, and_folder: bool) -> Result<()> {
    let mut left = Vec::new();
    for name in PROCESSES {
        if let Some(identity) = Identity::read(&dir.file(&format!("{name}.pid")))
            && !identity.stop(PATIENCE)
        {
            left.push(format!("{name} (pid {}) does not end", identity.pid));
        }
    }
    if let Some(who) = stranger(dir) {
        left.push(format!(
            "{who} runs in {} and was not started by toectl: stop it (a service by 'systemctl stop toe-nic'), or name another folder with TOE_RUN_DIR",
            dir.path().display()
        ));
        return Err(environment(format!("left as it is: {}", left.join("; "))));
    }
    if let Some(undo) = dir.read_undo() {
        if interface::netns() != undo.netns {
            left.push(format!("interface {} is in another network namespace; run 'toectl down' there", undo.interface));
        } else if undo.made_tap && interface::exists(&undo.interface) {
            left.extend(interface::remove_tap(&undo.interface).err());
        } else if interface::has_clsact(&undo.interface) {
            left.extend(interface::remove(&undo.interface, undo.had_clsact).err());
        }
    }
    if left.is_empty() {
        left = dir.clear(and_folder);
    }
    if !left.is_empty() {
        bail!("left behind: {}", left.join("; "));
    }
    Ok(())
}
