//! Network namespaces for tests: each test runs itself again inside a new one.
#![allow(dead_code, reason = "each test file uses a part")]

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Set in the process that runs inside.
const INSIDE: &str = "TOE_TEST_IN_NETNS";

/// The words in front of a program of ours that is started: what runs it on a machine of another kind (`qemu-aarch64 -L DIR`).
const RUNNER: &str = "TOE_TEST_RUNNER";

/// `program`, by way of the runner if there is one.
pub fn by_runner(program: impl AsRef<OsStr>) -> Vec<OsString> {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    runner.split_whitespace().map(OsString::from).chain([program.as_ref().to_owned()]).collect()
}

/// Runs `body` in a network namespace of its own (and a user namespace, if not root): the test executable is
/// started again there for the test `name` alone. Whatever is made inside goes with it.
pub fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", "link set lo up");
        return body();
    }
    let flags = if rustix::process::geteuid().is_root() { "-n" } else { "-Urn" };
    let status = Command::new("unshare")
        .args([flags, "--"])
        .args(by_runner(std::env::current_exe().unwrap()))
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux)");
    assert!(status.success(), "{name}, in its namespace: {status}");
}

/// Runs a program with blank-separated arguments; its output.
pub fn run(program: &str, args: &str) -> String {
    let out = Command::new(program).args(args.split(' ')).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A veth pair `card0` (for the card) and `peer0` (for the kernel), up, without IPv6 chatter.
pub fn veth() {
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    run("ip", "link add card0 address 02:00:00:00:00:0c type veth peer name peer0 address 02:00:00:00:00:0e");
    run("ip", "link set card0 up");
    run("ip", "link set peer0 up");
}

pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0e];
