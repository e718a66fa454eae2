//! The socket that hosts connect to: appears when the card is ready, goes when it ends.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Most bytes of a UNIX socket's path, with the terminating zero.
const PATH_MAX: usize = 108;

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("another card answers on {0}")]
    InUse(PathBuf),
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    #[error("{0}: the path of a UNIX socket has at most {PATH_MAX} bytes, some of them for our own use")]
    TooLong(PathBuf),
    #[error("socket {path}: {source}")]
    Os { path: PathBuf, source: io::Error },
}

/// A listening socket in the file system, removed on drop.
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
    /// Device and inode: what is there later under this name may be another's.
    identity: (u64, u64),
}

impl Endpoint {
    /// Listens on `path`. A socket left there by a card that was killed is replaced.
    pub fn open(path: &Path) -> Result<(Self, OwnedFd), EndpointError> {
        let os = |source| EndpointError::Os { path: path.to_owned(), source };
        clear_stale(path)?;
        // Made in a folder of its own and moved: whoever sees the name can connect. The last part of the
        // name stays, as peers see the name the socket was bound to.
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nursery = parent.join(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let bound = nursery.join(path.file_name().ok_or_else(|| os(io::ErrorKind::InvalidInput.into()))?);
        if bound.as_os_str().len() >= PATH_MAX {
            return Err(EndpointError::TooLong(path.to_owned()));
        }
        // What a predecessor of the same number left.
        let _ = fs::remove_file(&bound);
        let _ = fs::remove_dir(&nursery);
        fs::create_dir(&nursery).map_err(os)?;
        // Linked, not renamed: a card that has started at the same moment is not replaced.
        let made = bind_private(&bound).and_then(|listener| fs::hard_link(&bound, path).map(|()| listener));
        let _ = fs::remove_file(&bound);
        let _ = fs::remove_dir(&nursery);
        let listener = made.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => EndpointError::InUse(path.to_owned()),
            _ => os(e),
        })?;
        let found = fs::symlink_metadata(path).map_err(os)?;
        Ok((Self { path: path.to_owned(), identity: (found.dev(), found.ino()) }, listener.into()))
    }
}

/// A listener that only its owner may connect to.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes a socket at `path` that nobody listens on.
fn clear_stale(path: &Path) -> Result<(), EndpointError> {
    let os = |source| EndpointError::Os { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(os(e)),
        Ok(found) if !found.file_type().is_socket() => Err(EndpointError::NotASocket(path.to_owned())),
        Ok(_) => match knock(path) {
            Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(os),
            // AGAIN: it is there, and others wait for it already.
            Ok(()) | Err(Errno::AGAIN) => Err(EndpointError::InUse(path.to_owned())),
            Err(e) => Err(os(e.into())),
        },
    }
}

/// Connects to whoever listens on `path`, without waiting for it.
fn knock(path: &Path) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if same && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "removing the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("toe-nic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn appears_connectable_and_goes() {
        let folder = folder("endpoint");
        let path = folder.join("card.sock");
        let (endpoint, listener) = Endpoint::open(&path).unwrap();
        let peer = UnixStream::connect(&path).unwrap();
        assert_eq!(peer.peer_addr().unwrap().as_pathname().unwrap().file_name(), path.file_name());
        assert!(matches!(Endpoint::open(&path), Err(EndpointError::InUse(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop((endpoint, listener));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_dead_cards_socket_is_replaced_a_file_is_not() {
        let folder = folder("stale");
        let path = folder.join("card.sock");
        drop(UnixListener::bind(&path).unwrap());
        let opened = Endpoint::open(&path).unwrap();
        drop(opened);
        fs::write(&path, b"precious").unwrap();
        assert!(matches!(Endpoint::open(&path), Err(EndpointError::NotASocket(_))));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_successors_socket_is_left_alone() {
        let folder = folder("successor");
        let path = folder.join("card.sock");
        let (endpoint, _listener) = Endpoint::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(endpoint);
        assert!(path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_card_that_does_not_get_to_accept_is_there() {
        let folder = folder("stopped");
        let path = folder.join("card.sock");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let connect = || {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?).map(|()| socket)
        };
        let waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
        assert!(!waiting.is_empty());
        assert!(matches!(Endpoint::open(&path), Err(EndpointError::InUse(_))));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn of_cards_that_start_at_once_one_gets_the_path() {
        let folder = folder("race");
        for round in 0..100 {
            let path = folder.join(format!("card{round}.sock"));
            let start = std::sync::Barrier::new(3);
            let open = || {
                start.wait();
                Endpoint::open(&path)
            };
            let opened: Vec<_> = std::thread::scope(|scope| {
                let cards = [scope.spawn(open), scope.spawn(open), scope.spawn(open)];
                cards.into_iter().map(|card| card.join().unwrap()).collect()
            });
            assert_eq!(opened.iter().filter(|o| o.is_ok()).count(), 1, "{opened:?}");
            assert!(opened.iter().all(|o| matches!(o, Ok(_) | Err(EndpointError::InUse(_)))), "{opened:?}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_too_long_is_said() {
        let path = std::env::temp_dir().join("x".repeat(110));
        assert!(matches!(Endpoint::open(&path), Err(EndpointError::TooLong(_))));
    }
}
