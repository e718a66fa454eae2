//! `toe-nic`: puts the soft card together and runs it.

use anyhow::Context;
use clap::Parser;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use toe_abi::regs::caps;
use toe_datapath::CardConfig;
use toe_hal::{PortCaps, TxPort};
use toe_nic::cli::Args;
use toe_nic::device::{Device, Facts, Status};
use toe_nic::endpoint::{Endpoint, EndpointError};
use toe_nic::mailbox::Mailbox;
use toe_nic::placement::PlacementFileError;
use toe_nic::ports::carrier::CarrierWatch;
use toe_nic::ports::netif::Interface;
use toe_nic::ports::{Port, PortError};
use toe_nic::run::{RunConfig, Runner};

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// Open files of a context: its interrupt, its kick.
const FILES_OF_CONTEXT: usize = 2;
/// What the card has open beside, and what comes with one message.
const FILES_BESIDE: usize = 128;
/// The daemon's, and one.
const CONTEXTS_MIN: u16 = 2;
/// How long a card that has failed waits for its daemon to read so.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = log_to_stderr(&args.log_level) {
        eprintln!("toe-nic: --log-level {}: {error}", args.log_level);
        return ExitCode::from(EXIT_USAGE);
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn log_to_stderr(level: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(level)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// What the operator can put right is 2.
fn exit_code(error: &anyhow::Error) -> u8 {
    let port = error.downcast_ref::<PortError>().is_some_and(PortError::is_usage);
    let socket = error.downcast_ref::<EndpointError>().is_some_and(|e| !matches!(e, EndpointError::Os { .. }));
    let core = error.downcast_ref::<NoSuchCore>().is_some() || error.downcast_ref::<PlacementFileError>().is_some();
    if port || socket || core { EXIT_USAGE } else { EXIT_FAILURE }
}

#[derive(Debug, thiserror::Error)]
#[error("--cores: CPU {cpu} does not exist or is not this process's to use; there are: {allowed}")]
struct NoSuchCore {
    cpu: u32,
    allowed: String,
}

fn run(args: Args) -> anyhow::Result<()> {
    let stop = stop_on_signals().context("signal handlers")?;
    let mut spec = args.port.clone();
    if let Some(frames) = args.rx_ring_frames {
        spec.set_default("rx_frames", frames);
    }
    let max_contexts = affordable(args.max_contexts);
    let placement = args.placement()?;
    let cpu = fused_cpu(&args)?;
    let port = Port::open(&spec, args.impair.as_ref())?;

    let hash_key = secret().context("random key of the flow table")?;
    let mut config = CardConfig { hash_key, max_contexts, ..args.card_config() };
    let placement = placement.map(|(placement, sizes)| {
        sizes.apply(&mut config);
        tracing::info!("placement: {placement}");
        placement
    });
    let facts = facts(&config, port.tx.caps());
    let status = Arc::new(Status::default());
    let mailbox = Arc::new(Mailbox::new().context("eventfd of the mailbox")?);
    let config = RunConfig { card: config, placement, cpu, disturb: args.disturb.clone() };
    let mut runner = Runner::new(config, port, mailbox.clone(), status.clone(), stop.as_fd()).context("epoll")?;

    let interface = Interface::open(&spec.interface)?;
    runner.watch_carrier(CarrierWatch::new(&interface)?).context("epoll")?;

    let (endpoint, listener) = Endpoint::open(&args.socket)?;
    let mut device = Device::new(facts, status, mailbox).with_interface(interface);
    // Not joined: it ends with the process, whatever its host does.
    std::thread::Builder::new().name("toe-device".into()).spawn(move || device.serve(listener)).context("device thread")?;
    tracing::info!(port = %spec, socket = %args.socket.display(), "ready");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }

    let outcome = runner.run();
    if let Err(error) = &outcome {
        tracing::error!("{error:#}; telling the host");
        runner.fail(PATIENCE);
    }
    tracing::info!("port closed");
    drop(endpoint);
    Ok(outcome?)
}

fn facts(config: &CardConfig, port: PortCaps) -> Facts {
    let tso = if port.tso_max > 0 { caps::TSO } else { 0 };
    Facts {
        caps: caps::TIMERS | caps::IPV6 | tso,
        max_flows: config.max_flows,
        max_contexts: config.max_contexts,
        max_regions: config.max_regions,
        max_next_hops: config.max_next_hops,
        mtu: port.mtu,
        mac: port.mac,
    }
}

/// Readable from the first signal to end on.
fn stop_on_signals() -> std::io::Result<UnixStream> {
    let (stop, write) = UnixStream::pair()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(stop)
}

fn secret() -> std::io::Result<[u64; 2]> {
    let mut bytes = [0u8; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let n = u128::from_ne_bytes(bytes);
    Ok([n as u64, (n >> 64) as u64])
}

/// As many contexts as there are descriptors for: one that cannot be taken later would end the link to the daemon, and so all connections.
fn affordable(contexts: u16) -> u16 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // What is lacking then shows below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let most = u16::try_from(files.saturating_sub(FILES_BESIDE) / FILES_OF_CONTEXT).unwrap_or(u16::MAX).max(CONTEXTS_MIN);
    if contexts > most {
        tracing::warn!("{most} contexts and not {contexts} (--max-contexts): there may be {files} open files (ulimit -n)");
    }
    contexts.min(most)
}

/// The CPU of a fused card: the first of the list.
fn fused_cpu(args: &Args) -> Result<Option<u32>, NoSuchCore> {
    let Some(&cpu) = args.cores.as_ref().and_then(|c| c.0.first()) else { return Ok(None) };
    let (cpu, allowed) = (cpu as u32, toe_nic::placement::allowed_cpus());
    if allowed.contains(&cpu) {
        return Ok(Some(cpu));
    }
    Err(NoSuchCore { cpu, allowed: allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ") })
}
