//! What `/proc` tells about processes: who is whose child, when it started, what it has used.
//!
//! A process that ends while it is being looked at is not an error; it is simply not there.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The fields of `/proc/PID/stat` that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: u32,
    pub name: String,
    /// One letter as in proc(5); `Z` is a process that has ended and waits for its parent.
    pub state: char,
    pub parent: u32,
    /// User and system time used so far, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started, in clock ticks since boot: with the pid it names a process for good.
    pub start_ticks: u64,
}

impl Stat {
    pub fn read(pid: u32) -> Option<Stat> {
        Self::read_in(Path::new("/proc"), pid)
    }

    /// As seen by another `/proc`, such as that of a pid namespace.
    pub fn read_in(proc_dir: &Path, pid: u32) -> Option<Stat> {
        parse_stat(&fs::read_to_string(proc_dir.join(pid.to_string()).join("stat")).ok()?)
    }

    /// Whether it has ended, though its parent may not have noticed.
    pub fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The name is in brackets and may contain anything, brackets and spaces too.
fn parse_stat(text: &str) -> Option<Stat> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let pid = text[..open].trim().parse().ok()?;
    let name = text.get(open + 1..close)?.to_owned();
    let rest: Vec<&str> = text[close + 1..].split_whitespace().collect();
    let number = |field: usize| rest.get(field)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        name,
        state: rest.first()?.chars().next()?,
        parent: u32::try_from(number(1)?).ok()?,
        cpu_ticks: number(11)?.checked_add(number(12)?)?,
        start_ticks: number(19)?,
    })
}

/// Every process that `proc_dir` shows.
pub fn all_in(proc_dir: &Path) -> Vec<Stat> {
    let Ok(entries) = fs::read_dir(proc_dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(|pid| Stat::read_in(proc_dir, pid)).collect()
}

/// Children of `pid`, in order of their pids.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = all_in(Path::new("/proc")).into_iter().filter(|s| s.parent == pid).map(|s| s.pid).collect();
    found.sort_unstable();
    found
}

/// Children of `pid`, their children, and so on; parents before their children.
pub fn descendants(pid: u32) -> Vec<u32> {
    let everybody = all_in(Path::new("/proc"));
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(everybody.iter().filter(|s| s.parent == parent && !s.ended()).map(|s| s.pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// The pid that a process has in its own (innermost) pid namespace.
pub fn inner_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Clock ticks that each of `pids` uses within `time`: the first look at which none uses more than `most`, or the last of five. What else happens
/// on a machine comes and goes, a loop that never sleeps does not.
pub fn ticks_used(pids: &[u32], time: Duration, most: u64) -> Vec<u64> {
    let ticks = || pids.iter().map(|pid| Stat::read(*pid).map_or(0, |stat| stat.cpu_ticks));
    let mut used = Vec::new();
    for _ in 0..5 {
        let before: Vec<u64> = ticks().collect();
        thread::sleep(time);
        used = ticks().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
        if used.iter().all(|used| *used <= most) {
            break;
        }
    }
    used
}

/// Clock ticks per second, the unit of `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_brackets_and_spaces() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 11 22 0 0 20 0 1 0 9876 1000 5 18446744073709551615\n";
        let stat = parse_stat(text).expect("parses");
        assert_eq!(stat.name, "a) b (c");
        assert_eq!((stat.pid, stat.state, stat.parent), (42, 'S', 7));
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (33, 9876));
    }

    #[test]
    fn half_a_line_is_no_process() {
        for text in ["", "42", "42 (x", "42 (x)", "42 (x) S 1 2", ") 42 ("] {
            assert_eq!(parse_stat(text), None, "{text:?}");
        }
    }

    #[test]
    fn finds_itself_and_its_child() {
        let me = std::process::id();
        let stat = Stat::read(me).expect("we exist");
        assert!(stat.start_ticks > 0 && !stat.ended());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        assert!(children(me).contains(&child.id()));
        assert!(descendants(stat.parent).contains(&child.id()));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!children(me).contains(&child.id()));
    }
}
