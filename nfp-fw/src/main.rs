//! Writes or checks `include/ferrotoe_abi.h`.
#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use clap::Parser;
use toe_nfp_header::{header, header_path};

/// The C header of FerroTOE's ABI. Without an option it is printed.
#[derive(Parser)]
struct Args {
    /// Fail if the committed header is not what the generator gives.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Write the header.
    #[arg(long)]
    write: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (text, path) = (header(), header_path());
    if args.write {
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    } else if args.check {
        let committed = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if committed != text {
            bail!("{} is out of date: run `cargo run -p toe-nfp-header -- --write`", path.display());
        }
    } else {
        print!("{text}");
    }
    Ok(())
}
