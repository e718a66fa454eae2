//! Every script in `tests/scripts` is a test: `topic/name.pkt` is called `topic/name`. Others: `TOE_SCRIPTS=file:file`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toe_tests::script;

fn main() -> ExitCode {
    let trials = match std::env::var("TOE_SCRIPTS") {
        Ok(files) => std::env::split_paths(&files).map(|file| trial(file.display().to_string(), file)).collect(),
        Err(_) => all(),
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn all() -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut files = Vec::new();
    find(&folder, &mut files);
    files.sort();
    let name = |file: &Path| file.strip_prefix(&folder).unwrap_or(file).with_extension("").display().to_string();
    files.into_iter().map(|file| trial(name(&file), file)).collect()
}

/// Scripts in a folder and those below.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "pkt") {
            files.push(path);
        }
    }
}

fn trial(name: String, file: PathBuf) -> Trial {
    Trial::test(name, move || check(&file))
}

fn check(file: &Path) -> Result<(), Failed> {
    let script = script::load(file)?;
    script::run(&file.display().to_string(), &script).map_err(|failure| failure.0.into())
}
