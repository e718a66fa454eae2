//! All of it at work: bytes of a Linux peer through card, daemon and library and back, as they come out of the archive.
//!
//! ```text
//!   python3 ── kernel ── TAP toe0 ── toe-nic ══ toed            one host of a lab
//!                                       ╚═ libtoe_preload.so ── a C program that sends back what it receives
//! ```
//!
//! A TAP interface, as emulation has no packet sockets.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use toe_lab::job::{self, Job};
use toe_lab::namespaces::Host;
use toe_lab::{Lab, programs};

use super::ARM;

/// To start, under emulation on a busy machine.
const READY: Duration = Duration::from_secs(60);
const TRANSFER: Duration = Duration::from_secs(120);

/// Run-time folder inside the lab.
const RUN: &str = "/run/toe";

const ECHO: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed(const char *what)
{
    perror(what);
    return 1;
}

int main(void)
{
    static char bytes[65536];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = inet_addr("10.77.0.2")};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1))
        return failed("listen");
    puts("listening");
    fflush(stdout);
    int peer = accept(listener, NULL, NULL);
    for (ssize_t got; (got = read(peer, bytes, sizeof bytes)) != 0;) {
        if (got < 0)
            return failed("read");
        for (ssize_t put, done = 0; done < got; done += put)
            if ((put = write(peer, bytes + done, got - done)) < 0)
                return failed("write");
    }
    return close(peer);
}
"#;

const PEER: &str = r#"
import os, socket, threading
data = os.urandom(4 << 20)
peer = socket.create_connection(("10.77.0.2", 7), 60)
def send():
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
back = bytearray()
while part := peer.recv(65536):
    back += part
print(len(back), back == data)
"#;

/// Sends 4 MiB there and back.
pub fn echo(there: &Path) -> Result<()> {
    let source = there.join("echo.c");
    fs::write(&source, ECHO)?;
    let mut compile = Command::new(ARM.compiler());
    compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).args([&there.join("bin/echo"), &source]);
    job::run(compile, READY)?.success()?;

    let lab = Lab::new(1)?;
    let host = lab.host(0);
    host.run("mkdir", &[RUN], READY)?;
    let start = |name: &str, command: Command| Job::start(name, command, &lab.log_path(name));
    let mut card = start("card", program(host, there, "toe-nic", "--socket /run/toe/card.sock --port tap:toe0"))?;
    card.wait_ready(READY, || lab.path("/run/toe/card.sock").exists())?;
    host.ip("addr add 10.77.0.1/24 dev toe0")?;
    host.ip("link set toe0 up")?;
    let words = "--device vfio-user:/run/toe/card.sock --ip-addr 10.77.0.2/24 --run-dir /run/toe";
    let mut daemon = start("toed", program(host, there, "toed", words))?;
    daemon.wait_ready(READY, || lab.path("/run/toe/admin.sock").exists())?;

    let mut server = start("echo", on_the_card(host, there, "echo"))?;
    server.wait_ready(READY, || fs::read_to_string(lab.log_path("echo")).is_ok_and(|log| log.contains("listening")))?;
    let mut peer = host.command(programs::require("python3")?);
    peer.args(["-c", PEER]);
    let done = job::run(peer, TRANSFER)?.success()?;
    ensure!(done.stdout() == "4194304 True\n", "came back: {}", done.stdout());
    let status = server.wait(READY)?;
    ensure!(status.success(), "{status}: {}", server.log_tail(10));
    let stats = job::run(program(host, there, "toectl", "stats --json"), READY)?.success()?;
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout)?;
    ensure!(stats["rx_payload_bytes"].as_u64() == Some(4 << 20), "the card has seen something else: {stats}");
    Ok(())
}

/// A program of the archive on a host, with blank-separated arguments.
fn program(host: &Host, there: &Path, name: &str, words: &str) -> Command {
    let mut command = host.command("env");
    command.arg(format!("TOE_RUN_DIR={RUN}")).args(ARM.emulator()).arg(there.join("bin").join(name)).args(words.split_whitespace());
    command
}

/// The same with its sockets on the card. What toectl starts would be a program of this machine, and not one for Arm.
fn on_the_card(host: &Host, there: &Path, name: &str) -> Command {
    let variables =
        [format!("LD_PRELOAD={}", there.join("lib/libtoe_preload.so").display()), format!("TOE_RUN_DIR={RUN}"), "TOE_REQUIRE=1".into()];
    let mut command = host.command("env");
    if ARM.is_here() {
        command.args(&variables);
    } else {
        // For the program, not for QEMU itself.
        command.arg(format!("QEMU_SET_ENV={}", variables.join(",")));
    }
    command.args(ARM.emulator()).arg(there.join("bin").join(name));
    command
}
