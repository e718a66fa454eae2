//! The clsact qdisc of an af_packet port: the card hangs a filter there that drops the kernel's
//! copy of each frame. A card that is killed cannot remove it, so `down` does; else the
//! interface would stay deaf.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// The network namespace of this process.
pub fn netns() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino())
}

/// The interface of a port `DRIVER:IFNAME[,options]`.
pub fn interface(port: &str) -> Option<&str> {
    let name = port.split_once(':')?.1.split(',').next()?;
    (!name.is_empty()).then_some(name)
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
        return tc(&["qdisc", "del", "dev", interface, "clsact"]);
    }
    let shown = Command::new("tc").args(["filter", "show", "dev", interface, "ingress"]).stderr(Stdio::null()).output();
    let ours = format!("pref {FILTER_PREF} ");
    match shown {
        Ok(out) if String::from_utf8_lossy(&out.stdout).contains(&ours) => {
            tc(&["filter", "del", "dev", interface, "ingress", "pref", FILTER_PREF])
        }
        _ => Ok(()),
    }
}

fn tc(words: &[&str]) -> Result<(), String> {
    let line = format!("tc {}", words.join(" "));
    match Command::new("tc").args(words).output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!("'{line}' failed: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("cannot run '{line}' (package iproute2): {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_between_colon_and_comma() {
        assert_eq!(interface("af_packet:eth0"), Some("eth0"));
        assert_eq!(interface("tap:t0,mac=02:00:00:00:00:01"), Some("t0"));
        assert_eq!(interface("eth0"), None);
        assert_eq!(interface("tap:"), None);
        assert_eq!(interface("tap:,x=y"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_qdisc() {
        assert!(!has_clsact("no-such-if"));
        assert!(remove("no-such-if", false).unwrap_err().contains("no-such-if"));
        assert_eq!(remove("no-such-if", true), Ok(()));
        assert_ne!(netns(), 0);
    }
}
