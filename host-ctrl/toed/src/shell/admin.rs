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

    /// Nobody reads an answer any more. One that waits for a report would be reported in every turn until that is there.
    pub fn hung_up(&mut self, id: u64, watch: &mut Watch) {
        if self.sessions.get(&id).is_some_and(|s| s.ended && s.waiting.is_some()) {
            self.close(id, watch);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::{io::Write, net::Shutdown};

    /// A session whose request waits for a report, and the operator's end.
    fn waiting(watch: &mut Watch) -> (Admin, UnixStream, u64) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("a flag");
        let mut operator = UnixStream::connect(&path).expect("connects");
        operator.write_all(b"{\"cmd\":\"stats\"}\n").expect("sent");
        let mut admin = Admin::default();
        admin.accept(&listener.into(), watch);
        let id = admin.next;
        admin.read(id, watch);
        assert!(matches!(admin.next_request(id, watch), Some(Request::Stats)));
        admin.wait_for(id, JobId(1));
        (admin, operator, id)
    }

    /// Events that are there, as the daemon heeds them.
    fn turn(admin: &mut Admin, watch: &mut Watch) -> usize {
        let mut found = Vec::new();
        watch.wait(Some(0), &mut found).expect("waits");
        for (what, flags) in &found {
            let Watched::Admin(id) = *what else { panic!("{what:?}") };
            admin.read(id, watch);
            if flags.contains(EventFlags::HUP) {
                admin.hung_up(id, watch);
            }
        }
        found.len()
    }

    #[test]
    fn an_operator_who_goes_before_the_answer_is_forgotten() {
        let mut watch = Watch::new().expect("epoll");
        let (mut admin, operator, _) = waiting(&mut watch);
        drop(operator);
        assert_eq!([turn(&mut admin, &mut watch), turn(&mut admin, &mut watch)], [1, 0], "nothing keeps us awake");
    }

    #[test]
    fn an_operator_who_says_no_more_is_answered() {
        let mut watch = Watch::new().expect("epoll");
        let (mut admin, operator, id) = waiting(&mut watch);
        operator.shutdown(Shutdown::Write).expect("said all");
        assert_eq!([turn(&mut admin, &mut watch), turn(&mut admin, &mut watch)], [1, 0]);
        assert_eq!(admin.finish(JobId(1), &1, &mut watch), Some(id));
        assert_eq!(std::io::read_to_string(operator).expect("answered"), "1\n");
    }
}
