//! `cargo xtask fuzz`: libFuzzer on what strangers can write (`tests/fuzz`), by the stable compiler.
//!
//! ```text
//!   toe-fuzz, instrumented: one program a target ─► as many processes as there are CPUs ─► table
//!        tests/fuzz/corpus ──►  target/fuzz/corpus (grows from run to run)  ─┬─► --minimize: tests/fuzz/corpus
//!                                                                            └─► target/fuzz/found: what broke something
//! ```

mod report;
mod totals;

use std::env::consts::ARCH;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo;
use crate::progress::{Mark, Step};
use report::Report;
use totals::Totals;

/// As the program says them (`toe-fuzz` without arguments).
const TARGETS: [&str; 13] =
    ["frame", "tcp", "engine", "card", "stack", "app", "library", "device_tree", "acpi", "ivshmem", "pci", "vfio_user", "virtio"];

/// Coverage as libFuzzer wants it, and every check of ours; all of it is in the stable compiler. With frame pointers, perf says who calls.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cforce-frame-pointers=yes \
    -Cdebug-assertions=yes -Coverflow-checks=yes";

/// For `--values`.
const COMPARES: &str = " -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest input that is kept, bytes: a device tree of a small machine fits.
const KEPT_MAX: usize = 8192;

/// Longest input that is tried, bytes. What comes as events takes as long as it has of them: where a world must be made first, some dozens
/// will do, since many short inputs find more than few long ones.
fn input_max(name: &str) -> usize {
    match name {
        "device_tree" | "acpi" => KEPT_MAX,
        "card" | "stack" | "app" | "library" => 256,
        "engine" | "vfio_user" | "virtio" => 512,
        _ => 1024,
    }
}

/// Bytes that malloc keeps.
const MALLOC_KEEPS: &str = "33554432";

#[derive(Args, Debug)]
pub struct Options {
    /// What to fuzz; all of them if none is named
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    targets: Vec<String>,
    /// Stop after as many executions of each target, all its processes together
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Stop after as long, each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Processes at once, several of a target if there are fewer targets [default: as many as there are CPUs]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Also watch what is compared: finds the magic numbers of parsers, and makes all else several times slower
    #[arg(long)]
    values: bool,
    /// Then make the committed corpus anew: the fewest inputs that reach as much
    #[arg(long)]
    minimize: bool,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let chosen: Vec<&str> =
        if options.targets.is_empty() { TARGETS.to_vec() } else { options.targets.iter().map(String::as_str).collect() };
    chosen.iter().try_for_each(|name| build(name, options.values))?;
    let jobs = options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let workers = workers(&chosen, jobs, options);
    let totals = folder().join("totals");
    fs::create_dir_all(&totals).with_context(|| format!("cannot make {}", totals.display()))?;
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(worker) = workers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = fuzz(worker, options);
                    // The totals are under the lock too: processes of one target end at the same time.
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    reports.push(run.and_then(|run| Ok((run.clone(), Totals::add(&totals.join(worker.name), &run)?))));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect::<Result<Vec<_>>>()?;
    reports.sort_by_key(|(report, _)| TARGETS.iter().position(|name| *name == report.name));
    print!("\n{}", report::table(&reports));
    if reports.iter().any(|(report, _)| report.found.is_some()) {
        return Ok(ExitCode::FAILURE);
    }
    if options.minimize {
        chosen.iter().try_for_each(|name| minimize(name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A process to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Worker<'a> {
    name: &'a str,
    /// Executions at most; as many as there is time for.
    runs: Option<u64>,
    /// Others of the target add to its corpus meanwhile.
    shares: bool,
}

/// One of each target, and if that leaves CPUs idle, more of them in turn.
fn workers<'a>(chosen: &[&'a str], jobs: usize, options: &Options) -> Vec<Worker<'a>> {
    let names: Vec<&str> = chosen.iter().copied().cycle().take(jobs.max(chosen.len())).collect();
    let worker = |&name| {
        let same = names.iter().filter(|&&other| other == name).count() as u64;
        Worker { name, runs: options.runs.map(|runs| runs.div_ceil(same)), shares: same > 1 }
    };
    names.iter().map(worker).collect()
}

fn folder() -> PathBuf {
    cargo::target_dir().join("fuzz")
}

/// Inputs that are committed.
fn committed(name: &str) -> PathBuf {
    cargo::root().join("tests/fuzz/corpus").join(name)
}

/// Where a target's program is.
fn program(name: &str) -> PathBuf {
    folder().join("programs").join(name)
}

/// Each target has a program of its own: libFuzzer looks at all counters of a program after each input, and many of them are those of
/// other targets, which the linker leaves out. For the same reason nothing unwinds (libFuzzer ends at a panic anyway), and a crate is
/// compiled in one piece: more is inlined, and has fewer edges.
fn build(name: &str, values: bool) -> Result<()> {
    let target = format!("{ARCH}-unknown-linux-gnu");
    let mut command = cargo::cargo(&["build", "--release", "-p", "toe-fuzz", "--target", &target, "--target-dir"]);
    // With a target of its own the flags hold for the program, and not for what runs during the build.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    command.arg(folder()).env(flags, format!("{FLAGS}{}", if values { COMPARES } else { "" })).env_remove("CARGO_TERM_COLOR");
    command.envs([("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"), ("CARGO_PROFILE_RELEASE_PANIC", "abort")]);
    let status = command.env("TOE_FUZZ_TARGET", name).status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    let (built, program) = (folder().join(target).join("release/toe-fuzz"), program(name));
    fs::create_dir_all(folder().join("programs"))?;
    // Another run may be using the old one.
    let _ = fs::remove_file(&program);
    fs::copy(&built, &program).with_context(|| format!("cannot copy {} to {}", built.display(), program.display()))?;
    Ok(())
}

/// Until the limit or the first thing found.
fn fuzz(&Worker { name, runs, shares }: &Worker<'_>, options: &Options) -> Result<Report> {
    let program = program(name);
    let step = Step::begin(format!("fuzz {name}"));
    let (corpus, found) = (folder().join("corpus").join(name), folder().join("found").join(name));
    for folder in [&corpus, &found, &committed(name)] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(&program);
    command
        // Memory that is freed is asked for again with the next input: it need not go back to the system meanwhile.
        .envs(["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"].map(|name| (name, MALLOC_KEEPS)))
        // Where it writes what a world that broke had lived through before.
        .env("TOE_FUZZ_FOUND", &found)
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-max_len={}", input_max(name)))
        // Without counts of how rare each feature is: they cost more than most targets do.
        .args(["-timeout=20", "-rss_limit_mb=2048", "-entropic=0"])
        // Looks every so many seconds at what others have found.
        .arg(format!("-reload={}", if shares { 30 } else { 0 }))
        .arg(format!("-use_value_profile={}", u8::from(options.values)))
        .args(runs.map(|runs| format!("-runs={runs}")))
        .args([&corpus, &committed(name)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut report = Report::new(name);
    let mut last_lines = Vec::new();
    for line in BufReader::new(child.stderr.take().context("its output")?).lines() {
        let line = line?;
        step.note(&line);
        if !report.line(&line) {
            last_lines.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        report.found.get_or_insert_with(|| status.to_string());
        step.end(Mark::Failed, &report.to_string());
        println!("{}", last_lines.join("\n"));
        println!(
            "again: cargo run -p toe-fuzz -- --steps {name} FILE (a world that had served others before: world-*/*); once mended, keep it as tests/fuzz/corpus/{name}/WHAT-IT-WAS"
        );
    } else {
        step.end(Mark::Ok, &report.to_string());
    }
    Ok(report)
}

/// Inputs with a name that a person gave stay; the fuzzer's own are chosen anew, by the edges that they reach and not by how often: the tests run
/// all of them, several times.
fn minimize(name: &str) -> Result<()> {
    let (kept, chosen) = (committed(name), folder().join("chosen").join(name));
    let _ = fs::remove_dir_all(&chosen);
    fs::create_dir_all(&chosen)?;
    let sources = [folder().join("corpus").join(name), kept.clone()];
    let output = Command::new(program(name))
        .args(["-merge=1".into(), "-set_cover_merge=1".into(), "-use_counters=0".into(), format!("-max_len={KEPT_MAX}")])
        .arg(&chosen)
        .args(&sources)
        .output()?;
    ensure!(output.status.success(), "merging the inputs of {name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    for file in fs::read_dir(&kept)? {
        let file = file?;
        if is_fuzzers_own(&file.file_name().to_string_lossy()) {
            fs::remove_file(file.path())?;
        }
    }
    let mut bytes = 0;
    let mut count = 0;
    for file in fs::read_dir(&chosen)? {
        let file = file?;
        bytes += fs::copy(file.path(), kept.join(file.file_name()))?;
        count += 1;
    }
    println!("  {name}: {count} inputs, {bytes} bytes in {}", kept.display());
    Ok(())
}

/// Its names are SHA-1 sums.
fn is_fuzzers_own(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_without_a_target_of_their_own_share_one() {
        let options = |runs| Options { targets: vec![], runs, seconds: 1, jobs: None, values: false, minimize: false };
        let worker = |name, runs, shares| Worker { name, runs, shares };
        assert_eq!(workers(&["frame", "tcp"], 1, &options(Some(9))), ["frame", "tcp"].map(|name| worker(name, Some(9), false)));
        let shared = [worker("frame", Some(5), true), worker("tcp", Some(9), false), worker("frame", Some(5), true)];
        assert_eq!(workers(&["frame", "tcp"], 3, &options(Some(9))), shared);
        assert_eq!(workers(&["tcp"], 2, &options(None)), [worker("tcp", None, true); 2]);
    }

    #[test]
    fn a_name_given_by_a_person_is_kept() {
        assert!(is_fuzzers_own("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
        assert!(!is_fuzzers_own("syn-with-length-of-zero"));
    }

    #[test]
    fn the_targets_are_those_of_the_program() {
        let source = fs::read_to_string(cargo::root().join("tests/fuzz/src/lib.rs")).expect("readable");
        let names: Vec<&str> = source.split("Target { name: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(names, TARGETS);
    }
}
