//! `cargo xtask demo`: unmodified programs over our card, against the Linux kernel.
//!
//! ```text
//!   nginx, python3, redis, curl, toe-rpc       kernel-side curl, redis-benchmark, toe-rpc
//!        under 'toectl run'                                     │
//!        └► libtoe_preload ► card ► toe0 ═══ veth ═══ peer0 ◄ Linux kernel
//! ```
//!
//! With `--board virt` the card is the bare-metal image in QEMU, and the wire a tap device.

mod steps;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use toe_lab::qemu::{self, Machine, QemuCard};
use toe_lab::{Card, Job, Pair};

use crate::cargo;
use crate::image::{Board, Cpu, Format, Image};
use crate::progress::{Mark, Step};
use crate::setup;

#[derive(Args, Debug)]
pub struct Options {
    /// Which board: not given, the card as a process; virt: the bare-metal image in QEMU
    #[arg(long, value_enum)]
    board: Option<Board>,
    /// Start the image as a UEFI application rather than as an ELF file
    #[arg(long, requires = "board")]
    uefi: bool,
    /// Leave all of it running at the end, and print what to type next
    #[arg(long)]
    keep: bool,
    /// Megabytes of the file that is served
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    megabytes: u32,
}

/// What the steps share.
pub struct Stage {
    pub pair: Pair,
    pub card: Card,
    /// The machine, if the card is inside one.
    pub machine: Option<QemuCard>,
    /// SHA-256 of the file that is served.
    pub hash: String,
    /// Servers, which end with the demo.
    pub jobs: Vec<Job>,
    /// The table of the last step.
    pub table: String,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages()?;
    if options.board.is_some() {
        setup::emulator()?;
        setup::rust_targets()?;
    }
    cargo::build_release()?;
    let wire = if options.board.is_some() { "a tap device, the card in QEMU" } else { "a veth pair" };
    println!("\nUnmodified programs on our card (10.77.0.2), talking to the Linux kernel (10.77.0.1) over {wire}:");
    let start = Instant::now();
    let mut stage = match begin(options) {
        Ok(stage) => stage,
        Err(error) => return Ok(failed(&error, "")),
    };
    let steps = if options.board.is_some() { &steps::EMULATED[..] } else { &steps::ALL[..] };
    for (name, action) in steps {
        let step = Step::begin(*name);
        match action(&mut stage, &step) {
            Ok(result) => step.end(Mark::Ok, &result),
            Err(error) => {
                step.end(Mark::Failed, "");
                let logs = stage.logs();
                return Ok(failed(&error, &logs));
            }
        }
    }
    println!("\n{}", stage.table);
    println!("All of it held, in {:.0} s.", start.elapsed().as_secs_f64());
    if options.keep {
        keep(stage)?;
    } else {
        stage.jobs.clear();
        if stage.machine.is_none() {
            let step = Step::begin("toectl down");
            if let Err(error) = stage.card.down() {
                step.end(Mark::Failed, "");
                return Ok(failed(&error, &stage.logs()));
            }
            step.end(Mark::Ok, "");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn begin(options: &Options) -> Result<Stage> {
    if let Some(Board::Virt) = options.board {
        return begin_in_qemu(options);
    }
    let step = Step::begin("two hosts, a veth pair, a file, the card");
    let made = Pair::new().and_then(|pair| {
        let card = pair.card_up()?;
        steps::begin(pair, card, None, file_len(options))
    });
    step.end(if made.is_ok() { Mark::Ok } else { Mark::Failed }, "");
    made
}

fn begin_in_qemu(options: &Options) -> Result<Stage> {
    setup::rust_targets()?;
    let format = if options.uefi { Format::Uefi } else { Format::Elf };
    let image = Image { cpu: Cpu::A72, format, tests: false };
    let step = Step::begin("the image");
    let built = image.build();
    let said = built.as_ref().map_or(String::new(), |bytes| format!("{} KiB", bytes.len() >> 10));
    step.end(if built.is_ok() { Mark::Ok } else { Mark::Failed }, &said);
    built?;
    let step = Step::begin("two hosts, a tap device, a file, toe-window, QEMU with four cores, toed");
    let start = Instant::now();
    let made = qemu::pair().and_then(|pair| {
        let machine = QemuCard::start(&pair, &Machine { uefi: options.uefi, ..Machine::default() })?;
        steps::begin(pair, machine.card.clone(), Some(machine), file_len(options))
    });
    let said = format!("attached after {:.2} s", start.elapsed().as_secs_f64());
    step.end(if made.is_ok() { Mark::Ok } else { Mark::Failed }, if made.is_ok() { &said } else { "" });
    made
}

fn file_len(options: &Options) -> u64 {
    u64::from(options.megabytes) << 20
}

fn failed(error: &anyhow::Error, logs: &str) -> ExitCode {
    println!("\n{error:#}\n{logs}");
    ExitCode::FAILURE
}

impl Stage {
    fn logs(&self) -> String {
        let servers: String = self.jobs.iter().map(|job| job.log_tail(10)).filter(|text| !text.is_empty()).collect();
        let card = self.machine.as_ref().map_or_else(|| self.card.logs(&self.pair.lab, 20), QemuCard::logs);
        format!("{card}\n  servers:\n{servers}")
    }
}

/// Leaves everything running and says how to go there.
fn keep(stage: Stage) -> Result<()> {
    let Stage { pair, card, machine, jobs, .. } = stage;
    let near = pair.near().enter().join(" ");
    let peer = pair.peer().enter().join(" ");
    let bin = cargo::release_dir();
    let run_dir = card.run_dir.clone();
    // They are to outlive us.
    jobs.into_iter().for_each(std::mem::forget);
    machine.into_iter().for_each(std::mem::forget);
    let init = pair.lab.keep()?;
    println!("\nIt is still running. To look at the card:\n");
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl ss", bin.display());
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl stats --nonzero", bin.display());
    println!("\nTo run a program of yours on it, and one on the peer:\n");
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl run -- PROGRAM", bin.display());
    println!("    {peer} curl -s -o /dev/null -w '%{{speed_download}}\\n' http://10.77.0.2:8080/file");
    println!("\nTo end all of it:\n\n    kill -9 {init}");
    Ok(())
}
