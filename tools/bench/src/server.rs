//! The server: one thread, epoll, non-blocking sockets, as network servers are written.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::wire::{BULK_BLOCK, HELLO_LEN, Mode};

const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 64;
/// Bytes of answers that may wait on one connection before it is read no more.
const PENDING_MAX: usize = 256 * 1024;

struct Connection {
    stream: TcpStream,
    mode: Option<Mode>,
    /// Received and not yet answered (echo), or the greeting so far.
    pending: Vec<u8>,
    /// Received in all, after the greeting.
    received: u64,
    interest: EpollFlags,
}

/// What became of a connection after it was served.
#[derive(PartialEq, Eq, Debug)]
enum Fate {
    Stays,
    Ends,
}

pub fn serve(listen: SocketAddrV4) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    poll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections = HashMap::new();
    let mut block = vec![0; BULK_BLOCK];
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = match poll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..ready] {
            let (key, flags) = (event.data(), event.events());
            if key == LISTENER {
                accept_all(&listener, &poll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(&key) {
                let served = connection.serve(flags, &mut block).and_then(|fate| {
                    if fate == Fate::Stays {
                        connection.update_interest(&poll, key)?;
                    }
                    Ok(fate)
                });
                // A client that goes away in the middle is no error of the server.
                if !matches!(served, Ok(Fate::Stays)) {
                    connections.remove(&key);
                }
            }
        }
    }
}

fn accept_all(listener: &TcpListener, poll: &Epoll, connections: &mut HashMap<u64, Connection>) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let key = u64::try_from(stream.as_raw_fd())?;
                poll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
                let interest = EpollFlags::EPOLLIN;
                connections.insert(key, Connection { stream, mode: None, pending: Vec::new(), received: 0, interest });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client has gone again before we looked.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e).context("accept"),
        }
    }
}

impl Connection {
    fn serve(&mut self, flags: EpollFlags, block: &mut [u8]) -> io::Result<Fate> {
        if self.mode.is_none() && self.greet()? == Fate::Ends {
            return Ok(Fate::Ends);
        }
        match self.mode {
            None => Ok(Fate::Stays),
            Some(Mode::Echo) => self.echo(block),
            Some(Mode::Sink) => self.sink(block),
            Some(Mode::Source) if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) => Ok(Fate::Ends),
            Some(Mode::Source) => self.source(block),
        }
    }

    /// Reads the greeting, and not a byte more.
    fn greet(&mut self) -> io::Result<Fate> {
        let mut hello = [0; HELLO_LEN];
        while self.pending.len() < HELLO_LEN {
            let missing = HELLO_LEN - self.pending.len();
            match would_block(self.stream.read(&mut hello[..missing]))? {
                None => return Ok(Fate::Stays),
                Some(0) => return Ok(Fate::Ends),
                Some(n) => self.pending.extend(&hello[..n]),
            }
        }
        self.mode = Mode::parse(&self.pending);
        self.pending.clear();
        Ok(if self.mode.is_some() { Fate::Stays } else { Fate::Ends })
    }

    fn echo(&mut self, block: &mut [u8]) -> io::Result<Fate> {
        if self.flush()? && self.pending.len() < PENDING_MAX {
            match would_block(self.stream.read(block))? {
                None => {}
                Some(0) => return Ok(Fate::Ends),
                Some(n) => {
                    self.pending.extend(&block[..n]);
                    self.flush()?;
                }
            }
        }
        Ok(Fate::Stays)
    }

    /// Writes what waits; true if nothing waits any more.
    fn flush(&mut self) -> io::Result<bool> {
        let mut done = 0;
        while done < self.pending.len() {
            match would_block(self.stream.write(&self.pending[done..]))? {
                None => break,
                Some(n) => done += n,
            }
        }
        self.pending.drain(..done);
        Ok(self.pending.is_empty())
    }

    fn sink(&mut self, block: &mut [u8]) -> io::Result<Fate> {
        // A few blocks and then the others, so that one connection does not starve them.
        for _ in 0..16 {
            match would_block(self.stream.read(block))? {
                None => break,
                Some(0) => {
                    self.stream.write_all(&self.received.to_be_bytes())?;
                    return Ok(Fate::Ends);
                }
                Some(n) => self.received += n as u64,
            }
        }
        Ok(Fate::Stays)
    }

    fn source(&mut self, block: &[u8]) -> io::Result<Fate> {
        for _ in 0..16 {
            if would_block(self.stream.write(block))?.is_none() {
                break;
            }
        }
        Ok(Fate::Stays)
    }

    fn update_interest(&mut self, poll: &Epoll, key: u64) -> io::Result<()> {
        let wanted = match self.mode {
            Some(Mode::Source) => EpollFlags::EPOLLOUT,
            Some(Mode::Echo) if !self.pending.is_empty() => EpollFlags::EPOLLOUT,
            _ => EpollFlags::EPOLLIN,
        };
        if wanted != self.interest {
            poll.modify(&self.stream, &mut EpollEvent::new(wanted, key))?;
            self.interest = wanted;
        }
        Ok(())
    }
}

fn would_block(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}
