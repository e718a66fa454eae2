//! QEMU's monitor (QMP): one JSON object a line each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::WIRE;

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Events that may come before an answer.
const EVENTS_MAX: usize = 1000;

/// A connection to the monitor of a running machine.
#[derive(Debug)]
pub struct Monitor {
    socket: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to where [`Machine::monitor`](super::Machine::monitor) says.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).with_context(|| format!("QEMU's monitor at {}", path.display()))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut this = Self { socket: BufReader::new(socket) };
        this.read().context("QEMU's greeting")?;
        this.execute("qmp_capabilities", &json!({}))?;
        Ok(this)
    }

    /// Pulls the plug of the machine's wire, or puts it in.
    pub fn set_link(&mut self, is_up: bool) -> Result<()> {
        self.execute("set_link", &json!({ "name": WIRE, "up": is_up }))
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        writeln!(self.socket.get_mut(), "{line}").with_context(|| format!("asking QEMU for {command}"))?;
        for _ in 0..EVENTS_MAX {
            let answer = self.read().with_context(|| format!("QEMU's answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {line}: {error}");
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
        bail!("QEMU does not answer {command}")
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.socket.read_line(&mut line)? == 0 {
            bail!("it has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
