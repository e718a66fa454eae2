//! The usual set-up: a card on one host, the Linux kernel on another, a veth pair between them.
//!
//! ```text
//!   host 0: applications ► card (toe-nic, toed) ► toe0 ═══ veth ═══ peer0 ◄ kernel ◄ programs :host 1
//!                          10.77.0.2                        10.77.0.1
//! ```
//!
//! The card's interface has no address in the kernel. [`Place`] is where a program runs: on a
//! host's own kernel, or on a card under `toectl run`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::books::Books;
use crate::job::{self, Finished, Job};
use crate::namespaces::{Host, Lab};
use crate::{proc, programs};

pub const CARD_IP: &str = "10.77.0.2";
pub const PEER_IP: &str = "10.77.0.1";
pub const CARD_IF: &str = "toe0";
pub const PEER_IF: &str = "peer0";

/// More words for every `toectl up`, separated by blanks: with them the same tests run on a card that is put together otherwise.
pub const UP_ENV: &str = "TOE_TEST_UP";

/// Bound on any toectl command; `up` itself gives up earlier.
const TOECTL_LIMIT: Duration = Duration::from_secs(40);

/// How long frames may be under way between two counters.
const BOOKS_LIMIT: Duration = Duration::from_secs(60);

/// Two hosts joined by a veth pair; the peer has an address.
#[derive(Debug)]
pub struct Pair {
    pub lab: Lab,
}

impl Pair {
    pub fn new() -> Result<Pair> {
        let lab = Lab::new(2)?;
        lab.veth((lab.host(0), CARD_IF), (lab.host(1), PEER_IF))?;
        lab.host(1).ip(&format!("addr add {PEER_IP}/24 dev {PEER_IF}"))?;
        Ok(Pair { lab })
    }

    /// The host with the card.
    pub fn near(&self) -> &Host {
        self.lab.host(0)
    }

    /// The host that is all kernel.
    pub fn peer(&self) -> &Host {
        self.lab.host(1)
    }

    /// Where the peer's programs run.
    pub fn peer_place(&self) -> Place {
        Place::kernel(self.peer(), PEER_IP)
    }

    /// Starts a card on the near host with the usual names.
    pub fn card_up(&self) -> Result<Card> {
        self.card_up_with(&[])
    }

    /// The same with more words for `toectl up`.
    pub fn card_up_with(&self, more: &[&str]) -> Result<Card> {
        let card = Card::new(self.near(), "/run/toe", CARD_IP)?;
        card.up(&format!("af_packet:{CARD_IF}"), more)?;
        Ok(card)
    }
}

/// A card, as an operator handles it: by `toectl` and a run-time folder.
#[derive(Clone, Debug)]
pub struct Card {
    host: Host,
    toectl: PathBuf,
    pub run_dir: String,
    pub ip: String,
}

impl Card {
    /// Nothing is started yet.
    pub fn new(host: &Host, run_dir: &str, ip: &str) -> Result<Card> {
        let toectl = programs::built_dir()?.join("toectl");
        Ok(Card { host: host.clone(), toectl, run_dir: run_dir.to_owned(), ip: ip.to_owned() })
    }

    /// `toectl` with these words, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.host.command(&self.toectl);
        command.env("TOE_RUN_DIR", &self.run_dir).args(words);
        command
    }

    /// Runs `toectl` with these words, whatever its exit status.
    pub fn try_toectl(&self, words: &[&str]) -> Result<Finished> {
        job::run(self.command(words), TOECTL_LIMIT)
    }

    /// Runs `toectl` with these words; the exit status must be 0.
    pub fn toectl(&self, words: &[&str]) -> Result<Finished> {
        self.try_toectl(words)?.success()
    }

    pub fn up(&self, port: &str, more: &[&str]) -> Result<()> {
        let ip = format!("{}/24", self.ip);
        let mut words = vec!["up", "--port", port, "--ip", &ip];
        // A test that says itself how its card is put together is not overruled.
        let from_outside = if more.contains(&"--placement") { String::new() } else { std::env::var(UP_ENV).unwrap_or_default() };
        words.extend(from_outside.split_whitespace());
        words.extend(more);
        self.toectl(&words).map(drop)
    }

    pub fn down(&self) -> Result<Finished> {
        self.toectl(&["down"])
    }

    /// Where programs on this card run.
    pub fn place(&self) -> Place {
        Place { host: self.host.clone(), card: Some(self.clone()), ip: self.ip.clone() }
    }

    /// Every counter by name.
    pub fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.toectl(&["stats", "--json"])?.stdout();
        serde_json::from_str(&text).with_context(|| format!("toectl stats --json printed {text:?}"))
    }

    /// Its books, once every frame is accounted for.
    pub fn balanced_books(&self) -> Result<Books> {
        let mut books = Books::default();
        let balanced = job::wait_until("the books balance", BOOKS_LIMIT, || {
            books = Books::of(&self.stats().unwrap_or_default());
            books.balance()
        });
        balanced.with_context(|| books.to_string()).map(|()| books)
    }

    /// `toectl ss --json` or `status --json`.
    pub fn json(&self, what: &str) -> Result<serde_json::Value> {
        let text = self.toectl(&[what, "--json"])?.stdout();
        serde_json::from_str(&text).with_context(|| format!("toectl {what} --json printed {text:?}"))
    }

    /// The pid here of `toe-nic` or `toed`, from its pid file.
    pub fn pid(&self, lab: &Lab, name: &str) -> Result<u32> {
        let path = lab.path(&format!("{}/{name}.pid", self.run_dir));
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let inner: u32 = text.split_whitespace().next().and_then(|w| w.parse().ok()).context("no pid in the pid file")?;
        let pids = lab.processes();
        pids.into_iter()
            .map(|(pid, _)| pid)
            .find(|pid| proc::inner_pid(*pid) == Some(inner))
            .with_context(|| format!("{name}, pid {inner} of the lab, is not running"))
    }

    /// The ends of both logs, for messages.
    pub fn logs(&self, lab: &Lab, lines: usize) -> String {
        ["toe-nic", "toed"]
            .iter()
            .map(|name| {
                let text = std::fs::read(lab.path(&format!("{}/{name}.log", self.run_dir))).unwrap_or_default();
                format!("  {name}.log:\n{}", job::tail(&String::from_utf8_lossy(&text), lines))
            })
            .collect()
    }
}

/// Where a program runs: on a host's kernel, or on a card.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: Host,
    card: Option<Card>,
    /// The address that its servers have.
    pub ip: String,
}

impl Place {
    pub fn kernel(host: &Host, ip: &str) -> Place {
        Place { host: host.clone(), card: None, ip: ip.to_owned() }
    }

    /// `program` at this place, without arguments yet.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        match &self.card {
            None => self.host.command(program),
            Some(card) => {
                let mut command = card.command(["run", "--"]);
                command.arg(program.as_ref());
                command
            }
        }
    }

    /// A program of the distribution, run to its end; its exit status must be 0.
    pub fn run(&self, program: &str, args: &[&str], limit: Duration) -> Result<Finished> {
        let mut command = self.command(programs::require(program)?);
        command.args(args);
        job::run(command, limit)?.success()
    }

    /// One of our own programs, in the background.
    pub fn start_built(&self, lab: &Lab, job_name: &str, program: &str, args: &[&str]) -> Result<Job> {
        let mut command = self.command(programs::built_dir()?.join(program));
        command.args(args);
        Job::start(job_name, command, &lab.log_path(job_name))
    }

    /// A program of the distribution, in the background.
    pub fn start(&self, lab: &Lab, job_name: &str, program: &str, args: &[&str]) -> Result<Job> {
        let mut command = self.command(programs::require(program)?);
        command.args(args);
        Job::start(job_name, command, &lab.log_path(job_name))
    }
}
