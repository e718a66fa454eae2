//! Whether the preload library can reach a program: it cannot where the loader does not run, or
//! is told to distrust its environment.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use object::read::elf::FileHeader;
use object::{Endianness, elf};

/// The name of the library.
pub const LIBRARY: &str = "libtoe_preload.so";

/// Beside this program (a cargo target folder), or in the lib folder next to its bin.
pub fn library(exe: &Path) -> Option<PathBuf> {
    let here = exe.parent()?;
    [here.join(LIBRARY), here.join("../lib").join(LIBRARY), here.join("../lib/toe").join(LIBRARY)]
        .into_iter()
        .find(|path| path.exists())
        .and_then(|path| path.canonicalize().ok())
}

/// Why the loader would not find the library by its path, if so: it would say so, and start the program without.
pub fn unspeakable(library: &Path) -> Option<String> {
    let separates = |byte: &u8| matches!(byte, b' ' | b':');
    library.as_os_str().as_bytes().iter().any(separates).then(|| {
        format!(
            "{} has a blank or a colon in its path, where the loader splits LD_PRELOAD; move toectl and the library elsewhere",
            library.display()
        )
    })
}

/// Finds a program as execvp(3) does.
pub fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.exists().then(|| name.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Why the library will not be loaded into the program, if so.
pub fn obstacle(program: &Path) -> Option<String> {
    let metadata = fs::metadata(program).ok()?;
    let mode = metadata.permissions().mode();
    if mode & 0o6000 != 0 {
        return Some("it is set-user-ID or set-group-ID, so the loader ignores LD_PRELOAD".into());
    }
    let mut head = [0_u8; 256];
    let read = File::open(program).and_then(|mut file| file.read(&mut head)).ok()?;
    if let Some(interpreter) = script_interpreter(&head[..read]) {
        return obstacle(&interpreter).map(|why| format!("its interpreter {}: {why}", interpreter.display()));
    }
    if rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64]).is_ok() {
        return Some("it has file capabilities, so the loader ignores LD_PRELOAD".into());
    }
    // ELF magic; what is neither a script nor ELF is for the kernel to judge.
    if !head[..read].starts_with(b"\x7fELF") {
        return None;
    }
    match has_interpreter(program) {
        Some(false) => Some("it is statically linked, so there is no loader that would load it".into()),
        _ => None,
    }
}

/// The interpreter named in a `#!` line.
fn script_interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_whitespace();
    let first = PathBuf::from(words.next()?);
    // `#!/usr/bin/env NAME` runs NAME.
    match (first.file_name()?.to_str()?, words.next()) {
        ("env", Some(name)) => find_program(Path::new(name)),
        _ => Some(first),
    }
}

/// Whether an ELF file has a PT_INTERP program header. Reads only the headers: programs of
/// hundreds of megabytes exist. None if it makes no sense to us.
fn has_interpreter(program: &Path) -> Option<bool> {
    /// Program headers are at most a few dozen.
    const HEADERS_MAX: u64 = 64 * 1024;
    let mut file = File::open(program).ok()?;
    let mut data = vec![0; 64];
    file.read_exact(&mut data).ok()?;
    let header = elf::FileHeader64::<Endianness>::parse(data.as_slice()).ok()?;
    let endian = header.endian().ok()?;
    let (offset, size, count) = (header.e_phoff(endian), u64::from(header.e_phentsize(endian)), u64::from(header.e_phnum(endian)));
    let length = size.checked_mul(count).filter(|len| *len <= HEADERS_MAX)?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut table = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut table).ok()?;
    // p_type is the first word of a program header.
    let mut types = table.chunks_exact(usize::try_from(size).ok().filter(|s| *s >= 4)?).map(|entry| {
        let word = [entry[0], entry[1], entry[2], entry[3]];
        if header.is_big_endian() { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    });
    Some(types.any(|kind| kind == elf::PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("toectl-{name}-{}", std::process::id()));
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path
    }

    #[test]
    fn a_path_that_the_loader_would_split_is_refused() {
        assert_eq!(unspeakable(Path::new("/opt/toe/lib/libtoe_preload.so")), None);
        for path in ["/home/me/my projects/libtoe_preload.so", "/srv/a:b/libtoe_preload.so"] {
            assert!(unspeakable(Path::new(path)).expect("refused").contains(path));
        }
    }

    #[test]
    fn an_ordinary_program_has_no_obstacle() {
        let shell = fs::canonicalize("/bin/sh").expect("sh");
        assert_eq!(has_interpreter(&shell), Some(true));
        assert_eq!(obstacle(&shell), None);
    }

    #[test]
    fn a_static_program_is_recognised() {
        let mut bytes = fs::read(fs::canonicalize("/bin/sh").expect("sh")).expect("read");
        // Turn PT_INTERP (3) into PT_NULL (0): what a static program's table looks like.
        let table = u64::from_le_bytes(bytes[32..40].try_into().expect("e_phoff"));
        let (size, count) = (usize::from(bytes[54]), usize::from(bytes[56]));
        for entry in 0..count {
            let at = usize::try_from(table).expect("small") + entry * size;
            if bytes[at] == 3 {
                bytes[at] = 0;
            }
        }
        let path = scratch("static", &bytes, 0o755);
        let why = obstacle(&path);
        fs::remove_file(&path).expect("removed");
        assert!(why.expect("an obstacle").contains("statically linked"));
    }

    #[test]
    fn a_set_user_id_program_is_recognised() {
        let path = scratch("setuid", b"#!/bin/sh\n", 0o4755);
        let why = obstacle(&path);
        fs::remove_file(&path).expect("removed");
        assert!(why.expect("an obstacle").contains("set-user-ID"));
    }

    #[test]
    fn a_script_is_as_good_as_its_interpreter() {
        assert_eq!(script_interpreter(b"#!/bin/sh -e\necho"), Some("/bin/sh".into()));
        assert_eq!(script_interpreter(b"#! /bin/sh"), Some("/bin/sh".into()));
        assert!(script_interpreter(b"#!/usr/bin/env sh\n").expect("found").ends_with("sh"));
        assert_eq!(script_interpreter(b"\x7fELF"), None);
        assert_eq!(script_interpreter(b"#!"), None);
    }

    #[test]
    fn rubbish_is_left_to_the_kernel() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01\x01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            let path = scratch("rubbish", bytes, 0o755);
            assert_eq!(obstacle(&path), None);
            fs::remove_file(&path).expect("removed");
        }
    }
}
