//! The steps of the demo. Each has a deadline of its own, and returns a line about what it saw.

use std::time::Duration;

use anyhow::{Context, Result};
use toe_lab::Card;
use toe_lab::instance::{CARD_IP, PEER_IP, Pair};
use toe_lab::qemu::QemuCard;
use toe_lab::servers::{self, WWW};

use super::Stage;
use crate::bench;
use crate::progress::Step;

type Action = fn(&mut Stage, &Step) -> Result<String>;

pub const ALL: [(&str, Action); 6] = [
    ("(a) nginx on the card, sendfile, 2 workers; curl on the kernel", nginx),
    ("(a) python3 -m http.server on the card; curl on the kernel", python),
    ("(b) nginx on the kernel; curl on the card", curl),
    ("(c) redis-server on the card; redis-benchmark on the kernel", redis),
    ("(d) RPC and bulk, server on the card and on the kernel in turns", compare),
    ("counters: received = delivered + exceptions + answered + dropped", counters),
];

/// What is shown of a card inside QEMU: what it costs there says nothing about a real one.
pub const EMULATED: [(&str, Action); 6] = [
    ("(a) nginx on the card, sendfile, 2 workers; curl on the kernel", nginx),
    ("(a) python3 -m http.server on the card; curl on the kernel", python),
    ("(b) nginx on the kernel; curl on the card", curl),
    ("(c) redis-server on the card; redis-benchmark on the kernel", redis),
    ("(d) QEMU with a connection open and nothing to do", idle),
    ("counters: received = delivered + exceptions + answered + dropped", counters),
];

/// A file of the demo's size takes a second or two; this is for a machine that has much else to do.
const FETCH_LIMIT: Duration = Duration::from_secs(60);
const REDIS_REQUESTS: u32 = 50_000;
/// Odd, so that the median is a run.
const RUNS: u32 = 3;
const RUN_SECONDS: f64 = 0.4;

pub fn begin(pair: Pair, card: Card, machine: Option<QemuCard>, file_len: u64) -> Result<Stage> {
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), file_len, 2022)?;
    Ok(Stage { pair, card, machine, hash, jobs: Vec::new(), table: String::new() })
}

fn nginx(stage: &mut Stage, _: &Step) -> Result<String> {
    let job = servers::nginx(&stage.pair.lab, &stage.card.place(), "nginx", 8080)?;
    serve(stage, job, 8080)
}

fn python(stage: &mut Stage, _: &Step) -> Result<String> {
    let job = servers::python_http(&stage.pair.lab, &stage.card.place(), "python", 8081)?;
    serve(stage, job, 8081)
}

/// Fetches the file from a server on the card.
fn serve(stage: &mut Stage, job: toe_lab::Job, port: u16) -> Result<String> {
    stage.jobs.push(job);
    let job = stage.jobs.last_mut().context("just pushed")?;
    servers::wait_listening(job, stage.pair.peer(), CARD_IP, port)?;
    fetched(stage, &stage.pair.peer_place(), &format!("http://{CARD_IP}:{port}/file"))
}

fn curl(stage: &mut Stage, _: &Step) -> Result<String> {
    let mut job = servers::nginx(&stage.pair.lab, &stage.pair.peer_place(), "nginx-kernel", 8082)?;
    servers::wait_listening(&mut job, stage.pair.peer(), PEER_IP, 8082)?;
    stage.jobs.push(job);
    fetched(stage, &stage.card.place(), &format!("http://{PEER_IP}:8082/file"))
}

fn fetched(stage: &Stage, client: &toe_lab::instance::Place, url: &str) -> Result<String> {
    let done = servers::fetch(&stage.pair.lab, client, url, &stage.hash, FETCH_LIMIT)?;
    Ok(format!("SHA-256 equal, {:.2} s, {:.1} Gbit/s", done.seconds, done.gbit_per_s))
}

fn redis(stage: &mut Stage, _: &Step) -> Result<String> {
    let mut job = servers::redis(&stage.pair.lab, &stage.card.place(), "redis", 6379)?;
    let peer = stage.pair.peer_place();
    servers::wait_redis(&mut job, &peer, CARD_IP, 6379)?;
    stage.jobs.push(job);
    let rates = servers::redis_benchmark(&peer, CARD_IP, 6379, REDIS_REQUESTS, &["-t", "set,get", "-c", "50"])?;
    let shown: Vec<String> = rates.iter().map(|(name, rate)| format!("{name} {:.0} k/s", rate / 1000.0)).collect();
    Ok(shown.join(", "))
}

fn compare(stage: &mut Stage, step: &Step) -> Result<String> {
    let yardstick = bench::kernel_pair()?;
    let (ours, kernel) = bench::subjects(&stage.pair, &stage.card, &yardstick)?;
    let (of_ours, of_kernel) = bench::compare(&ours, &kernel, RUNS, RUN_SECONDS, step)?;
    stage.table = bench::table(&of_ours, &of_kernel);
    Ok(String::new())
}

fn idle(stage: &mut Stage, _: &Step) -> Result<String> {
    const LOOK: Duration = Duration::from_secs(2);
    let machine = stage.machine.as_ref().context("no machine")?;
    let open = format!("exec 3<>/dev/tcp/{CARD_IP}/6379; sleep 30");
    let job = stage.pair.peer_place().start(&stage.pair.lab, "open", "bash", &["-c", &open])?;
    std::thread::sleep(LOOK / 2);
    let used = machine.cpu_seconds()?;
    std::thread::sleep(LOOK);
    let share = (machine.cpu_seconds()? - used) / LOOK.as_secs_f64();
    stage.jobs.push(job);
    Ok(format!("{:.1} % of a processor", 100.0 * share))
}

fn counters(stage: &mut Stage, _: &Step) -> Result<String> {
    Ok(stage.card.balanced_books()?.to_string())
}
