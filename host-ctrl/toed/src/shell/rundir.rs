//! The run directory: one toed at a time, and its two sockets.

use crate::config::{admin_socket, app_socket, failure_file};
use anyhow::{Context, Result, bail};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, FlockOperation, Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The run directory, locked, and what was made in it. Dropping it removes the sockets.
pub(super) struct RunDir {
    _lock: OwnedFd,
    made: Vec<PathBuf>,
    path: PathBuf,
    /// The directory itself is ours: it goes as well, if nothing else is in it.
    ours: bool,
}

impl RunDir {
    /// Makes sure that it exists and that no other toed works in it.
    pub fn lock(path: &Path) -> Result<Self> {
        let show = path.display();
        // Applications of other users need to reach toed.sock when toed runs as root (a server's workers, say).
        let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
        let ours = match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => bail!("run directory {show}: {e}; choose another one with --run-dir"),
        };
        let lock = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("run directory {show}"))?;
        // Who owns it may put sockets of theirs in place of ours, and links in place of what we write.
        let (us, owner) = (rustix::process::geteuid().as_raw(), rustix::fs::fstat(&lock)?.st_uid);
        if owner != us && owner != 0 {
            bail!("run directory {show} belongs to somebody else; choose another one with --run-dir");
        }
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock, made: Vec::new(), path: path.to_owned(), ours }),
            Err(Errno::WOULDBLOCK) => bail!("another toed runs in {show}; stop it (toectl down) or choose another --run-dir"),
            Err(e) => bail!("run directory {show}: locking it: {e}"),
        }
    }

    /// Forgets why an earlier toed has ended: this one works.
    pub fn forget_failure(&self) {
        let _ = rustix::fs::unlink(failure_file(&self.path));
    }

    /// Leaves word for operators of why toed has ended.
    pub fn leave_failure(&self, text: &str) {
        if let Err(e) = std::fs::write(failure_file(&self.path), format!("{text}\n")) {
            tracing::debug!("{}: {e}", failure_file(&self.path).display());
        }
    }

    /// The socket of applications. Everybody who reaches it may use it: who that is, the directory's mode says.
    pub fn listen_apps(&mut self) -> Result<OwnedFd> {
        self.listen(app_socket(&self.path), SocketType::SEQPACKET, 0o666)
    }

    /// The socket of operators.
    pub fn listen_admin(&mut self) -> Result<OwnedFd> {
        self.listen(admin_socket(&self.path), SocketType::STREAM, 0o600)
    }

    /// Applications find nobody from now on.
    pub fn refuse_apps(&mut self) {
        // If it stays, they find a socket where nobody listens in the end.
        let _ = remove_socket(&app_socket(&self.path));
    }

    fn listen(&mut self, path: PathBuf, kind: SocketType, mode: u32) -> Result<OwnedFd> {
        let show = path.display().to_string();
        remove_socket(&path).with_context(|| format!("{show}: left by an earlier toed"))?;
        let address = SocketAddrUnix::new(&path).with_context(|| format!("{show}: the path is too long for a socket"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        // Bound under a strict mask, so that nobody gets in before the mode is right.
        let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&socket, &address);
        rustix::process::umask(umask);
        bound.with_context(|| format!("{show}: binding"))?;
        self.made.push(path.clone());
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).with_context(|| format!("{show}: setting its mode"))?;
        rustix::net::listen(&socket, BACKLOG).with_context(|| format!("{show}: listening"))?;
        Ok(socket)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = remove_socket(path);
        }
        if self.ours {
            let _ = rustix::fs::rmdir(&self.path);
        }
    }
}

/// Removes a socket; anything else in its place stays, and is an error.
fn remove_socket(path: &Path) -> Result<(), Errno> {
    match rustix::fs::lstat(path) {
        Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::Socket => rustix::fs::unlink(path),
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_toed_works_in_a_run_directory() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("run");
        let first = RunDir::lock(&path).expect("free");
        let second = RunDir::lock(&path).err().expect("taken").to_string();
        assert!(second.contains("another toed"), "{second}");
        drop(first);
        assert!(!path.exists(), "it was made here, and nothing is in it");
        RunDir::lock(&path).expect("free again");
    }

    #[test]
    fn sockets_of_a_killed_toed_are_replaced_and_ours_are_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut killed = RunDir::lock(dir.path()).expect("free");
        killed.listen_apps().expect("a socket");
        // As after SIGKILL: the lock is gone, the file stays.
        killed.made.clear();
        drop(killed);
        assert!(app_socket(dir.path()).exists());
        let mut next = RunDir::lock(dir.path()).expect("free");
        next.listen_apps().expect("replaced");
        next.listen_admin().expect("a socket");
        drop(next);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn the_word_of_a_toed_that_failed_stays_until_another_works() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("run");
        let run = RunDir::lock(&path).expect("free");
        run.leave_failure("the card is gone");
        drop(run);
        assert_eq!(std::fs::read_to_string(failure_file(&path)).expect("there"), "the card is gone\n");
        let next = RunDir::lock(&path).expect("free");
        assert!(failure_file(&path).exists(), "it does not work yet");
        next.forget_failure();
        assert!(!failure_file(&path).exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(app_socket(dir.path()), "precious").expect("written");
        let mut run = RunDir::lock(dir.path()).expect("free");
        assert!(run.listen_apps().is_err());
        drop(run);
        assert!(app_socket(dir.path()).exists());
    }

    #[test]
    fn a_folder_that_somebody_else_has_made_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        // Only root can give one away.
        if std::os::unix::fs::chown(dir.path(), Some(12_345), None).is_ok() {
            let e = RunDir::lock(dir.path()).err().expect("not ours").to_string();
            assert!(e.contains("somebody else") && e.contains("--run-dir"), "{e}");
        }
    }

    #[test]
    fn a_missing_parent_is_named() {
        let e = RunDir::lock(Path::new("/nonexistent/toe")).err().expect("cannot be made").to_string();
        assert!(e.contains("/nonexistent/toe") && e.contains("--run-dir"), "{e}");
    }
}
