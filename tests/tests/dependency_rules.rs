//! Who may depend on whom, and where `unsafe` may stand: docs/architecture.md, "Crates and edges", as a test.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a crate may use directly; what those may use, it may use as well. A package that is not in this table fails the test.
const MAY_USE: &[(&str, &[&str])] = &[
    ("toe-abi", &[]),
    ("toe-wire", &[]),
    ("toe-sync", &["toe-abi"]),
    ("toe-tcp", &["toe-abi", "toe-wire"]),
    ("toe-hal", &["toe-abi"]),
    ("toe-datapath", &["toe-abi", "toe-wire", "toe-sync", "toe-tcp", "toe-hal"]),
    ("toe-arch", &["toe-hal"]),
    ("toe-drivers", &["toe-hal"]),
    ("toe-nic", &["toe-datapath"]),
    ("toe-virt", &["toe-datapath", "toe-arch", "toe-drivers"]),
    ("toe-nfp-header", &["toe-abi"]),
    ("toe-engine", &["toe-abi", "toe-wire", "toe-sync", "toe-tcp"]),
    ("toe-link", &["toe-abi", "toe-sync"]),
    ("libtoe", &["toe-link"]),
    ("toed", &["toe-link", "toe-engine"]),
    ("toe-sockets", &["libtoe"]),
    ("toe-preload", &["toe-sockets"]),
];

/// Folders whose packages may use anything; nothing outside them may use those.
const FREE: &[&str] = &["tools", "tests"];

/// Crates that need no operating system: they build for any target.
const NO_STD: &[&str] = &["toe-abi", "toe-wire", "toe-sync", "toe-tcp", "toe-hal", "toe-datapath", "toe-drivers", "toe-arch"];

/// Crates that begin with `#![forbid(unsafe_code)]`.
const FORBID_UNSAFE: &[&str] = &["toe-abi", "toe-wire", "toe-tcp", "toe-datapath", "toe-engine"];

/// Where `unsafe` may stand: packages, and the files below their `src` to which it is restricted (none: all of them).
const UNSAFE_IN: &[(&str, &[&str])] = &[
    ("toe-sync", &[]),
    ("toe-hal", &[]),
    // What reads tables of others needs none: it is tested on a host.
    ("toe-arch", &["bare/"]),
    ("toe-drivers", &[]),
    ("toe-nic", &[]),
    ("toe-virt", &["image/", "insns/bare/", "window/"]),
    ("toe-link", &[]),
    ("toe-preload", &[]),
    ("libtoe", &["capi.rs", "capi/"]),
    // A board, in memory: only a board can make leases, and the copies that it measures must cost what a board's cost.
    ("toe-pipe", &["board/"]),
];

/// A workspace member.
struct Member {
    name: String,
    folder: PathBuf,
    /// In [`FREE`].
    free: bool,
    /// Workspace members it depends on, tests and build scripts apart.
    uses: BTreeSet<String>,
}

fn members() -> Vec<Member> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().expect("cargo metadata");
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let member = |package: &cargo_metadata::Package| {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path().to_owned();
        let top = folder.strip_prefix(&root).ok().and_then(|below| below.iter().next()).and_then(|top| top.to_str());
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        Member {
            name: package.name.to_string(),
            free: top.is_some_and(|top| FREE.contains(&top)),
            folder,
            uses: normal.map(|d| d.name.clone()).filter(|name| ours.contains(name.as_str())).collect(),
        }
    };
    metadata.packages.iter().map(member).collect()
}

/// Everything that `name` may use, through others too.
fn reach(name: &str) -> BTreeSet<&'static str> {
    let direct = MAY_USE.iter().find(|(crate_name, _)| *crate_name == name).map_or(&[][..], |(_, uses)| uses);
    direct.iter().flat_map(|used| reach(used).into_iter().chain([*used])).collect()
}

/// Each edge that must not be, as a sentence.
fn broken_edges(members: &[Member]) -> Vec<String> {
    let mut broken = Vec::new();
    for member in members.iter().filter(|m| !m.free) {
        if !MAY_USE.iter().any(|(name, _)| *name == member.name) {
            broken.push(format!("{} has no rule: say in MAY_USE and in docs/architecture.md what it may use", member.name));
            continue;
        }
        let allowed = reach(&member.name);
        for used in member.uses.iter().filter(|used| !allowed.contains(used.as_str())) {
            broken.push(format!("{} must not depend on {used} (docs/architecture.md, Crates and edges)", member.name));
        }
    }
    broken
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let broken = broken_edges(&members());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_rule_is_about_a_package() {
    let members = members();
    let names: BTreeSet<&str> = members.iter().map(|m| m.name.as_str()).collect();
    let rules = MAY_USE.iter().flat_map(|(name, uses)| uses.iter().chain([name]));
    for name in rules.chain(NO_STD).chain(FORBID_UNSAFE).chain(UNSAFE_IN.iter().map(|(name, _)| name)) {
        assert!(names.contains(name), "{name} is in a rule, but not in the workspace");
    }
}

/// The sentences that matter most, said of a workspace that breaks them.
#[test]
fn a_broken_edge_is_named() {
    let member = |name: &str, uses: &[&str]| Member {
        name: name.into(),
        folder: PathBuf::new(),
        free: false,
        uses: uses.iter().map(|s| s.to_string()).collect(),
    };
    for (user, used) in [
        ("toe-tcp", "toe-hal"),
        ("toe-tcp", "toe-sync"),
        ("toed", "toe-datapath"),
        ("toe-sockets", "toe-datapath"),
        ("libtoe", "toe-engine"),
        ("toe-datapath", "toe-nic"),
        ("toe-datapath", "toe-arch"),
        ("toe-nic", "toe-arch"),
        ("toe-drivers", "toe-datapath"),
        ("toe-drivers", "toe-sync"),
        ("toe-abi", "toe-wire"),
        ("toe-link", "toed"),
    ] {
        let broken = broken_edges(&[member(user, &[used])]);
        assert_eq!(broken, [format!("{user} must not depend on {used} (docs/architecture.md, Crates and edges)")]);
    }
    assert!(broken_edges(&[member("toe-new", &[])])[0].contains("has no rule"));
    assert!(broken_edges(&[member("toe-nic", &["toe-tcp", "toe-datapath"]), member("toe-preload", &["toe-abi"])]).is_empty());
}

/// The rules have no cycle: each crate's reach is finite and leaves it out.
#[test]
fn rules_have_no_cycle() {
    let mut below: BTreeMap<&str, usize> = BTreeMap::new();
    while below.len() < MAY_USE.len() {
        let ready = MAY_USE.iter().filter(|(name, _)| !below.contains_key(name));
        let ready: Vec<&str> = ready.filter(|(_, uses)| uses.iter().all(|used| below.contains_key(used))).map(|(name, _)| *name).collect();
        assert!(!ready.is_empty(), "a cycle among {:?}", MAY_USE.iter().filter(|(n, _)| !below.contains_key(n)).collect::<Vec<_>>());
        let level = below.len();
        below.extend(ready.into_iter().map(|name| (name, level)));
    }
}

#[test]
fn firmware_needs_no_standard_library() {
    for member in members().iter().filter(|m| NO_STD.contains(&m.name.as_str())) {
        let root = read(&member.folder.join("src/lib.rs"));
        let attribute = root.lines().any(|l| l.starts_with("#![no_std]") || l.starts_with("#![cfg_attr(") && l.ends_with("no_std)]"));
        assert!(attribute, "{}: src/lib.rs must be no_std", member.name);
    }
}

#[test]
fn pure_crates_forbid_unsafe() {
    for member in members().iter().filter(|m| FORBID_UNSAFE.contains(&m.name.as_str())) {
        let root = read(&member.folder.join("src/lib.rs"));
        let attribute = root.lines().any(|l| l == "#![forbid(unsafe_code)]");
        assert!(attribute, "{}: src/lib.rs must say #![forbid(unsafe_code)] (docs/architecture.md, Crates and edges)", member.name);
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut found = Vec::new();
    for member in members().iter().filter(|m| !m.folder.ends_with("tests")) {
        let allowed = UNSAFE_IN.iter().find(|(name, _)| *name == member.name).map(|(_, files)| *files);
        let src = member.folder.join("src");
        for file in rust_files(&src).into_iter().filter(|file| !holds_tests(file)) {
            let below = file.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            let fine = allowed.is_some_and(|files| files.is_empty() || files.iter().any(|f| below.starts_with(f)));
            let line = unsafe_line(&read(&file));
            found.extend(line.filter(|_| !fine).map(|line| {
                format!("{} has `unsafe` in src/{below}:{line}, where it must not (docs/architecture.md, Crates and edges)", member.name)
            }));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn unsafe_is_found_in_code_only() {
    assert_eq!(unsafe_line("fn a() {}\nunsafe fn b() {}"), Some(2));
    assert_eq!(unsafe_line("#[unsafe(no_mangle)]"), Some(1));
    assert_eq!(unsafe_line("let x = r#\"\"#; let c = '\"'; unsafe { }"), Some(1));
    assert_eq!(
        unsafe_line("#![forbid(unsafe_code)]\n// unsafe\n/* unsafe\n /* unsafe */ unsafe */\nlet a = \"unsafe \\\" unsafe\";"),
        None
    );
    assert_eq!(unsafe_line("let a = r#\"unsafe \" unsafe\"#; fn f<'a>(x: &'a str) {}"), None);
}

#[test]
fn unsafe_in_test_modules_does_not_count() {
    assert_eq!(unsafe_line("#[cfg(test)]\nmod tests {\n  fn a() { unsafe {} }\n}\n"), None);
    assert_eq!(unsafe_line("#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nunsafe fn a() {}"), Some(4));
    assert_eq!(unsafe_line("#[cfg(test)]\nmod tests {\n}\nunsafe fn a() {}"), Some(4));
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files that `#[cfg(test)] mod ..._tests;` names.
fn holds_tests(path: &Path) -> bool {
    path.file_stem().and_then(|s| s.to_str()).is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// The first line on which the keyword `unsafe` stands, outside comments, strings and test modules.
fn unsafe_line(text: &str) -> Option<usize> {
    let code = without_tests(&code_only(text));
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.lines().position(|line| line.split(|c| !word(c)).any(|w| w == "unsafe")).map(|i| i + 1)
}

/// The code without the bodies of modules that are compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let mut depth = 0;
        for line in lines.by_ref() {
            out.push('\n');
            depth += line.matches('{').count();
            depth -= line.matches('}').count().min(depth);
            if depth == 0 && !line.trim_start().starts_with("#[") {
                break;
            }
        }
    }
    out
}

/// The text with comments and strings blanked out, lines kept.
fn code_only(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_len(rest),
            '"' => string_len(rest),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string_len(rest),
            '\'' => char_len(rest),
            _ => 0,
        };
        let (taken, after) = rest.split_at(skip.max(c.len_utf8()));
        if skip > 0 {
            out.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push(c);
        }
        rest = after;
    }
    out
}

/// Bytes of a block comment, nested ones included.
fn comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a raw string that begins here; 0 if none does.
fn raw_string_len(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let start = 1 + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// Bytes of a character literal that begins here; 0 if it is a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(text.len(), |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}
