//! The interface of a port, as far as `up` and `down` have to do with it.
//!
//! *clsact*: the qdisc of an af_packet port. The card hangs a filter there that drops the kernel's copy of each frame. A card that is killed
//! cannot remove it, so `down` does; else the interface would stay deaf.
//!
//! *TAP*: the wire of a card in QEMU. It is made by `up` if it is not there, and then removed by `down`.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// The network namespace of this process.
pub fn netns() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino())
}

/// The interface of a port `DRIVER:IFNAME[,options]`.
pub fn of_port(port: &str) -> Option<&str> {
    let name = port.split_once(':')?.1.split(',').next()?;
    (!name.is_empty()).then_some(name)
}

/// Whether there is such an interface in this network namespace.
pub fn exists(interface: &str) -> bool {
    run("ip", &["link", "show", "dev", interface]).is_ok()
}

/// Whether it is a TAP interface with several queues.
pub fn is_multi_queue(interface: &str) -> bool {
    run("ip", &["tuntap", "list", "dev", interface]).is_ok_and(|text| text.contains("multi_queue"))
}

/// Makes a TAP interface for QEMU, and brings it up. The error is a line for the operator.
pub fn make_tap(interface: &str) -> Result<(), String> {
    run("ip", &["tuntap", "add", "dev", interface, "mode", "tap", "vnet_hdr", "multi_queue"])
        .and_then(|_| run("ip", &["link", "set", "dev", interface, "up"]))
        .map(drop)
        .map_err(|e| format!("{e}; a TAP interface needs access to /dev/net/tun and CAP_NET_ADMIN"))
}

/// Removes what [`make_tap`] has made.
pub fn remove_tap(interface: &str) -> Result<(), String> {
    run("ip", &["link", "del", "dev", interface]).map(drop)
}

/// Whether the interface has a clsact qdisc; an interface that is not there has none.
pub fn has_clsact(interface: &str) -> bool {
    let shown = Command::new("tc").args(["qdisc", "show", "dev", interface]).stderr(Stdio::null()).output();
    shown.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).lines().any(|line| line.starts_with("qdisc clsact ")))
}

/// Preference of the card's filter (`toe_nic::ports::filter::PREF`).
const FILTER_PREF: &str = "63239";

/// Removes what a killed card left: the whole qdisc if there was none before, else our filter in
/// it. The error is a line for the operator.
pub fn remove(interface: &str, had_clsact: bool) -> Result<(), String> {
    if !had_clsact {
        return run("tc", &["qdisc", "del", "dev", interface, "clsact"]).map(drop);
    }
    let shown = Command::new("tc").args(["filter", "show", "dev", interface, "ingress"]).stderr(Stdio::null()).output();
    let ours = format!("pref {FILTER_PREF} ");
    match shown {
        Ok(out) if String::from_utf8_lossy(&out.stdout).contains(&ours) => {
            run("tc", &["filter", "del", "dev", interface, "ingress", "pref", FILTER_PREF]).map(drop)
        }
        _ => Ok(()),
    }
}

/// What a program of iproute2 prints.
fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let line = format!("{program} {}", words.join(" "));
    match Command::new(program).args(words).output() {
        Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(out) => Err(format!("'{line}' failed: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("cannot run '{line}' (package iproute2): {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_between_colon_and_comma() {
        assert_eq!(of_port("af_packet:eth0"), Some("eth0"));
        assert_eq!(of_port("tap:t0,mac=02:00:00:00:00:01"), Some("t0"));
        assert_eq!(of_port("eth0"), None);
        assert_eq!(of_port("tap:"), None);
        assert_eq!(of_port("tap:,x=y"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_qdisc() {
        assert!(!exists("no-such-if") && !is_multi_queue("no-such-if") && !has_clsact("no-such-if"));
        assert!(remove("no-such-if", false).unwrap_err().contains("no-such-if"));
        assert_eq!(remove("no-such-if", true), Ok(()));
        assert_ne!(netns(), 0);
    }
}
