//! `cargo xtask dist`: the archive that an operator copies to the machine that is to run FerroTOE, a BlueField DPU for example.
//!
//! ```text
//!   cargo build --profile dist ──► programs, libraries ──(elf: for this platform? which glibc?)──┐
//!   packaging/, docs/, headers, licences ────────────────────────────────────────────────────────┴──► contents ──► archive: .tar.gz
//! ```

pub mod archive;
mod contents;
mod elf;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo::{self, root};
use crate::platform::Platform;
use archive::Archive;
use elf::GlibcVersion;

/// Cargo's profile for what is handed out: as `release`, without what debuggers alone read.
const PROFILE: &str = "dist";

#[derive(Args, Debug)]
pub struct Options {
    /// The kind of machine that it is for
    #[arg(long, value_enum, default_value_t = Platform::Aarch64)]
    target: Platform,
    /// The folder to put it into; default: target/dist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// An archive that was written.
pub struct Made {
    pub path: PathBuf,
    /// Name of the folder that all of it is in.
    pub top: String,
    contents: Archive,
    packed_len: usize,
    sha256: String,
    pub glibc: GlibcVersion,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    options.target.check()?;
    println!("building for {}", options.target.triple());
    let status = build(options.target).env_remove("CARGO_TERM_COLOR").status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    let made = make(options.target, &options.out.clone().unwrap_or_else(|| cargo::target_dir().join("dist")))?;
    print!("{}", made.report());
    Ok(ExitCode::SUCCESS)
}

/// What builds all that goes into the archive.
pub fn build(platform: Platform) -> Command {
    let mut command = platform.cargo("build");
    command.args(["--profile", PROFILE, "--lib"]);
    contents::PACKAGES.iter().for_each(|package| _ = command.args(["-p", package]));
    contents::PROGRAMS.iter().for_each(|program| _ = command.args(["--bin", program]));
    // The same bytes wherever the sources and cargo's own folder are.
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let places = [(Some(root()), "ferrotoe"), (cargo_home.map(|home| home.join("registry/src")), "crates")];
    let flags: Vec<String> =
        places.iter().filter_map(|(place, name)| Some(format!("--remap-path-prefix={}={name}", place.as_ref()?.display()))).collect();
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// Puts into `out` what [`build`] has built.
pub fn make(platform: Platform, out: &Path) -> Result<Made> {
    let version = env!("CARGO_PKG_VERSION");
    let top = format!("ferrotoe-{version}-{}-linux", platform.name());
    let (contents, glibc) = contents::collect(platform, &platform.built(PROFILE), version)?;
    let packed = contents.pack(&top, time())?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = out.join(format!("{top}.tar.gz"));
    fs::write(&path, &packed).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Made { path, top, contents, packed_len: packed.len(), sha256: archive::hash(&packed), glibc })
}

/// When the files of an archive were last changed, seconds since 1970: as reproducible-builds.org has it, else when the sources were
/// committed. Sources without a history: 0.
fn time() -> u64 {
    let asked = env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || {
        let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    asked.or_else(committed).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

impl Made {
    /// What is in it, and what to do with it.
    fn report(&self) -> String {
        let files: String = self.contents.sizes().map(|(path, len)| format!("  {len:>9}  {path}\n")).collect();
        let (major, minor) = self.glibc;
        let Made { top, path, packed_len, sha256, .. } = self;
        format!(
            "\n{top}/\n{files}\n{}\n  {packed_len} bytes, SHA-256 {sha256}\n  needs glibc {major}.{minor} or later\n\n\
             To install it, copy it to the machine; there, as root:\n\n\
             \x20   tar -C /opt -xzf {top}.tar.gz\n\
             \x20   ln -sfn {top} /opt/ferrotoe\n\
             \x20   (cd /opt/ferrotoe && sha256sum --quiet -c {})\n\n\
             /opt/ferrotoe/README.md says how to go on.\n",
            path.display(),
            archive::SUMS,
        )
    }
}
