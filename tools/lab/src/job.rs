//! Programs run for a test: to their end with a deadline, or in the background until dropped.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::proc;

/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
    /// The command line, for messages.
    pub line: String,
}

impl Finished {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself if the exit status is 0, else an error with the end of what it printed.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("'{}' failed ({}):\n{}{}", self.line, self.status, tail(&self.stdout(), 20), tail(&self.stderr(), 20));
    }
}

/// The last `lines` lines of `text`, each ended.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Runs `command` to its end and collects its output; kills it and fails at the deadline.
///
/// Returns when the program itself ends: a background process that it left behind and that
/// still holds its output does not keep us waiting.
pub fn run(mut command: Command, limit: Duration) -> Result<Finished> {
    let line = describe(&command);
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start '{line}'"))?;
    let stdout = collect(child.stdout.take())?;
    let stderr = collect(child.stderr.take())?;
    let status = match wait(&mut child, limit)? {
        Some(status) => status,
        None => {
            kill_tree(&mut child);
            let printed = tail(&String::from_utf8_lossy(&stderr()), 20);
            bail!("'{line}' was not done after {:.0} s\n{printed}", limit.as_secs_f64());
        }
    };
    Ok(Finished { status, stdout: stdout(), stderr: stderr(), took: start.elapsed(), line })
}

/// What a program prints into a pipe.
struct Collected {
    pipe: OwnedFd,
    all: Mutex<Vec<u8>>,
}

impl Collected {
    /// Takes what is in the pipe; `false`: no more will come.
    fn drain(&self) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 16 * 1024];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => return false,
                Ok(n) => all.extend(&buffer[..n]),
                Err(Errno::INTR) => {}
                Err(error) => return error == Errno::AGAIN,
            }
        }
    }

    fn wait(&self) {
        let _ = poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], None);
    }
}

/// Reads a pipe on a thread of its own; the closure returned gives what was written until then. A background process may still hold the other end.
fn collect(pipe: Option<impl Into<OwnedFd>>) -> Result<impl Fn() -> Vec<u8>> {
    let pipe: OwnedFd = pipe.context("not a pipe")?.into();
    rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
    let collected = Arc::new(Collected { pipe, all: Mutex::default() });
    let reader = Arc::clone(&collected);
    thread::spawn(move || {
        while reader.drain() {
            reader.wait();
        }
    });
    Ok(move || {
        collected.drain();
        collected.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `ready` says yes, or fails with `what` at the deadline.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if Instant::now() >= deadline {
            bail!("{what}: not so after {:.0} s", limit.as_secs_f64());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn describe(command: &Command) -> String {
    let mut words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|w| w.to_string_lossy().into_owned()).collect();
    // What nsenter is told is of no interest to who reads the message.
    if words[0].ends_with("nsenter")
        && let Some(end) = words.iter().position(|w| w == "--")
    {
        words.drain(..=end);
    }
    words.join(" ")
}

/// Kills what `child` has started, and `child` itself, and waits for it.
pub fn kill_tree(child: &mut Child) {
    for pid in proc::descendants(child.id()) {
        signal(pid, Signal::KILL);
    }
    // It may have ended meanwhile; then there is nothing to kill.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal; a process that has gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A program in the background, killed with all that it started when dropped.
#[derive(Debug)]
pub struct Job {
    name: String,
    child: Child,
    log: PathBuf,
    /// Whether `child` is nsenter, which waits for the program rather than becoming it.
    wrapped: bool,
}

impl Job {
    /// Starts `command`; what it prints goes to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Job> {
        let out = open_log(log)?;
        let wrapped = command.get_program().to_string_lossy().ends_with("nsenter");
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {name}: '{}'", describe(&command)))?;
        Ok(Job { name: name.to_owned(), child, log: log.to_owned(), wrapped })
    }

    /// The program's pid as this process sees it; waits for nsenter to have started it.
    pub fn pid(&self) -> Result<u32> {
        if !self.wrapped {
            return Ok(self.child.id());
        }
        let mut found = None;
        wait_until(&format!("{} has been started", self.name), Duration::from_secs(5), || {
            found = proc::children(self.child.id()).first().copied();
            found.is_some()
        })?;
        found.context("no pid")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `ready` says yes; fails early if the program ends, with the end of its log.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it was ready ({status}):\n{}", self.name, self.log_tail(20));
            }
            if Instant::now() >= deadline {
                bail!("{} is not ready after {:.0} s:\n{}", self.name, limit.as_secs_f64(), self.log_tail(20));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match wait(&mut self.child, limit)? {
            Some(status) => Ok(status),
            None => bail!("{} is still running after {:.0} s:\n{}", self.name, limit.as_secs_f64(), self.log_tail(20)),
        }
    }

    /// Sends a signal to the program itself.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(self.pid()?, which);
        Ok(())
    }

    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        kill_tree(&mut self.child);
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_kept() {
        let done = run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20)).expect("runs");
        assert_eq!((done.stdout().as_str(), done.stderr().as_str(), done.status.code()), ("out\n", "err\n", Some(3)));
        let error = done.success().unwrap_err().to_string();
        assert!(error.contains("err") && error.contains("exit 3"), "{error}");
    }

    #[test]
    fn the_deadline_kills_the_whole_tree() {
        let marker = format!("12345.{}", std::process::id());
        let error = run(shell(&format!("echo begun >&2; sleep {marker} & wait")), Duration::from_secs(2)).unwrap_err();
        assert!(error.to_string().contains("begun"), "{error}");
        let alive = proc::all_in(Path::new("/proc"))
            .into_iter()
            .filter(|s| fs::read_to_string(format!("/proc/{}/cmdline", s.pid)).is_ok_and(|c| c.contains(&format!("sleep\0{marker}"))))
            .count();
        assert_eq!(alive, 0);
    }

    #[test]
    fn a_background_process_that_holds_the_pipe_does_not_delay() {
        let done = run(shell("echo here; sleep 30 & echo $!"), Duration::from_secs(20)).expect("runs");
        let pid = done.stdout().lines().nth(1).and_then(|l| l.parse().ok()).expect("pid");
        signal(pid, Signal::KILL);
        assert!(done.took < Duration::from_secs(10), "{:?}", done.took);
    }

    #[test]
    fn a_job_that_dies_early_is_reported_with_its_log() {
        let log = std::env::temp_dir().join(format!("toe-lab-job-{}.log", std::process::id()));
        let mut job = Job::start("stand-in", shell("echo no such port; exit 2"), &log).expect("starts");
        let error = job.wait_ready(Duration::from_secs(20), || false).unwrap_err().to_string();
        fs::remove_file(&log).expect("log was written");
        assert!(error.contains("no such port") && error.contains("stand-in"), "{error}");
    }

    #[test]
    fn a_dropped_job_takes_its_children_along() {
        let log = std::env::temp_dir().join(format!("toe-lab-drop-{}.log", std::process::id()));
        let mut job = Job::start("tree", shell("sleep 300 & echo $!; wait"), &log).expect("starts");
        job.wait_ready(Duration::from_secs(20), || fs::read_to_string(&log).is_ok_and(|t| t.ends_with('\n'))).expect("printed");
        let pid: u32 = job.log().trim().parse().expect("pid");
        assert!(proc::Stat::read(pid).is_some_and(|s| !s.ended()));
        drop(job);
        fs::remove_file(&log).expect("log was written");
        wait_until("the child is gone", Duration::from_secs(20), || proc::Stat::read(pid).is_none_or(|s| s.ended())).expect("gone");
    }
}
