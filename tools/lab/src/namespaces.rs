//! Hosts of our own on one machine: network namespaces that vanish with the process that made them.
//!
//! ```text
//!   this process ──stdin──► unshare ──► bash, init of a pid namespace        (one lab)
//!                                         │  own /proc, /run, and network = host 0
//!                                         ├─► sleep, network = host 1
//!                                         └─► sleep, network = host 2 ...
//! ```
//!
//! No name in `/run/netns`, no file outside the lab, and nothing to clean up: when this process
//! ends in any way, init reads the end of its input and exits, and the kernel kills every process
//! of a pid namespace whose init has gone, daemons included. A user who is not root gets a user
//! namespace around it all, in which it is root.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{job, proc, programs};

/// What init does: make the other networks, say that they are there, wait for the end.
/// It is bash because init must reap orphans, which bash does while it reads.
const INIT: &str = r#"
mount -t tmpfs -o mode=0755 tmpfs /run || exit 1
mkdir /run/log || exit 1
for ((i = 1; i < HOSTS; i++)); do unshare --net sleep infinity & pids="$pids $!"; done
mine=$(readlink /proc/self/ns/net)
for pid in $pids; do
    while [ "$(readlink "/proc/$pid/ns/net")" = "$mine" ]; do kill -0 "$pid" || exit 1; sleep 0.01; done
done
echo "ready $pids"
if read -r line && [ "$line" = keep ]; then
    while :; do sleep 3600 & wait $!; done
fi
"#;

/// What Linux has where nobody has said otherwise, since 6.16; a new network takes over what this machine's has.
const RECEIVE_BUFFERS: &str = "net.ipv4.tcp_rmem=4096 131072 33554432";
const SEND_BUFFERS: &str = "net.ipv4.tcp_wmem=4096 16384 4194304";

/// Set-up commands are quick; one that hangs is an error.
const SETUP_LIMIT: Duration = Duration::from_secs(10);

/// A few hosts with networks of their own, which share processes and files with each other.
#[derive(Debug)]
pub struct Lab {
    unshare: Child,
    stdin: Option<ChildStdin>,
    init: u32,
    hosts: Vec<Host>,
}

/// One host: a network namespace of a [`Lab`].
#[derive(Clone, Debug)]
pub struct Host {
    /// A process in its network namespace.
    holder: u32,
    /// The same as the lab sees it.
    inner: u32,
    init: u32,
    in_user_namespace: bool,
}

/// Whether this process would need a user namespace, being no root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why no lab can be made here, if so.
pub fn refused() -> Option<String> {
    let mut command = Command::new("unshare");
    command.args(unshare_args()).arg("true");
    match job::run(command, SETUP_LIMIT).and_then(job::Finished::success) {
        Ok(_) => None,
        Err(error) => Some(format!("{error:#}")),
    }
}

fn unshare_args() -> Vec<&'static str> {
    let mut args = vec!["--net", "--mount", "--pid", "--fork", "--kill-child"];
    if !is_root() {
        args.extend(["--user", "--map-root-user"]);
    }
    args.push("--mount-proc");
    args
}

impl Lab {
    /// A lab with `hosts` hosts, at least one, each with nothing but its loopback interface.
    pub fn new(hosts: usize) -> Result<Lab> {
        let mut unshare = Command::new("unshare")
            .args(unshare_args())
            .args(["bash", "-c", INIT])
            .env("HOSTS", hosts.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Not in the terminal's foreground group: an interrupt is for us, and we end the lab.
            .process_group(0)
            .spawn()
            .context("cannot start 'unshare' (package util-linux)")?;
        let stdin = unshare.stdin.take();
        let mut said = String::new();
        if let Some(out) = unshare.stdout.take() {
            BufReader::new(out).read_line(&mut said)?;
        }
        let mut lab = Lab { unshare, stdin, init: 0, hosts: Vec::new() };
        let Some(inner) = said.strip_prefix("ready") else {
            let mut why = String::new();
            if let Some(mut stderr) = lab.unshare.stderr.take() {
                stderr.read_to_string(&mut why)?;
            }
            bail!("cannot make network namespaces here: {}\nRoot, or user namespaces open to all, are needed", why.trim());
        };
        lab.init = *proc::children(lab.unshare.id()).first().context("the lab's init has gone")?;
        lab.find_hosts(inner)?;
        ensure!(lab.hosts.len() == hosts, "asked for {hosts} hosts, got {}", lab.hosts.len());
        for host in &lab.hosts {
            host.ip("link set lo up")?;
            host.run("sysctl", &["-q", "-w", RECEIVE_BUFFERS, SEND_BUFFERS], SETUP_LIMIT)?;
        }
        Ok(lab)
    }

    fn find_hosts(&mut self, inner: &str) -> Result<()> {
        let children: Vec<u32> = proc::children(self.init);
        let mut holders = vec![(self.init, 1)];
        for word in inner.split_whitespace() {
            let pid: u32 = word.parse().context("init printed no pid")?;
            let outer = children.iter().find(|child| proc::inner_pid(**child) == Some(pid));
            holders.push((*outer.context("a host has gone")?, pid));
        }
        let (init, in_user_namespace) = (self.init, !is_root());
        self.hosts = holders.into_iter().map(|(holder, inner)| Host { holder, inner, init, in_user_namespace }).collect();
        Ok(())
    }

    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// Joins two hosts (or one with itself) by a veth pair and brings both ends up.
    /// Offloads are as the kernel makes them: on.
    pub fn veth(&self, a: (&Host, &str), b: (&Host, &str)) -> Result<()> {
        let (name_a, name_b) = (a.1, b.1);
        ensure!(!name_a.is_empty() && !name_b.is_empty(), "an interface needs a name");
        a.0.ip(&format!("link add {name_a} type veth peer name {name_b} netns {}", b.0.inner))?;
        a.0.ip(&format!("link set {name_a} up"))?;
        b.0.ip(&format!("link set {name_b} up"))
    }

    /// Moves an interface from one host to another, where it is brought up.
    pub fn give(&self, from: &Host, name: &str, to: &Host) -> Result<()> {
        from.ip(&format!("link set {name} netns {}", to.inner))?;
        to.ip(&format!("link set {name} up"))
    }

    /// A path inside the lab, as this process can open it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init)).join(inside.trim_start_matches('/'))
    }

    /// The log file of a job of that name.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("/run/log/{name}.log"))
    }

    /// Every process of the lab except its own, as (pid here, name).
    pub fn processes(&self) -> Vec<(u32, String)> {
        let own: Vec<u32> = self.hosts.iter().map(|h| h.holder).collect();
        proc::descendants(self.init)
            .into_iter()
            .filter(|pid| !own.contains(pid))
            .filter_map(|pid| Some((pid, proc::Stat::read(pid)?.name)))
            .collect()
    }

    /// Lets the lab outlive this process. Returns the pid whose end ends the lab.
    pub fn keep(mut self) -> Result<u32> {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(b"keep\n").context("cannot tell the lab to stay")?;
        }
        Ok(self.init)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // `keep` has taken it: the lab is to stay.
        let Some(stdin) = self.stdin.take() else { return };
        drop(stdin);
        // init ends at once; if it does not, --kill-child ends it with unshare.
        if job::wait_until("lab ends", Duration::from_secs(2), || !matches!(self.unshare.try_wait(), Ok(None))).is_err() {
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
        }
    }
}

impl Host {
    /// The words that enter this host: `nsenter` and its arguments.
    pub fn enter(&self) -> Vec<String> {
        // The network is the holder's, all else is the same for all hosts of a lab.
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", self.init)];
        if self.in_user_namespace {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.extend([format!("--net=/proc/{}/ns/net", self.holder), "--mount".to_owned(), "--pid".to_owned(), "--".to_owned()]);
        words
    }

    /// `program` on this host.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let words = self.enter();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program.as_ref());
        command
    }

    /// A program of the distribution, run to its end; its exit status must be 0.
    pub fn run(&self, program: &str, args: &[&str], limit: Duration) -> Result<job::Finished> {
        let mut command = self.command(programs::require(program)?);
        command.args(args);
        job::run(command, limit)?.success()
    }

    /// `ip` with these words.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.run("ip", &words.split_whitespace().collect::<Vec<_>>(), SETUP_LIMIT).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Where the kernel refuses namespaces there is nothing to test; the end-to-end tests say so.
    fn lab(hosts: usize) -> Option<Lab> {
        match refused() {
            None => Some(Lab::new(hosts).expect("a lab")),
            Some(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    #[test]
    fn two_hosts_ping_each_other_over_a_veth_pair() {
        let Some(lab) = lab(2) else { return };
        let (a, b) = (lab.host(0).clone(), lab.host(1).clone());
        lab.veth((&a, "left"), (&b, "right")).expect("veth");
        a.ip("addr add 192.0.2.1/24 dev left").expect("address");
        b.ip("addr add 192.0.2.2/24 dev right").expect("address");
        // A TCP connection, as ping is not installed everywhere.
        let script = "exec 3<>/dev/tcp/192.0.2.2/1";
        let refused = a.run("bash", &["-c", script], SETUP_LIMIT).unwrap_err().to_string();
        assert!(refused.contains("refused"), "{refused}");
        let unknown = b.run("ip", &["link", "show", "left"], SETUP_LIMIT).unwrap_err().to_string();
        assert!(unknown.contains("does not exist"), "{unknown}");
    }

    #[test]
    fn a_dropped_lab_leaves_nothing() {
        let Some(lab) = lab(3) else { return };
        let daemon = lab.host(2).run("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo started"], SETUP_LIMIT).expect("runs");
        assert_eq!(daemon.stdout(), "started\n");
        job::wait_until("the daemon is seen", SETUP_LIMIT, || lab.processes().iter().any(|(_, name)| name == "sleep")).expect("seen");
        let pids: Vec<u32> = proc::descendants(lab.unshare.id());
        fs::write(lab.path("/run/file"), "x").expect("a file inside");
        drop(lab);
        job::wait_until("all are gone", SETUP_LIMIT, || pids.iter().all(|pid| proc::Stat::read(*pid).is_none_or(|s| s.ended())))
            .expect("gone");
        assert!(!Path::new("/run/file").exists());
    }

    #[test]
    fn orphans_are_reaped() {
        let Some(lab) = lab(1) else { return };
        lab.host(0).run("sh", &["-c", "(sleep 0.05 &) ; exit 0"], SETUP_LIMIT).expect("runs");
        job::wait_until("no zombie", SETUP_LIMIT, || proc::children(lab.init).is_empty()).expect("reaped");
    }

    #[test]
    fn a_kept_lab_stays_until_its_init_is_killed() {
        let Some(lab) = lab(2) else { return };
        let init = lab.keep().expect("kept");
        std::thread::sleep(Duration::from_millis(100));
        assert!(proc::Stat::read(init).is_some_and(|s| !s.ended()));
        job::signal(init, rustix::process::Signal::KILL);
        job::wait_until("it is gone", SETUP_LIMIT, || proc::Stat::read(init).is_none_or(|s| s.ended())).expect("gone");
    }
}
