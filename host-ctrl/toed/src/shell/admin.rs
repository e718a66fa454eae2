//! The admin socket: JSON lines, see [`crate::admin`].

use super::machine::{Key, Watch, Watched};
use crate::{
    admin::{Failure, REQUEST_MAX, Request},
    core::JobId,
};
use rustix::{event::epoll::EventFlags, fd::OwnedFd, io::Errno};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of answers that wait for a client to read them.
const OUTPUT_MAX: usize = 64 << 20;

/// One operator's connection.
struct Session {
    socket: OwnedFd,
    key: Key,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// A report that its request waits for; the next one is read after its answer.
    waiting: Option<JobId>,
    /// Nothing more will be read.
    ended: bool,
}

#[derive(Default)]
pub(super) struct Admin {
    sessions: BTreeMap<u64, Session>,
    next: u64,
}

impl Admin {
    /// Takes the connections that wait at the listener.
    pub fn accept(&mut self, listener: &OwnedFd, watch: &mut Watch) {
        while let Ok(socket) = toe_link::uds::accept(listener) {
            if self.sessions.len() >= CONNECTIONS_MAX {
                continue;
            }
            self.next += 1;
            let Ok(key) = watch.add(&socket, Watched::Admin(self.next), EventFlags::IN) else { continue };
            let session = Session { socket, key, input: Vec::new(), output: VecDeque::new(), waiting: None, ended: false };
            self.sessions.insert(self.next, session);
        }
    }

    /// Watches all sessions in another epoll instance from now on. One that can't be is closed.
    pub fn watch_in(&mut self, watch: &mut Watch) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(s) = self.sessions.get_mut(&id) else { continue };
            match watch.add(&s.socket, Watched::Admin(id), EventFlags::IN) {
                Ok(key) => {
                    s.key = key;
                    self.settle(id, watch);
                }
                Err(_) => drop(self.sessions.remove(&id)),
            }
        }
    }

    /// Reads what a session has to say. Follow with [`next_request`](Self::next_request) until it has none.
    pub fn read(&mut self, id: u64, watch: &mut Watch) {
        let Some(s) = self.sessions.get_mut(&id) else { return };
        let mut chunk = [0; REQUEST_MAX];
        match rustix::io::read(&s.socket, &mut chunk) {
            Ok(0) => s.ended = true,
            Ok(n) => s.input.extend_from_slice(&chunk[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close(id, watch),
        }
        self.settle(id, watch);
    }

    /// The next complete request of a session that waits for nothing.
    pub fn next_request(&mut self, id: u64, watch: &mut Watch) -> Option<Request> {
        loop {
            let s = self.sessions.get_mut(&id)?;
            if s.waiting.is_some() {
                return None;
            }
            let Some(end) = s.input.iter().position(|&b| b == b'\n') else {
                if s.input.len() > REQUEST_MAX {
                    self.close(id, watch);
                }
                return None;
            };
            let line: Vec<u8> = s.input.drain(..=end).collect();
            match Request::parse(&line) {
                Ok(request) => return Some(request),
                Err(e) => self.answer(id, &Failure { error: format!("not a request: {e}") }, watch),
            }
        }
    }

    /// A session's request waits for this report.
    pub fn wait_for(&mut self, id: u64, job: JobId) {
        if let Some(s) = self.sessions.get_mut(&id) {
            s.waiting = Some(job);
        }
    }

    /// Answers the session that waits for `job`, and says which it is.
    pub fn finish(&mut self, job: JobId, answer: &impl Serialize, watch: &mut Watch) -> Option<u64> {
        let (&id, s) = self.sessions.iter_mut().find(|(_, s)| s.waiting == Some(job))?;
        s.waiting = None;
        self.answer(id, answer, watch);
        Some(id)
    }

    /// Answers all that wait: what they wait for will not come.
    pub fn fail_waiting(&mut self, why: &Failure, watch: &mut Watch) {
        let waiting: Vec<u64> = self.sessions.iter_mut().filter_map(|(id, s)| s.waiting.take().map(|_| *id)).collect();
        waiting.into_iter().for_each(|id| self.answer(id, why, watch));
    }

    pub fn answer(&mut self, id: u64, answer: &impl Serialize, watch: &mut Watch) {
        let Some(s) = self.sessions.get_mut(&id) else { return };
        let line = serde_json::to_vec(answer).unwrap_or_else(|e| format!(r#"{{"error":"{e}"}}"#).into_bytes());
        s.output.extend(line);
        s.output.push_back(b'\n');
        self.write(id, watch);
    }

    /// Writes what a session can take now.
    pub fn write(&mut self, id: u64, watch: &mut Watch) {
        let Some(s) = self.sessions.get_mut(&id) else { return };
        while !s.output.is_empty() {
            let (front, _) = s.output.as_slices();
            match rustix::io::write(&s.socket, front) {
                Ok(n) => drop(s.output.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if s.output.len() <= OUTPUT_MAX => break,
                Err(_) => return self.close(id, watch),
            }
        }
        self.settle(id, watch);
    }

    /// Sets what to wait for; closes a session that is through.
    fn settle(&mut self, id: u64, watch: &mut Watch) {
        let Some(s) = self.sessions.get(&id) else { return };
        let pending = s.waiting.is_some() || !s.output.is_empty() || s.input.contains(&b'\n');
        if s.ended && !pending {
            return self.close(id, watch);
        }
        let mut flags = EventFlags::empty();
        // A session that sends faster than it is answered waits.
        flags.set(EventFlags::IN, !s.ended && s.input.len() <= REQUEST_MAX);
        flags.set(EventFlags::OUT, !s.output.is_empty());
        if watch.modify(&s.socket, s.key, flags).is_err() {
            self.close(id, watch);
        }
    }

    pub fn close(&mut self, id: u64, watch: &mut Watch) {
        if let Some(s) = self.sessions.remove(&id) {
            watch.remove(&s.socket, s.key);
        }
    }
}
