//! Finding programs: the distribution's, and the ones that this workspace builds.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

/// Where the distribution puts programs; looked at before `PATH`, so that a developer's wrappers
/// (pyenv, say) do not stand between a test and the program that it names.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What `cargo build --release` makes, as far as tests and the demo run it.
pub const BUILT: [&str; 7] = ["toe-nic", "toe-window", "toed", "toectl", "toe-rpc", "toe-netem", "libtoe_preload.so"];

/// Names the folder with our programs, for tests that run from a copy of it.
pub const BIN_DIR_ENV: &str = "TOE_BIN_DIR";

/// Names the folder with programs in other languages (`tests/programs`), for tests that run from a
/// copy of it: a user may be unable to read the repository.
pub const SOURCES_ENV: &str = "TOE_TEST_PROGRAMS";

/// That folder: `$TOE_TEST_PROGRAMS`, else `programs` in the package that asks, which gives its
/// own `CARGO_MANIFEST_DIR`.
pub fn sources(package: &str) -> PathBuf {
    env::var_os(SOURCES_ENV).map_or_else(|| Path::new(package).join("programs"), PathBuf::from)
}

/// A program of the distribution, by name.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = SYSTEM_FOLDERS.iter().map(PathBuf::from).chain(env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

/// Like [`find`], with an error that says what to install.
pub fn require(name: &str) -> Result<PathBuf> {
    find(name).ok_or_else(|| anyhow!("program '{name}' is not installed; 'cargo xtask setup' installs what is needed"))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The folder with our own programs: `$TOE_BIN_DIR`, else the `target/release` that belongs to
/// the running executable.
pub fn built_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os(BIN_DIR_ENV) {
        return complete(Path::new(&dir)).map_err(|e| anyhow!("{BIN_DIR_ENV}: {e}"));
    }
    let exe = env::current_exe()?;
    // target/PROFILE/xtask or target/PROFILE/deps/e2e_...: the target folder is two or three up.
    let target = exe.ancestors().skip(1).find(|dir| dir.join("CACHEDIR.TAG").exists());
    let Some(target) = target else { bail!("{} is not in a cargo target folder; set {BIN_DIR_ENV}", exe.display()) };
    complete(&target.join("release"))
}

fn complete(dir: &Path) -> Result<PathBuf> {
    match BUILT.iter().find(|name| !dir.join(name).exists()) {
        Some(missing) => bail!("{missing} is not in {}; 'cargo xtask build' builds it", dir.display()),
        None => Ok(dir.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_shell_and_not_a_fable() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
        assert!(require("no-such-program-here").unwrap_err().to_string().contains("no-such-program-here"));
    }

    #[test]
    fn an_incomplete_folder_is_named() {
        let error = complete(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("toe-nic") && error.contains("/nonexistent"), "{error}");
    }
}
