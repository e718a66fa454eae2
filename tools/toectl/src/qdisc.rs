//! The clsact qdisc of an af_packet port: the card hangs a filter there that drops the kernel's
//! copy of each frame. A card that is killed cannot remove it, so `down` does, if it was not
//! there before. Without it the interface would stay deaf.

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

/// Removes it with its filters. The error is a line for the operator.
pub fn remove_clsact(interface: &str) -> Result<(), String> {
    let line = format!("tc qdisc del dev {interface} clsact");
    match Command::new("tc").args(["qdisc", "del", "dev", interface, "clsact"]).output() {
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
        assert!(remove_clsact("no-such-if").unwrap_err().contains("no-such-if"));
        assert_ne!(netns(), 0);
    }
}
