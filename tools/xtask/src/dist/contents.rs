//! What is in the archive.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::elf::{self, GlibcVersion};
use crate::cargo::root;
use crate::platform::Platform;

/// Programs for operators; `toe-rpc` tells how fast it is there.
pub const PROGRAMS: [&str; 4] = ["toe-nic", "toed", "toectl", "toe-rpc"];
/// The C library, and the one for unmodified programs.
pub const LIBRARIES: [&str; 2] = ["libtoe.so", "libtoe_preload.so"];

/// The packages that they are built from.
pub const PACKAGES: [&str; 6] = ["toe-nic", "toed", "toectl", "toe-bench", "libtoe", "toe-preload"];

/// Files of the repository, and where they are in the archive.
const FILES: [(&str, &str); 9] = [
    ("host-lib/toe/include/toe.h", "include/toe.h"),
    ("nfp-fw/include/ferrotoe_abi.h", "include/ferrotoe_abi.h"),
    ("packaging/etc/toe-nic.conf", "etc/toe-nic.conf"),
    ("packaging/etc/toed.toml", "etc/toed.toml"),
    ("packaging/systemd/toe-nic.service", "systemd/toe-nic.service"),
    ("packaging/systemd/toed.service", "systemd/toed.service"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
];

/// Pages of the documentation that are for who works on FerroTOE, not for who runs it.
const NOT_FOR_OPERATORS: [&str; 2] = ["plan.md", "testing.md"];

/// Reads all of it; `built` is cargo's folder.
pub fn collect(platform: Platform, built: &Path, version: &str) -> Result<(Archive, GlibcVersion)> {
    let mut archive = Archive::default();
    let mut glibc = GlibcVersion::default();
    let mut checked = |name: &str| -> Result<Vec<u8>> {
        let bytes = read(&built.join(name))?;
        glibc = glibc.max(elf::check(&bytes, platform).with_context(|| name.to_owned())?);
        Ok(bytes)
    };
    for name in PROGRAMS {
        archive.program(format!("bin/{name}"), checked(name)?);
    }
    for name in LIBRARIES {
        archive.program(format!("lib/{name}"), checked(name)?);
    }
    for (from, to) in FILES {
        archive.data(to, read(&root().join(from))?);
    }
    for (name, bytes) in pages()? {
        archive.data(format!("docs/{name}"), bytes);
    }
    let read_me = fs::read_to_string(root().join("packaging/README.md")).context("packaging/README.md")?;
    archive.data("README.md", filled(&read_me, version, platform, glibc));
    archive.seal();
    Ok((archive, glibc))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(root().join("docs")).context("cannot read docs")?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let wanted = names.filter(|name| name.ends_with(".md") && !NOT_FOR_OPERATORS.contains(&name.as_str()));
    wanted.map(|name| Ok((name.clone(), read(&root().join("docs").join(name))?))).collect()
}

/// Puts in what the text leaves open.
fn filled(text: &str, version: &str, platform: Platform, (major, minor): GlibcVersion) -> String {
    text.replace("{version}", version).replace("{arch}", platform.name()).replace("{glibc}", &format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_the_repository_are_there() {
        for (from, to) in FILES {
            assert!(root().join(from).is_file(), "{from}, for {to}");
        }
        let pages: Vec<String> = pages().expect("docs").into_iter().map(|(name, _)| name).collect();
        assert!(pages.contains(&"operating.md".to_owned()) && pages.contains(&"bluefield.md".to_owned()), "{pages:?}");
        assert!(NOT_FOR_OPERATORS.iter().all(|name| root().join("docs").join(name).is_file() && !pages.contains(&(*name).to_owned())));
    }

    #[test]
    fn nothing_in_the_read_me_stays_open() {
        let text = fs::read_to_string(root().join("packaging/README.md")).expect("there");
        assert!(text.contains("{version}"), "it is a draft");
        let text = filled(&text, "9.8", Platform::Aarch64, (2, 34));
        assert!(text.contains("ferrotoe-9.8-aarch64-linux") && text.contains("glibc 2.34") && !text.contains('{'), "{text}");
    }
}
