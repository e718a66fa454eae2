//! Scripted packets: what TCP answers to what, in a language after packetdrill's, against engine, data path and library in virtual time.
//!
//! ```text
//!   x.pkt ─ cursor ─ parse ─► ast ─► run ─┬─ calls ──► toe::Context ┐
//!                                         ├─ frame, ip ► the port   ├ sim::ToeHost
//!                  compare, print ◄───────┴─ space ◄── the port     ┘
//! ```
//!
//! A script speaks of sequence numbers from 0 and of timestamps from where it likes; [`space`] translates. Frames are made and read by a
//! library that shares nothing with ours, so a mistake in `toe-wire` cannot hide. The language: docs/scripts.md.

pub mod ast;
mod calls;
mod compare;
mod config;
mod cursor;
mod frame;
mod ip;
mod option;
mod parse;
mod print;
mod run;
mod space;
mod watch;

pub use cursor::ParseError;
pub use parse::parse;
pub use run::{Failure, run};

use std::path::Path;

/// Reads a script and the one that it includes. `Err`: why that is not possible, with the place.
pub fn load(path: &Path) -> Result<ast::Script, String> {
    let mut script = read(path)?;
    if let Some(include) = script.include.take() {
        let included = read(&path.with_file_name(&include))?;
        if included.include.is_some() {
            return Err(format!("{}: includes {include}, which includes another", path.display()));
        }
        script.events.splice(0..0, included.events);
    }
    Ok(script)
}

fn read(path: &Path) -> Result<ast::Script, String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
    parse(&name, &text).map_err(|e| e.to_string())
}
