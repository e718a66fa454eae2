//! The header is up to date and complete, and a C compiler sees in it what Rust sees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use toe_abi::flow::FlowState;
use toe_abi::layout::{CONSTANTS, STRUCTS, Struct};
use toe_nfp_header::probe::{self, Leaf};
use toe_nfp_header::{header, header_path};
use zerocopy::FromBytes;

/// Structs of the ABI that never lie in shared memory.
const NOT_SHARED: [&str; 5] = ["HostAddr", "HostSpan", "RegionConfig", "CtxId", "RegionId"];

#[test]
fn committed_header_is_current() {
    let committed = std::fs::read_to_string(header_path()).expect("include/ferrotoe_abi.h");
    assert!(committed == header(), "out of date: run `cargo run -p toe-nfp-header -- --write`");
}

/// No struct has padding, so every byte belongs to a listed field.
#[test]
fn fields_leave_no_gap() {
    for s in STRUCTS {
        let mut end = 0;
        for field in s.fields {
            assert_eq!(field.offset, end, "{}: something is missing in toe_abi::layout before {}", s.source, field.name);
            end += probe::size_of(field.ty);
        }
        assert_eq!(end, s.size, "{}: something is missing in toe_abi::layout at the end", s.source);
    }
}

#[test]
fn names_are_unique() {
    let names = STRUCTS.iter().map(|s| s.name).chain(CONSTANTS.iter().map(|c| c.name));
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name), "{name} twice");
    }
    let header = header();
    let mut defined = BTreeSet::new();
    for line in header.lines().filter_map(|l| l.strip_prefix("#define ")) {
        let name = line.split_whitespace().next().unwrap_or_default();
        assert!(defined.insert(name), "{name} is defined twice");
    }
}

#[test]
fn every_constant_and_struct_is_listed() {
    let (constants, structs) = abi_source();
    assert!(constants.len() > 100 && structs.len() > 20, "the source was not understood");
    let listed: BTreeSet<String> = CONSTANTS.iter().map(|c| c.source.to_owned()).collect();
    let missing: Vec<_> = constants.difference(&listed).collect();
    assert!(missing.is_empty(), "missing in nic-fw/abi/src/layout/constants.rs: {missing:?}");
    let listed: BTreeSet<String> = STRUCTS.iter().map(|s| last(s.source).to_owned()).collect();
    let missing: Vec<_> = structs.difference(&listed).filter(|s| !NOT_SHARED.contains(&s.as_str())).collect();
    assert!(missing.is_empty(), "missing in nic-fw/abi/src/layout/structs.rs: {missing:?}");
}

/// Constants ("desc::hc::UPDATE") and structs that the source of toe-abi declares.
fn abi_source() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut constants, mut structs) = (BTreeSet::new(), BTreeSet::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nic-fw/abi/src");
    for entry in std::fs::read_dir(folder).expect("nic-fw/abi/src").flatten() {
        let path = entry.path();
        let Some(file) = path.file_stem().and_then(|s| s.to_str()).filter(|_| path.extension().is_some()) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a source file");
        let mut place = Vec::from_iter((file != "lib").then(|| file.to_owned()));
        let mut skipping = false;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["#[cfg(test)]", ..] => break,
                ["pub", "mod", name, "{"] => place.push(name.to_owned()),
                // Macros and constants of types are described otherwise.
                ["macro_rules!" | "impl" | "impl<T>", ..] if !line.starts_with(' ') => skipping = true,
                ["pub", "struct", name, ..] if !skipping => {
                    structs.insert(name.split(['(', '<', '{']).next().unwrap_or(name).to_owned());
                }
                ["pub", "const", name, "u8" | "u16" | "u32" | "u64" | "usize", "=", ..] if !skipping => {
                    constants.insert([&place[..], &[name.trim_end_matches(':').to_owned()]].concat().join("::"));
                }
                ["}"] if line == "}" => {
                    place.truncate(usize::from(file != "lib"));
                    skipping = false;
                }
                _ => {}
            }
        }
    }
    (constants, structs)
}

fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

#[test]
fn c_compiler_agrees_on_sizes_offsets_and_constants() {
    let folder = Folder::new("assert");
    folder.write("assert.c", &probe::assertions());
    folder.cc(&["-std=c11", "-c", "assert.c", "-o", "assert.o"]);
}

/// The test above can fail.
#[test]
fn c_compiler_finds_a_wrong_offset() {
    let folder = Folder::new("wrong");
    let wrong =
        probe::assertions().replacen("(offsetof(struct toe_flow_rx, rcv_nxt) == ", "(offsetof(struct toe_flow_rx, rcv_nxt) == 1 + ", 1);
    folder.write("wrong.c", &wrong);
    let output = folder.try_cc(&["-std=c11", "-c", "wrong.c", "-o", "wrong.o"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("toe_flow_rx.rcv_nxt: offset"));
}

/// Old C and C++ can use it too.
#[test]
fn header_compiles_as_c99_and_cxx() {
    let folder = Folder::new("dialects");
    folder.write("dialect.c", "#include \"ferrotoe_abi.h\"\nint x = TOE_DESC_LEN;\n");
    folder.cc(&["-std=c99", "-pedantic", "-c", "dialect.c", "-o", "c99.o"]);
    folder.cc(&["-x", "c++", "-fsyntax-only", "dialect.c"]);
}

/// A C program fills every word of every struct; Rust finds each where it expects it.
#[test]
fn rust_reads_what_c_writes() {
    let folder = Folder::new("fill");
    folder.write("fill.c", &probe::filler());
    folder.cc(&["-std=c11", "fill.c", "-o", "fill"]);
    let output = folder.run("fill").output().expect("the program runs");
    assert!(output.status.success());
    let mut bytes = &output.stdout[..];
    for s in STRUCTS {
        let (filled, rest) = bytes.split_at(s.size);
        for (ordinal, leaf) in probe::leaves(s).iter().enumerate() {
            assert_eq!(word(&filled[leaf.offset..][..leaf.bytes]), cut(Leaf::pattern(ordinal), leaf.bytes), "{}.{}", s.name, leaf.path);
        }
        if s.name == "toe_flow_state" {
            flow_state_through_its_own_type(s, filled);
        }
        bytes = rest;
    }
    assert!(bytes.is_empty());
}

/// And by way of the type itself, for a few fields of the most intricate one.
fn flow_state_through_its_own_type(s: &Struct, bytes: &[u8]) {
    let leaves = probe::leaves(s);
    let expected = |path: &str| {
        let ordinal = leaves.iter().position(|l| l.path == path).unwrap_or_else(|| panic!("no {path}"));
        cut(Leaf::pattern(ordinal), leaves[ordinal].bytes)
    };
    let state = FlowState::read_from_bytes(bytes).expect("the size is right");
    assert_eq!(u64::from(state.id.key.remote_port), expected("id.key.remote_port"));
    assert_eq!(u64::from(state.id.ctx.0), expected("id.ctx"));
    assert_eq!(u64::from(state.rx.rcv_nxt), expected("rx.rcv_nxt"));
    assert_eq!(u64::from(state.tx.timer), expected("tx.timer"));
    assert_eq!(u64::from(state.cc.ooo[1][2]), expected("cc.ooo[1][2]"));
}

fn cut(value: u64, bytes: usize) -> u64 {
    value & (u64::MAX >> (64 - 8 * bytes))
}

fn word(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => u64::from_ne_bytes(bytes.try_into().expect("a word")),
    }
}

/// A folder of its own for each test, below cargo's.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("header-{name}"));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("a file for the test");
    }

    fn try_cc(&self, args: &[&str]) -> std::process::Output {
        let include = header_path().parent().map(Path::to_owned).unwrap_or_default();
        let strict = ["-Wall", "-Wextra", "-Werror"];
        let mut cc = Command::new(std::env::var("CC").unwrap_or("cc".to_owned()));
        cc.current_dir(&self.0).arg("-I").arg(include).args(strict).args(args);
        cc.output().expect("a C compiler called cc, or what CC names")
    }

    /// A program that was compiled, by way of `TOE_TEST_RUNNER` if the compiler is one for another machine.
    fn run(&self, name: &str) -> Command {
        let runner = std::env::var("TOE_TEST_RUNNER").unwrap_or_default();
        let mut words = runner.split_whitespace().map(PathBuf::from).chain([self.0.join(name)]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    fn cc(&self, args: &[&str]) {
        let output = self.try_cc(args);
        assert!(output.status.success(), "cc {args:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
