//! Citations: words of the form `RFC 793 3.3-1` in the sources. (Prose says `RFC 793, 3.3`, with a comma, and cites nothing.)

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where requirements are obeyed and tested.
const FOLDERS: [&str; 5] = ["nic-fw", "nfp-fw", "host-ctrl", "host-lib", "tests"];
/// Sources, and scripts of packets.
const ENDINGS: [&str; 5] = ["rs", "c", "h", "py", "pkt"];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Citation {
    pub rfc: u32,
    pub id: String,
    /// `path:line` from the root.
    pub place: String,
    pub kind: Kind,
}

impl Citation {
    /// Whether it stands in a script of packets.
    pub fn is_in_script(&self) -> bool {
        self.place.rsplit_once(':').is_some_and(|(path, _line)| path.ends_with(".pkt"))
    }
}

/// What cites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Code,
    Test,
    /// A script that is expected to fail: it shows what is not obeyed.
    Gap,
}

/// A line of a script of packets that says so.
const EXPECT_FAIL: &str = "#! expect-fail";

/// All citations below `root`, by path and line.
pub fn scan(root: &Path) -> Result<Vec<Citation>> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        walk(root, &root.join(folder), &mut found)?;
    }
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Citation>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_symlink()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(root, &path, found)?;
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| ENDINGS.contains(&e)) {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            read(&name, &text, found);
        }
    }
    Ok(())
}

/// Whether all of a file is there for tests only.
fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("tests.rs") || name.ends_with(".pkt")
}

fn read(name: &str, text: &str, found: &mut Vec<Citation>) {
    let mut kind = match is_test_file(name) {
        true if text.lines().any(|line| line.starts_with(EXPECT_FAIL)) => Kind::Gap,
        true => Kind::Test,
        false => Kind::Code,
    };
    let mut attribute = false;
    for (i, line) in text.lines().enumerate() {
        // A module of tests is the last thing in a file.
        if attribute && line.starts_with("mod ") && line.ends_with('{') {
            kind = Kind::Test;
        }
        attribute = line == "#[cfg(test)]";
        for (rfc, id) in in_line(line) {
            found.push(Citation { rfc, id: id.to_owned(), place: format!("{name}:{}", i + 1), kind });
        }
    }
}

/// `RFC 9293 MUST-2, MUST-3 and 3.4-1` cites three.
fn in_line(line: &str) -> Vec<(u32, &str)> {
    let mut found = Vec::new();
    for piece in line.split("RFC ").skip(1) {
        let mut words = piece.split([' ', ',', ';', ':', ')', '(', '"', '/']).filter(|word| !word.is_empty());
        let Some(rfc) = words.next().and_then(|word| word.parse().ok()) else { continue };
        // Behind the number follows a space, not the comma of prose.
        if !piece.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(' ') {
            continue;
        }
        let ids = words.map(|word| word.trim_end_matches('.')).filter(|word| *word != "and");
        found.extend(ids.map_while(|word| is_id(word).then_some((rfc, word))));
    }
    found
}

/// `MUST-23`, `3.10.7.4-5`, `B.2-1`.
pub fn is_id(word: &str) -> bool {
    let Some((name, number)) = word.rsplit_once('-') else { return false };
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.');
    plain && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_and_prose_are_told_apart() {
        for (line, want) in [
            ("// RFC 9293 MUST-23: at least 3 minutes.", vec![(9293, "MUST-23")]),
            ("// RFC 9293 MUST-2, MUST-3 and 3.4-1. More.", vec![(9293, "MUST-2"), (9293, "MUST-3"), (9293, "3.4-1")]),
            ("/// (RFC 7323 2.2-1; RFC 2018 4-3)", vec![(7323, "2.2-1"), (2018, "4-3")]),
            ("assert!(ok, \"RFC 5961 3.2-1\");", vec![(5961, "3.2-1")]),
            ("// RFC 9293, 3.10.7.4, first; RFC 5961, MUST-1", vec![]),
            ("// RFC 9293 says MUST-1", vec![]),
            ("// RFC 1071 and RFC 896", vec![]),
            ("// RFC 9293 MUST-1x, 3-way", vec![]),
        ] {
            assert_eq!(in_line(line), want, "{line}");
        }
    }

    #[test]
    fn tests_are_known_by_path_and_by_module() {
        let mut found = Vec::new();
        let text = "// RFC 1 1-1\n#[cfg(test)]\nuse x;\n// RFC 1 1-2\n#[cfg(test)]\nmod tests {\n// RFC 1 1-3";
        read("nic-fw/tcp/src/ack.rs", text, &mut found);
        assert_eq!(found.iter().map(|c| c.kind).collect::<Vec<_>>(), [Kind::Code, Kind::Code, Kind::Test]);
        assert_eq!(found[2].place, "nic-fw/tcp/src/ack.rs:7");
        for name in ["tests/src/sim.rs", "nic-fw/tcp/tests/tcp/sim.rs", "nic-fw/wire/src/tcp_tests.rs", "host-ctrl/x/src/a.pkt"] {
            assert!(is_test_file(name), "{name}");
        }
        assert!(!is_test_file("nic-fw/tcp/src/testing.rs"));
        read("tests/scripts/a.pkt", "# RFC 1 1-4\n#! expect-fail: no", &mut found);
        assert_eq!(found[3].kind, Kind::Gap);
    }
}
