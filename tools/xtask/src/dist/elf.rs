//! What a program or library for Linux asks of the machine that it is to run on.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};

use crate::platform::Platform;

/// A version of glibc, as in `GLIBC_2.34`.
pub type GlibcVersion = (u32, u32);

/// Checks that `bytes` is a program or library for `platform`, whatever its pages are; tells which glibc it needs at least.
pub fn check(bytes: &[u8], platform: Platform) -> Result<GlibcVersion> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(bytes).context("no 64-bit ELF file")?;
    let endian = file.endian();
    let machine = file.elf_header().e_machine(endian);
    ensure!(machine == platform.elf_machine(), "built for machine number {machine}, not for {}", platform.name());
    for segment in file.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD) {
        let align = segment.p_align(endian);
        ensure!(align >= platform.page_max(), "aligned to {align}: it can't be loaded where pages have {} bytes", platform.page_max());
    }
    Ok(versions(&file, bytes)?.iter().filter_map(|name| glibc(name)).max().unwrap_or_default())
}

/// The versions of symbols that it needs of other libraries.
fn versions(file: &ElfFile<'_, FileHeader64<Endianness>>, bytes: &[u8]) -> Result<BTreeSet<String>> {
    let endian = file.endian();
    let mut names = BTreeSet::new();
    let Some((mut needs, link)) = file.elf_section_table().gnu_verneed(endian, bytes)? else { return Ok(names) };
    let strings = file.elf_section_table().strings(endian, bytes, link)?;
    while let Some((_, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            names.insert(String::from_utf8_lossy(version.name(endian, strings)?).into_owned());
        }
    }
    Ok(names)
}

/// `GLIBC_2.34`; a third number (`GLIBC_2.2.5`) says no more than the second.
fn glibc(name: &str) -> Option<GlibcVersion> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn versions_are_read() {
        assert_eq!(glibc("GLIBC_2.34"), Some((2, 34)));
        assert_eq!(glibc("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!(glibc("GCC_3.0"), None);
        assert_eq!(glibc("GLIBC_PRIVATE"), None);
    }

    #[test]
    fn this_program_is_for_this_machine_and_no_other() {
        let own = std::fs::read("/proc/self/exe").expect("we exist");
        for platform in Platform::value_variants() {
            match check(&own, *platform) {
                Ok(glibc) => assert!(platform.is_here() && glibc >= (2, 2), "{glibc:?}"),
                Err(error) => assert!(!platform.is_here() && error.to_string().contains(platform.name()), "{error}"),
            }
        }
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(check(b"#!/bin/sh\n", Platform::Aarch64).is_err());
        assert!(check(b"", Platform::Aarch64).is_err());
    }
}
