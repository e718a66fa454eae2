//! A card in QEMU that fails: its last words reach the operator, its log can be read after its death, and programs get errors.
//!
//! Needs QEMU, and what `cargo xtask build` and `cargo xtask image virt` make; no rights.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use toe_lab::job::{self, Job, wait_until};
use toe_lab::{programs, qemu};
use toe_qemu::{QEMU, Wire};

const LIMIT: Duration = Duration::from_secs(60);

/// When it fails, milliseconds after its start: later, if the emulated machine had not come far enough by then.
const FAILS_AFTER: [u32; 4] = [5_000, 10_000, 20_000, 40_000];

/// Waits for a connection that never comes.
const SERVER: &str = "import socket\n\
    s = socket.socket(); s.bind(('10.9.0.2', 80)); s.listen()\n\
    print('waiting', flush=True)\n\
    try: s.accept()\n\
    except OSError as e: print('accept:', e.errno, flush=True)\n";

/// A card, its window, its daemon.
struct Machine {
    bin: PathBuf,
    folder: PathBuf,
    qemu: Job,
    toed: Job,
    _window: Job,
}

impl Machine {
    fn start(name: &str, words: &str) -> Result<Self> {
        let (bin, image) = (programs::built_dir()?, qemu::image(false)?);
        let folder = std::env::temp_dir().join(format!("toe-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let socket = folder.join("window.sock");
        let mut window = Command::new(bin.join("toe-window"));
        window.arg("--socket").arg(&socket);
        let mut window = Job::start("toe-window", window, &folder.join("window.log"))?;
        window.wait_ready(LIMIT, || socket.exists())?;
        let qemu = start_qemu(&folder, words)?;
        let mut toed = Command::new(bin.join("toed"));
        toed.arg("--device").arg(format!("ivshmem:{}", socket.display())).arg("--image").arg(&image);
        toed.arg("--run-dir").arg(folder.join("run")).args(["--ip-addr", "10.9.0.2/24"]);
        let mut toed = Job::start("toed", toed, &folder.join("toed.log"))?;
        let admin = folder.join("run/admin.sock");
        toed.wait_ready(LIMIT, || admin.exists())?;
        Ok(Self { bin, folder, qemu, toed, _window: window })
    }

    /// A program that waits for a connection on the card.
    fn start_server(&self) -> Result<Job> {
        let server = self.command(&["run", "--", "python3", "-c", SERVER]);
        let log = self.folder.join("server.log");
        let _ = fs::remove_file(&log);
        let mut server = Job::start("server", server, &log)?;
        server.wait_ready(LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text.contains("waiting")))?;
        Ok(server)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("toectl"));
        command.env("TOE_RUN_DIR", self.folder.join("run")).args(words);
        command
    }

    fn toectl(&self, words: &[&str]) -> Result<String> {
        Ok(job::run(self.command(words), LIMIT)?.success()?.stdout())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The machine itself; `words` are for its image.
fn start_qemu(folder: &Path, words: &str) -> Result<Job> {
    let machine = toe_qemu::Machine {
        image: qemu::image(false)?,
        uefi: false,
        cores: 3,
        wire: Wire::Nobody,
        window: folder.join("window.sock"),
        vectors: 64,
        append: words.to_owned(),
        monitor: None,
    };
    let mut qemu = Command::new(programs::require(QEMU)?);
    qemu.args(machine.words());
    let log = folder.join("qemu.log");
    let _ = fs::remove_file(&log);
    Job::start("qemu", qemu, &log)
}

/// A machine that fails so many milliseconds after its start, well until then, and a program that waits there.
fn well_at_first(kind: &str, after: u32) -> Result<(Machine, Job)> {
    let machine = Machine::start(kind, &format!("fail={kind} fail-after={after}"))?;
    let logs = machine.toectl(&["logs"])?;
    ensure!(logs.contains("3 cores") && logs.contains("control plane attached"), "from its start on:\n{logs}");
    let server = machine.start_server()?;
    ensure!(machine.toectl(&["status"])?.contains("(attached)"), "the card is well at first");
    Ok((machine, server))
}

fn to_fail(kind: &str) -> Result<(Machine, Job)> {
    let [sooner @ .., last] = FAILS_AFTER;
    for after in sooner {
        match well_at_first(kind, after) {
            Err(error) => println!("after {after} ms: {error:#}"),
            well => return well,
        }
    }
    well_at_first(kind, last)
}

fn fails(kind: &str, wanted: &str) -> Result<()> {
    let (mut machine, mut server) = to_fail(kind)?;
    machine.qemu.wait(LIMIT).context("the machine ends")?;
    ensure!(machine.qemu.log().contains(wanted), "on the console:\n{}", machine.qemu.log_tail(20));
    server.wait(LIMIT).context("the program does not hang")?;
    // ENETDOWN.
    ensure!(server.log().contains("accept: 100"), "{}", server.log_tail(5));
    let status = machine.toectl(&["status"])?;
    for part in ["(failed)", wanted, "(core 2)", "waiting for its time to fail"] {
        ensure!(status.contains(part), "{part} is not in\n{status}");
    }
    ensure!(machine.toed.log().contains(wanted), "in toed's log:\n{}", machine.toed.log_tail(5));
    let logs = machine.toectl(&["logs"])?;
    ensure!(logs.lines().last().is_some_and(|line| line.contains("ERROR") && line.contains(wanted)), "its last words:\n{logs}");
    let refused = job::run(machine.command(&["stats"]), LIMIT)?;
    ensure!(!refused.status.success() && refused.stderr().contains(wanted), "{}", refused.stderr());
    // Its successor, with the same toed.
    machine.qemu = start_qemu(&machine.folder, "")?;
    wait_until("the next card is attached", LIMIT, || machine.toectl(&["status"]).is_ok_and(|status| status.contains("(attached)")))?;
    let _server = machine.start_server()?;
    machine.toed.signal(rustix::process::Signal::TERM)?;
    ensure!(machine.toed.wait(LIMIT)?.success(), "toed ends in order:\n{}", machine.toed.log_tail(5));
    Ok(())
}

#[test]
#[ignore = "needs QEMU and the image"]
fn a_panic_is_told_to_the_operator_and_to_programs() {
    fails("panic", "it was told to").unwrap();
}

#[test]
#[ignore = "needs QEMU and the image"]
fn a_fault_is_told_to_the_operator_and_to_programs() {
    fails("fault", "nothing is mapped there").unwrap();
}
