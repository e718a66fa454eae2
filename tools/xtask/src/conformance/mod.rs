//! `cargo xtask conformance`: which requirements of which RFC are obeyed, where, and how that is tested.
//!
//! ```text
//!   docs/conformance/rfcN.toml ─► rows ──────┐
//!                                            ├─► coverage ─┬─► table
//!   comments `RFC N ID` in code and tests ───┘             └─► problems: exit status 1
//! ```
//!
//! A row is *covered* by at least one citation in code and one in a test; else it must say why not. docs/conformance/README.md.

mod citations;
mod coverage;
mod rows;
mod table;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo;
use coverage::Coverage;
use table::View;

#[derive(Args, Debug)]
pub struct Options {
    /// Only these RFCs, each row with its citations (repeatable)
    #[arg(long, value_name = "NUMBER")]
    rfc: Vec<u32>,
    /// What is still to be built, and why
    #[arg(long)]
    open: bool,
    /// How tables are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    Text,
    Markdown,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let root = cargo::root();
    let coverage = Coverage::new(rows::load(&root.join("docs/conformance"))?, citations::scan(&root)?);
    if let Some(unknown) = options.rfc.iter().find(|n| coverage.specs.iter().all(|spec| spec.number != **n)) {
        bail!("no rows of RFC {unknown}: see docs/conformance");
    }
    let view = match (options.rfc.as_slice(), options.open) {
        (only, true) => View::Open(only),
        ([], false) => View::Summary,
        (only, false) => View::Rows(only),
    };
    print!("{}", table::write(&coverage, &view, options.format));
    let problems = coverage.problems();
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{} problems:", problems.len());
    problems.iter().for_each(|problem| println!("  {problem}"));
    Ok(ExitCode::FAILURE)
}
