//! `cargo xtask machine`: tests of the bare-metal image on the machine, which here is QEMU's.
//!
//! ```text
//!   image (ELF, UEFI; a72, a78) ─► QEMU: cores × exception level ─► lines "case NAME ... ok", exit code
//!   image, told to fail          ─► QEMU ─► its report, exit code
//! ```
//!
//! QEMU ends by itself, and its exit code is the verdict; it has a time limit only in case it does not. Each case is a line as
//! cargo prints it, so that the steps of `cargo xtask test` count them.

mod boots;
mod lies;
mod qemu;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::image::Image;
use crate::setup;
use boots::{Boot, Expect};

#[derive(Args, Debug)]
pub struct Options {
    /// Only boots with this word in their name (repeatable)
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Show all that the machine prints
    #[arg(long)]
    verbose: bool,
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn line(&mut self, name: &str, problem: Option<&str>) {
        match problem {
            None => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Some(problem) => {
                self.failed += 1;
                println!("test {name} ... FAILED\n{problem}");
            }
        }
    }
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::emulator()?;
    setup::rust_targets()?;
    let wanted = |boot: &Boot| options.only.is_empty() || options.only.iter().any(|word| boot.name.contains(word.as_str()));
    let boots: Vec<Boot> = boots::all().into_iter().filter(wanted).collect();
    if boots.is_empty() {
        bail!("no boot is named like that");
    }
    let mut images: Vec<Image> = Vec::new();
    for boot in &boots {
        if !images.contains(&boot.image) {
            println!("building {}", boot.image.path().display());
            boot.image.build()?;
            images.push(boot.image);
        }
    }
    let (start, mut tally) = (Instant::now(), Tally::default());
    for boot in &boots {
        one(boot, options.verbose, &mut tally);
    }
    let word = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        tally.passed,
        tally.failed,
        start.elapsed().as_secs_f64()
    );
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(boot: &Boot, verbose: bool, tally: &mut Tally) {
    let ended = match qemu::run(boot) {
        Ok(ended) => ended,
        Err(error) => return tally.line(&boot.name, Some(&format!("{error:#}"))),
    };
    if verbose {
        println!("{}\n{}: {:.1} s", ended.output, boot.name, ended.took.as_secs_f64());
    }
    match boot.expect {
        Expect::Cases(count) => {
            for (case, problem) in &ended.cases {
                tally.line(&format!("{}: {case}", boot.name), problem.as_deref());
            }
            // What it printed is worth showing only if it is not what the cases say.
            let all = ended.cases.len() == count;
            let right = all && (ended.code == 0) == ended.cases.iter().all(|(_, problem)| problem.is_none());
            let problem = || format!("{} of {count} cases, exit code {}\n{}", ended.cases.len(), ended.code, ended.output);
            tally.line(&format!("{}: runs to its end", boot.name), (!right).then(problem).as_deref());
        }
        Expect::Report { code, texts } => {
            let missing: Vec<&&str> = texts.iter().filter(|text| !ended.output.contains(**text)).collect();
            let wrong = ended.code != code || !missing.is_empty();
            let problem = || format!("exit code {} instead of {code}, not said: {missing:?}\n{}", ended.code, ended.output);
            tally.line(&boot.name, wrong.then(problem).as_deref());
        }
    }
}
