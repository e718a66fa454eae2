//! `toectl logs`: what the card has to say.
//!
//! ```text
//!   card without an operating system:  toed ──bytes──► Decoder ◄── Image (ELF: the strings)      lines
//!   card that is a process:            files: toe-nic.log, toed.log, their last lines
//! ```

mod decode;
mod files;
mod image;
#[cfg(test)]
mod testing;

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use toed::admin::{Logs, Request};

use crate::cli;
use crate::errors::environment;
use crate::run_dir::RunDir;
use crate::show::{ask, print};
use decode::Decoder;
use image::Image;

/// Between two looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub fn logs(dir: &RunDir, options: &cli::Logs) -> Result<()> {
    let first: Option<Logs> = match ask(dir, Request::Logs { instance: 0, from: 0 }) {
        Ok(answer) => answer,
        // What it has left behind may say why.
        Err(error) if files::are_there(dir) => {
            eprintln!("toectl: {error:#}; these are the files that it has left");
            return files::show(dir, false);
        }
        Err(error) => return Err(error),
    };
    let Some(mut part) = first else { return files::show(dir, options.follow) };
    let mut image = open(&part, options.elf.as_deref())?;
    'card: loop {
        image.check(&part.build)?;
        let mut decoder = Decoder::new(&image);
        loop {
            print(&decoder.feed(&part))?;
            if !options.follow {
                return Ok(());
            }
            sleep(LOOK_EVERY);
            let instance = part.instance;
            part = ask(dir, Request::Logs { instance, from: part.next })?;
            if part.instance != instance {
                print("... the card was started anew\n")?;
                drop(decoder);
                image = open(&part, options.elf.as_deref())?;
                continue 'card;
            }
        }
    }
}

/// The file that has the card's strings: the one asked for, or the one that toed was told of.
fn open(part: &Logs, asked: Option<&Path>) -> Result<Image> {
    let path = asked.or(part.image.as_deref().map(Path::new)).ok_or_else(|| {
        environment(
            "the card's messages can only be read with the ELF file of its firmware, which has their words: \
             name it with --elf FILE, or once and for all with toed's --image FILE",
        )
    })?;
    Image::open(path)
}
