//! Closes what strangers had a hand in, on threads of its own.
//!
//! The last close of a file takes as long as whoever made it likes: a socket that lingers, a file of a file system in user
//! space. A descriptor that came with a request may be the last, and so may one in a message that nobody has read, which
//! goes with the socket it waits at. toed must not wait for either.

use rustix::fd::OwnedFd;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Closes that may be under way at a time.
const THREADS: usize = 4;
/// They do nothing but close.
const STACK_BYTES: usize = 128 << 10;

/// See the module. The threads end when it is dropped and they have nothing left to do.
pub(super) struct Closer {
    queue: mpsc::Sender<OwnedFd>,
    pending: Arc<AtomicUsize>,
}

impl Closer {
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let pending = Arc::new(AtomicUsize::new(0));
        for n in 0..THREADS {
            let (receiver, pending) = (receiver.clone(), pending.clone());
            std::thread::Builder::new().name(format!("closer-{n}")).stack_size(STACK_BYTES).spawn(move || work(&receiver, &pending))?;
        }
        Ok(Self { queue: sender, pending })
    }

    /// Closes `fd` some time soon.
    pub fn close(&self, fd: OwnedFd) {
        // The threads live as long as the sender; if they do not, the descriptor is closed here.
        self.pending.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(fd);
    }

    /// How many are still open. A hint.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

fn work(receiver: &Mutex<mpsc::Receiver<OwnedFd>>, pending: &AtomicUsize) {
    loop {
        // The lock is released before the close.
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(fd) = next else { return };
        // Most of what could linger does not any more. Anything but such a socket answers with an error.
        let _ = rustix::net::sockopt::set_socket_linger(&fd, None);
        drop(fd);
        pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn what_is_handed_over_is_closed() {
        let closer = Closer::start().expect("threads");
        let (mut read, write) = std::os::unix::net::UnixStream::pair().expect("a pair");
        closer.close(write.into());
        read.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        assert_eq!(read.read(&mut [0]).expect("end of file"), 0);
    }

    #[test]
    fn sockets_that_linger_hold_nobody_up() {
        let closer = Closer::start().expect("threads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // More than there are threads, so that waiting for their time would stop them all.
        let mut readers = Vec::new();
        for _ in 0..THREADS + 1 {
            let mut full = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            readers.push(listener.accept().expect("accepts").0);
            full.set_nonblocking(true).expect("a flag");
            while full.write(&[0; 65536]).is_ok() {}
            full.set_nonblocking(false).expect("a flag");
            rustix::net::sockopt::set_socket_linger(&full, Some(Duration::from_secs(3600))).expect("an option");
            closer.close(full.into());
        }
        let (mut read, write) = std::os::unix::net::UnixStream::pair().expect("a pair");
        closer.close(write.into());
        read.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        assert_eq!(read.read(&mut [0]).expect("end of file"), 0);
    }
}
