//! The folder of one instance: sockets, pid files, logs, and what `down` has to know.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::errors::environment;

/// Everything that an instance puts there: what `down` removes.
const FILES: [&str; 16] = [
    "card.sock",
    "window.sock",
    "toed.sock",
    "admin.sock",
    "toe-nic.pid",
    "toe-window.pid",
    "qemu.pid",
    "toed.pid",
    "toe-nic.log",
    "toe-window.log",
    "qemu.log",
    "toed.log",
    "toed.failure",
    "toed.lock",
    "toe-nic.lock",
    "up.json",
];

/// Who listens on which of them.
const LISTENERS: [(&str, &str); 3] = [("admin.sock", "toed"), ("card.sock", "toe-nic"), ("window.sock", "toe-window")];

/// What `up` found and did, for `down` to undo.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The network namespace of the card (inode number); an interface's name means nothing elsewhere.
    pub netns: u64,
    pub interface: String,
    /// Whether the interface had a clsact qdisc before us: then it is not ours to remove.
    pub had_clsact: bool,
    /// Whether `up` made the interface.
    #[serde(default)]
    pub made_tap: bool,
    /// QEMU and its arguments, for `restart`; empty: the card is not in QEMU.
    #[serde(default)]
    pub machine: Vec<OsString>,
    /// Whether `up` made the folder.
    pub made_folder: bool,
}

#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// Of the lock. It is there only while the lock is held, or was when its holder was killed.
const LOCK: &str = "toectl.lock";

/// Held while an instance is started or stopped. The kernel gives it back when the process ends.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    file: File,
}

impl Locked {
    /// Whether its file is the one that others find.
    fn holds(&self) -> bool {
        let inode = |found: io::Result<Metadata>| found.map(|found| found.ino()).ok();
        inode(self.file.metadata()) == inode(self.path.symlink_metadata())
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Not if the folder has been cleared, and another toectl has made its own since.
        if self.holds() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl RunDir {
    /// The one asked for, or the default.
    pub fn chosen(asked: Option<&Path>) -> Result<RunDir> {
        let path = match asked {
            Some(path) => std::path::absolute(path).context("the run-time folder")?,
            None => toe_link::client::default_run_dir(),
        };
        Ok(RunDir { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Makes the folder if it is not there; true if it did. What is there must be ours, and others
    /// must not be able to write: they could put sockets of their own in place of ours.
    pub fn make(&self) -> Result<bool> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(|e| self.refuse(&format!("cannot make {}: {e}", parent.display())))?;
        }
        // Root's card serves programs that have given up root, such as a server's workers.
        let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
        let made = match DirBuilder::new().mode(mode).create(&self.path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(self.refuse(&format!("cannot make {}: {e}", self.path.display()))),
        };
        self.check()?;
        Ok(made)
    }

    fn check(&self) -> Result<()> {
        let found = self.path.symlink_metadata().with_context(|| self.path.display().to_string())?;
        let problem = if !found.is_dir() {
            "is not a folder"
        } else if found.uid() != geteuid().as_raw() {
            "belongs to somebody else"
        } else if found.mode() & 0o022 != 0 {
            "can be written by others"
        } else {
            return Ok(());
        };
        Err(self.refuse(&format!("{} {problem}", self.path.display())))
    }

    fn refuse(&self, what: &str) -> anyhow::Error {
        environment(format!("{what}; name another folder with TOE_RUN_DIR or --run-dir"))
    }

    /// Waits for nobody: two `up`s at a time are a mistake. (toed locks the folder itself.) What is in a folder that is not ours is
    /// not to be believed: processes to be ended, a machine to be started.
    pub fn lock(&self) -> Result<Locked> {
        self.check()?;
        let path = self.file(LOCK);
        let cannot = |e: io::Error| anyhow!("cannot lock {}: {e}", self.path.display());
        // Nobody else can open it. An abstract socket's name, or a lock of the folder itself, could be taken by anybody.
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(cannot)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(self.busy()),
            Err(e) => return Err(cannot(e)),
        }
        // Who held it may have removed it meanwhile.
        let locked = Locked { path, file };
        if locked.holds() { Ok(locked) } else { Err(self.busy()) }
    }

    fn busy(&self) -> anyhow::Error {
        anyhow!("another toectl is at work in {}", self.path.display())
    }

    pub fn write_undo(&self, undo: &Undo) -> Result<()> {
        fs::write(self.file("up.json"), serde_json::to_vec(undo)?).context("cannot write up.json")
    }

    /// Absent or unreadable: there is nothing to undo but files and processes.
    pub fn read_undo(&self) -> Option<Undo> {
        serde_json::from_slice(&fs::read(self.file("up.json")).ok()?).ok()
    }

    /// Who still listens here.
    pub fn listener(&self) -> Option<&'static str> {
        LISTENERS.iter().find(|(socket, _)| is_listened_on(&self.file(socket))).map(|(_, who)| *who)
    }

    /// Removes our files, and the folder too if `and_folder` and nothing else is in it.
    /// Returns what it could not remove.
    pub fn clear(&self, and_folder: bool) -> Vec<String> {
        let mut left = Vec::new();
        for name in FILES {
            match fs::remove_file(self.file(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => left.push(format!("{}: {e}", self.file(name).display())),
                _ => {}
            }
        }
        if and_folder {
            let _ = fs::remove_file(self.file(LOCK));
            match fs::remove_dir(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    left.push(format!("{}: has files of somebody else", self.path.display()))
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => left.push(format!("{}: {e}", self.path.display())),
                _ => {}
            }
        }
        left
    }
}

/// Without waiting for who listens.
fn is_listened_on(path: &Path) -> bool {
    let knock = || {
        let address = SocketAddrUnix::new(path)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)
    };
    // AGAIN: others wait for it already.
    matches!(knock(), Ok(()) | Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;
    use std::time::{Duration, Instant};

    fn scratch(name: &str) -> RunDir {
        let path = env::temp_dir().join(format!("toectl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        RunDir { path }
    }

    #[test]
    fn made_and_cleared_to_nothing() {
        let dir = scratch("make");
        assert!(dir.make().expect("made"));
        let expected = if geteuid().is_root() { 0o755 } else { 0o700 };
        assert_eq!(dir.path().metadata().expect("there").permissions().mode() & 0o777, expected);
        assert!(!dir.make().expect("there already"));
        let undo =
            Undo { netns: 1, interface: "eth9".into(), had_clsact: true, made_tap: false, machine: vec!["qemu".into()], made_folder: true };
        dir.write_undo(&undo).expect("written");
        fs::write(dir.file("toed.log"), "x").expect("written");
        assert_eq!(dir.read_undo(), Some(undo));
        assert_eq!(dir.clear(true), Vec::<String>::new());
        assert!(!dir.exists());
        assert_eq!(dir.clear(true), Vec::<String>::new(), "clearing nothing is no error");
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let dir = scratch("open");
        dir.make().expect("made");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        for error in [dir.make().expect_err("refused"), dir.lock().expect_err("refused")].map(|error| error.to_string()) {
            assert!(error.contains("written by others") && error.contains("TOE_RUN_DIR"), "{error}");
        }
        fs::remove_dir(dir.path()).expect("removed");
    }

    #[test]
    fn a_link_is_no_folder() {
        let dir = scratch("link");
        symlink("/tmp", dir.path()).expect("link");
        assert!(dir.make().unwrap_err().to_string().contains("not a folder"));
        fs::remove_file(dir.path()).expect("removed");
    }

    #[test]
    fn strangers_files_are_left_alone_and_named() {
        let dir = scratch("stranger");
        dir.make().expect("made");
        fs::write(dir.file("letter"), "x").expect("written");
        assert_eq!(dir.clear(true).len(), 1);
        assert!(dir.file("letter").exists());
        fs::remove_dir_all(dir.path()).expect("removed");
    }

    #[test]
    fn one_at_a_time() {
        let dir = scratch("lock");
        dir.make().expect("made");
        let held = dir.lock().expect("free");
        assert!(dir.lock().unwrap_err().to_string().contains("another toectl"));
        // Others cannot take it, and so keep us out.
        assert_eq!(dir.file(LOCK).metadata().expect("there").permissions().mode() & 0o777, 0o600);
        drop(held);
        assert!(!dir.file(LOCK).exists());
        // A child that another test starts holds what we held, from its fork to its exec.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(e) = dir.lock() {
            assert!(Instant::now() < deadline, "free again: {e}");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(dir.clear(true), Vec::<String>::new());
    }
}
