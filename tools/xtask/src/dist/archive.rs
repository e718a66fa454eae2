//! Archives that depend on nothing but what is in them: sorted, owned by nobody in particular, of one time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The file that says what the others hash to, as sha256sum(1) writes and reads it.
pub const SUMS: &str = "SHA256SUMS";

const PROGRAM: u32 = 0o755;
const DATA: u32 = 0o644;

struct File {
    mode: u32,
    bytes: Vec<u8>,
}

/// Files by path, below one folder.
#[derive(Default)]
pub struct Archive {
    files: BTreeMap<String, File>,
}

impl Archive {
    pub fn program(&mut self, path: impl Into<String>, bytes: Vec<u8>) {
        self.files.insert(path.into(), File { mode: PROGRAM, bytes });
    }

    pub fn data(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), File { mode: DATA, bytes: bytes.into() });
    }

    /// Paths and sizes, bytes.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file.bytes.len()))
    }

    /// Adds [`SUMS`] of what there is.
    pub fn seal(&mut self) {
        let sums = self.files.iter().fold(String::new(), |mut sums, (path, file)| {
            let _ = writeln!(sums, "{}  {path}", hash(&file.bytes));
            sums
        });
        self.data(SUMS, sums);
    }

    /// As a compressed tar archive: all of it below the folder `top`, last changed at `time` (seconds since 1970).
    pub fn pack(&self, top: &str, time: u64) -> Result<Vec<u8>> {
        // No time and no name in gzip's own header.
        let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
        for folder in self.folders(top) {
            tar.append_data(&mut header(EntryType::Directory, PROGRAM, 0, time), folder, &[][..])?;
        }
        for (path, file) in &self.files {
            let mut header = header(EntryType::Regular, file.mode, file.bytes.len() as u64, time);
            tar.append_data(&mut header, format!("{top}/{path}"), file.bytes.as_slice()).with_context(|| path.clone())?;
        }
        let mut packed = tar.into_inner()?;
        packed.flush()?;
        Ok(packed.finish()?)
    }

    /// Every folder, before what is in it.
    fn folders(&self, top: &str) -> BTreeSet<String> {
        let paths = self.files.keys().map(|path| format!("{top}/{path}"));
        paths
            .flat_map(|path| Path::new(&path).ancestors().skip(1).map(|dir| format!("{}/", dir.display())).collect::<Vec<_>>())
            .filter(|dir| dir != "/")
            .collect()
    }
}

fn header(kind: EntryType, mode: u32, size: u64, time: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    fn small() -> Archive {
        let mut archive = Archive::default();
        archive.data("lib/b.so", vec![7; 3000]);
        archive.program("bin/z", b"program".to_vec());
        archive.data("README", "read me");
        archive
    }

    fn unpacked(bytes: &[u8]) -> Vec<(String, u32, u64, u64, Vec<u8>)> {
        let mut tar = tar::Archive::new(GzDecoder::new(bytes));
        tar.entries()
            .expect("entries")
            .map(|entry| {
                let mut entry = entry.expect("entry");
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).expect("bytes");
                let (header, path) = (entry.header(), entry.path().expect("path").display().to_string());
                let owner = header.uid().expect("uid") + header.gid().expect("gid");
                (path, header.mode().expect("mode"), owner, header.mtime().expect("time"), bytes)
            })
            .collect()
    }

    #[test]
    fn entries_are_sorted_and_of_one_owner_and_time() {
        let entries = unpacked(&small().pack("top", 1_234_567).expect("packed"));
        let listed: Vec<_> = entries.iter().map(|(path, mode, ..)| (path.as_str(), *mode)).collect();
        let expected = [
            ("top/", 0o755),
            ("top/bin/", 0o755),
            ("top/lib/", 0o755),
            ("top/README", 0o644),
            ("top/bin/z", 0o755),
            ("top/lib/b.so", 0o644),
        ];
        assert_eq!(listed, expected);
        assert!(entries.iter().all(|(_, _, owner, time, _)| (*owner, *time) == (0, 1_234_567)));
        assert_eq!(entries[4].4, b"program");
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let mut again = Archive::default();
        again.data("README", "read me");
        again.program("bin/z", b"program".to_vec());
        again.data("lib/b.so", vec![7; 3000]);
        assert!(small().pack("top", 5).expect("packed") == again.pack("top", 5).expect("packed"));
        again.data("README", "read me!");
        assert!(small().pack("top", 5).expect("packed") != again.pack("top", 5).expect("packed"));
    }

    #[test]
    fn sums_are_as_sha256sum_has_them() {
        let mut archive = small();
        archive.seal();
        let sums = String::from_utf8(archive.files[SUMS].bytes.clone()).expect("text");
        assert_eq!(sums.lines().count(), 3);
        assert!(sums.starts_with(&format!("{}  README\n", hash(b"read me"))), "{sums}");
        // FIPS 180-2, B.1.
        assert_eq!(hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
