//! Logs of a card that is a process: files in the run-time folder, as `toectl up` has made them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread::sleep;

use anyhow::{Context, Result};

use super::LOOK_EVERY;
use crate::errors::environment;
use crate::run_dir::RunDir;
use crate::show::print;

const NAMES: [&str; 4] = ["toe-nic.log", "toe-window.log", "qemu.log", "toed.log"];
/// Lines of each that are shown.
const LINES: usize = 20;
/// More than that of a file is not looked at for its last lines, bytes.
const END: u64 = 64 << 10;

pub fn are_there(dir: &RunDir) -> bool {
    NAMES.iter().any(|name| dir.file(name).exists())
}

/// Shows the last lines of each, and what is added if `follow`.
pub fn show(dir: &RunDir, follow: bool) -> Result<()> {
    if !are_there(dir) {
        let path = dir.path().display();
        return Err(environment(format!(
            "no logs in {path}: this card was not started by 'toectl up', its logs are where its standard error goes"
        )));
    }
    let paths = NAMES.iter().map(|name| dir.file(name)).filter(|path| path.exists());
    let mut tails: Vec<Tail> = paths.map(|path| Tail { path, at: 0 }).collect();
    for tail in &mut tails {
        let text = tail.begin()?;
        print(&format!("==> {} <==\n{text}\n", tail.path.display()))?;
    }
    if !follow {
        return Ok(());
    }
    let mut shown = tails.len() - 1;
    loop {
        sleep(LOOK_EVERY);
        for (i, tail) in tails.iter_mut().enumerate() {
            let text = tail.more()?;
            if !text.is_empty() {
                let head = if i == shown { String::new() } else { format!("\n==> {} <==\n", tail.path.display()) };
                shown = i;
                print(&(head + &text))?;
            }
        }
    }
}

/// A file, and how far it was read.
struct Tail {
    path: PathBuf,
    at: u64,
}

impl Tail {
    /// Its last lines; nothing of a file that is not there.
    fn begin(&mut self) -> Result<String> {
        let len = fs::metadata(&self.path).map_or(0, |file| file.len());
        self.at = len.saturating_sub(END);
        let text = self.more()?;
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    /// What was added since. From its beginning, if it has become shorter.
    fn more(&mut self) -> Result<String> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(String::new()) };
        let name = || self.path.display().to_string();
        if file.metadata().with_context(name)?.len() < self.at {
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at)).with_context(name)?;
        let mut bytes = Vec::new();
        self.at += file.take(END).read_to_end(&mut bytes).with_context(name)? as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_then_what_is_added() {
        let path = std::env::temp_dir().join(format!("toectl-tail-{}", std::process::id()));
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.join("\n") + "\n").expect("written");
        let mut tail = Tail { path: path.clone(), at: 0 };
        assert_eq!(tail.begin().expect("read"), lines[30..].join("\n"));
        assert_eq!(tail.more().expect("read"), "");
        fs::write(&path, lines.join("\n") + "\nmore\n").expect("written");
        assert_eq!(tail.more().expect("read"), "more\n");
        fs::write(&path, "anew\n").expect("written");
        assert_eq!(tail.more().expect("read"), "anew\n");
        fs::remove_file(&path).expect("removed");
        assert_eq!((tail.more().expect("nothing"), tail.begin().expect("nothing")), (String::new(), String::new()));
    }
}
