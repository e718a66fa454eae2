//! The firmware's ELF file: it has the words of the messages; the card writes only their numbers and values.

use std::path::{Path, PathBuf};

use anyhow::Result;
use defmt_decoder::{Encoding, Table};
use object::Object;

use crate::errors::environment;

pub struct Image {
    path: PathBuf,
    /// Hexadecimal; empty: it has none.
    build: String,
    pub table: Table,
}

impl Image {
    /// Reads a file. Every error is one that the operator can mend: it is another file that is needed.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: &str| environment(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| bad(&format!("cannot be read: {error}")))?;
        let elf = object::File::parse(bytes.as_slice()).map_err(|error| bad(&format!("is not an ELF file: {error}")))?;
        let id = elf.build_id().ok().flatten().unwrap_or_default();
        let build = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let table = Table::parse(&bytes).map_err(|error| bad(&format!("its messages cannot be read: {error:#}")))?;
        let table = table.ok_or_else(|| bad("has no messages in it (defmt data); the card's firmware is needed, and not stripped"))?;
        if table.encoding() != Encoding::Rzcobs {
            return Err(bad("its messages are encoded in another way (rzCOBS is expected)"));
        }
        Ok(Self { path: path.to_owned(), build, table })
    }

    /// Whether it is the build that the card runs; of another, messages would be mixed up.
    pub fn check(&self, card: &str) -> Result<()> {
        match (card, self.build.as_str()) {
            ("", _) => {
                eprintln!("toectl: the card does not say which build it is; if messages make no sense, {} is another", self.path.display());
                Ok(())
            }
            (card, ours) if card == ours => Ok(()),
            (card, ours) => Err(environment(format!(
                "{} is another build ({}) than the card's firmware ({card}): name the file that the card was started with",
                self.path.display(),
                if ours.is_empty() { "it does not say which" } else { ours },
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, BUILD};
    use super::*;

    fn error(path: &Path) -> String {
        Image::open(path).err().expect("refused").to_string()
    }

    #[test]
    fn what_is_no_firmware_is_refused_with_the_reason() {
        assert!(error(Path::new("/nonexistent/toe-virt")).contains("cannot be read"));
        assert!(error(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).contains("not an ELF file"));
        // A program of Linux: this test.
        assert!(error(&std::env::current_exe().expect("a path")).contains("no messages in it"));
    }

    #[test]
    fn another_build_is_refused() {
        let image = testing::image("build");
        assert!(image.check(BUILD).is_ok() && image.check("").is_ok());
        let error = image.check("00ff").unwrap_err().to_string();
        assert!(error.contains("another build") && error.contains("00ff") && error.contains(BUILD), "{error}");
    }
}
