//! Background processes by pid file. A pid alone may long belong to a stranger; with the time at
//! which the process started it names one process for good.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One process, for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between boot and its start.
    started: u64,
}

impl Identity {
    /// Of a process that exists.
    fn of(pid: i32) -> Option<Identity> {
        // Z and X: it has ended, though its parent may not have noticed.
        Self::look(pid).filter(|(state, _)| !matches!(state, 'Z' | 'X')).map(|(_, identity)| identity)
    }

    /// The state of a process too. One that has ended is still to be seen until its parent has noticed.
    fn look(pid: i32) -> Option<(char, Identity)> {
        let (state, started) = state_and_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some((state, Identity { pid, started }))
    }

    pub fn is_alive(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }

    /// By SIGSTOP, or a debugger.
    pub fn is_stopped(self) -> bool {
        Self::look(self.pid).is_some_and(|(state, identity)| matches!(state, 'T' | 't') && identity == self)
    }

    pub fn read(pid_file: &Path) -> Option<Identity> {
        let text = fs::read_to_string(pid_file).ok()?;
        let mut words = text.split_whitespace();
        let (pid, started) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (pid > 1).then_some(Identity { pid, started })
    }

    pub fn write(self, pid_file: &Path) -> Result<()> {
        fs::write(pid_file, format!("{} {}\n", self.pid, self.started)).with_context(|| format!("cannot write {}", pid_file.display()))
    }

    fn signal(self, signal: Signal) {
        // Looked at just before, so that a reused pid is hit only if all pids go round in between.
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGTERM, and SIGKILL to what does not follow. False if it is still there.
    pub fn stop(self, patience: Duration) -> bool {
        self.signal(Signal::TERM);
        if self.gone_within(patience) {
            return true;
        }
        self.signal(Signal::KILL);
        self.gone_within(Duration::from_secs(5))
    }

    fn gone_within(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }
}

/// From `/proc/PID/stat`: fields 3 and 22. The name, in brackets, may contain anything.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A process that we started and still wait for.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pub identity: Identity,
}

/// Starts `program` in a session of its own, so that it outlives this terminal, with its output
/// in `log` and its pid in `pid_file`.
pub fn start(program: &Path, args: &[&OsStr], log: &Path, pid_file: &Path) -> Result<Started> {
    let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    // setsid execs the program, so the pid is the program's.
    let mut child = Command::new("setsid")
        .arg(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .context("cannot start 'setsid' (package util-linux)")?;
    // It may have ended by now: who waits for it to be ready learns how.
    let identity = i32::try_from(child.id()).ok().and_then(Identity::look).map(|(_, identity)| identity);
    match identity.context("it is not in /proc").and_then(|id| id.write(pid_file).map(|()| id)) {
        Ok(identity) => {
            spare(identity.pid);
            Ok(Started { child, identity })
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// The buffers of all applications count as the card's memory, and without card and daemon no program has connections: the last to be killed when
/// memory runs out. Only root may say so; who may not is no worse off than other programs.
fn spare(pid: i32) {
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "-900");
}

/// Why a process did not become ready.
#[derive(Debug)]
pub enum NotReady {
    /// It ended, with this exit status if it had one.
    Ended(Option<i32>),
    Late,
}

impl Started {
    /// Waits until `ready` says yes.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), NotReady> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(NotReady::Ended(status.code()));
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(NotReady::Late);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// As [`Identity::stop`]; reaps it too.
    pub fn stop(mut self) {
        self.identity.stop(Duration::from_secs(3));
        let _ = self.child.try_wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_start_of_a_strange_name() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 11 22 0 0 20 0 1 0 9876 1000 5";
        assert_eq!(state_and_start(stat), Some(('S', 9876)));
        assert_eq!(state_and_start("42 (x) S 1"), None);
        assert_eq!(state_and_start(""), None);
    }

    #[test]
    fn a_program_that_ends_at_once_says_how() {
        let folder = std::env::temp_dir();
        let file = |what: &str| folder.join(format!("toectl-ended-{}-{what}", std::process::id()));
        for _ in 0..20 {
            let mut started = start(Path::new("/bin/sh"), &["-c", "exit 2"].map(OsStr::new), &file("log"), &file("pid")).expect("started");
            let why = started.wait_ready(Duration::from_secs(10), || false).expect_err("it has ended");
            assert!(matches!(why, NotReady::Ended(Some(2))), "{why:?}");
        }
        for what in ["log", "pid"] {
            fs::remove_file(file(what)).expect("removed");
        }
    }

    #[test]
    fn a_pid_file_names_one_process_only() {
        let file = std::env::temp_dir().join(format!("toectl-pid-{}", std::process::id()));
        let me = Identity::of(i32::try_from(std::process::id()).expect("pid")).expect("we exist");
        me.write(&file).expect("written");
        assert_eq!(Identity::read(&file), Some(me));
        assert!(me.is_alive());
        let stranger = Identity { started: me.started + 1, ..me };
        assert!(!stranger.is_alive());
        assert!(stranger.stop(Duration::from_millis(1)), "nobody is killed, nothing is waited for");
        for text in ["", "x", "17", "0 5", "1 5", "-4 5", "17 x"] {
            fs::write(&file, text).expect("written");
            assert_eq!(Identity::read(&file), None, "{text:?}");
        }
        fs::remove_file(&file).expect("removed");
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let base = std::env::temp_dir().join(format!("toectl-stubborn-{}", std::process::id()));
        let (log, pid_file) = (base.with_extension("log"), base.with_extension("pid"));
        let script = OsStr::new("trap '' TERM; echo deaf; while :; do sleep 0.1; done");
        let mut started = start(Path::new("/bin/sh"), &[OsStr::new("-c"), script], &log, &pid_file).expect("started");
        started.wait_ready(Duration::from_secs(20), || fs::read_to_string(&log).is_ok_and(|t| t.contains("deaf"))).expect("ready");
        let identity = Identity::read(&pid_file).expect("pid file");
        assert!(identity.is_alive() && identity == started.identity);
        assert!(identity.stop(Duration::from_millis(200)));
        assert!(!identity.is_alive());
        let _ = started.child.wait();
        fs::remove_file(&log).expect("log");
        fs::remove_file(&pid_file).expect("pid file");
    }
}
