//! The daemon's I/O: one thread around an epoll instance.
//!
//! ```text
//!   card: completions, exceptions ─┐
//!   clients, tokens, admin ────────┼─► Daemon::turn ─► Core ─► Machine (Host)
//!   deadline ──────────────────────┘       └─► park; epoll_wait
//! ```

mod admin;
mod closer;
mod machine;
mod operators;
mod rundir;
mod succession;

pub use machine::Machine;

use crate::{
    config::{Device, Settings},
    core::{ClientId, Core, Incoming, mac_text},
};
use admin::Admin;
use anyhow::{Context, Result, bail};
use machine::{Connection, Key, Watched};
use rundir::RunDir;
use rustix::{
    event::{PollFd, PollFlags, epoll::EventFlags, poll},
    fd::{AsFd, OwnedFd},
    io::Errno,
    time::{ClockId, Timespec, clock_gettime},
};
use std::{collections::BTreeSet, io::Read, os::unix::net::UnixStream, time::Duration};
use toe_abi::app::{MSG_LEN, Request};
use toe_engine::Engine;
use toe_link::{
    card::{Card, CardError, PortLink, VfioUser, Window},
    uds,
};
use zerocopy::FromBytes;

/// Completions, exceptions, and requests of one client taken before the others get their turn.
const BATCH: usize = 256;
/// Processes connected at a time.
const CLIENTS_MAX: usize = 8192;
/// How long an orderly end may take before the rest is left to the card.
const DRAIN_US: u64 = 2_000_000;

/// After accept() has failed for want of something, others are not asked in before.
const ACCEPT_AGAIN_US: u64 = 100_000;
/// The card's status is read at most so often: on some links that is a message.
const LOOK_EVERY_US: u64 = 50_000;
/// The same if the card has called and had something for us: hardly for its status then.
const LOOK_EVERY_BUSY_US: u64 = 1_000_000;

/// Microseconds on the monotonic clock, which the soft card reads as well.
fn now_us() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000
}

/// Why a start failed, or how a run ended.
#[derive(Debug)]
pub enum End {
    /// Asked to.
    Orderly,
    /// The options or the environment are wrong: nothing was changed.
    Refused(anyhow::Error),
    /// Something broke on the way.
    Failed(anyhow::Error),
}

/// Runs toed until it is told to end.
pub fn run(settings: &Settings) -> End {
    let daemon = match Daemon::start(settings) {
        Ok(daemon) => daemon,
        Err(e) => return End::Refused(e),
    };
    match daemon.serve() {
        Ok(()) => End::Orderly,
        Err(e) => End::Failed(e),
    }
}

struct Daemon<'a> {
    settings: &'a Settings,
    core: Core<Machine>,
    admin: Admin,
    app_listener: OwnedFd,
    app_key: Key,
    /// Nobody is asked in before.
    accept_again_us: Option<u64>,
    admin_listener: OwnedFd,
    signals: UnixStream,
    next_client: u64,
    /// Clients whose next request waits for the answer to the last.
    held: BTreeSet<ClientId>,
    started_us: u64,
    /// When the card's status was read last, and when it is to be read again.
    looked_us: u64,
    look_at_us: Option<u64>,
    /// The card has called since its queues were looked at.
    called: bool,
    /// The port's link when it was looked at last.
    link: PortLink,
    stop: bool,
    /// Why the card has failed, until another has come in its place.
    failed: Option<anyhow::Error>,
    frame: Vec<u8>,
    /// Descriptors that we may have open.
    descriptors: usize,
    run_dir: RunDir,
}

impl<'a> Daemon<'a> {
    fn start(settings: &'a Settings) -> Result<Self> {
        // Before anything that takes a thread or a descriptor.
        let signals = signal_pipe().context("setting up signals")?;
        let descriptors = raise_descriptor_limit();
        let mut run_dir = RunDir::lock(&settings.run_dir)?;
        let card = connect(&settings.device, &signals)?;
        let now = now_us();
        let mut core = attach(settings, card, descriptors, now)?;
        let app_listener = run_dir.listen_apps()?;
        let watch = &mut core.host().watch;
        watch.add(&signals, Watched::Signals, EventFlags::IN)?;
        let app_key = watch.add(&app_listener, Watched::AppListener, EventFlags::IN)?;
        // Last: who gets an answer there knows that everything else is ready.
        let admin_listener = run_dir.listen_admin()?;
        watch.add(&admin_listener, Watched::AdminListener, EventFlags::IN)?;
        run_dir.forget_failure();
        let link = say_ready(settings, &mut core);
        Ok(Self {
            settings,
            core,
            admin: Admin::default(),
            app_listener,
            app_key,
            accept_again_us: None,
            admin_listener,
            signals,
            next_client: 1,
            held: BTreeSet::new(),
            started_us: now,
            looked_us: now,
            look_at_us: None,
            called: false,
            link,
            stop: false,
            failed: None,
            frame: Vec::new(),
            descriptors,
            run_dir,
        })
    }

    fn serve(mut self) -> Result<()> {
        let result = self.work();
        if let Err(e) = &result {
            self.run_dir.leave_failure(&format!("{e:#}"));
        }
        result
    }

    fn work(&mut self) -> Result<()> {
        let mut found = Vec::new();
        loop {
            while !self.stop && self.failed.is_none() {
                self.turn(&mut found)?;
            }
            if self.failed.is_none() {
                break;
            }
            self.stay()?;
        }
        tracing::info!("ending: connections are reset");
        let now = now_us();
        self.core.shutdown(now);
        while !self.core.is_drained() && self.failed.is_none() && now_us() < now + DRAIN_US {
            self.turn(&mut found)?;
        }
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        self.core.host().flush();
        self.core.host().detach().context("leaving the card")
    }

    /// Does what there is to do, then sleeps until there is more.
    fn turn(&mut self, found: &mut Vec<(Watched, EventFlags)>) -> Result<()> {
        let worked = self.card_work();
        if std::mem::take(&mut self.called) {
            self.look_soon(worked);
        }
        let now = now_us();
        if self.core.next_deadline(now).is_some_and(|t| t <= now) {
            self.core.timer(now);
        }
        if self.look_at_us.is_some_and(|t| t <= now) {
            self.look_at_card(now);
        }
        if self.accept_again_us.is_some_and(|t| t <= now) {
            self.accept_again_us = None;
            self.core.host().watch.modify(&self.app_listener, self.app_key, EventFlags::IN).context("listening to applications")?;
        }
        self.finish_reports();
        self.drop_broken();
        self.resume_held();
        self.core.host().flush();
        if let Some(e) = self.core.host().take_failure() {
            self.card_failed(e.into());
        }
        if self.failed.is_some() {
            return Ok(());
        }
        // While ending, a card that does not answer must not hold us up.
        let patience = self.stop.then_some(now + DRAIN_US);
        let deadline = self.core.next_deadline(now).into_iter().chain(patience).chain(self.accept_again_us).chain(self.look_at_us).min();
        let machine = self.core.host();
        let timeout = if machine.park() { deadline.map(|t| t.saturating_sub(now)) } else { Some(0) };
        machine.watch.wait(timeout, found).context("waiting for events")?;
        machine.unpark();
        // What was closed before something was asked counts for the answer: a port, say, may be free by that.
        found.sort_by_key(|(what, _)| !matches!(what, Watched::Token(..)));
        for (what, flags) in found.drain(..) {
            self.event(what, flags)?;
        }
        Ok(())
    }

    /// The card has called: for what was in its queues, or as it has failed, or its port's link has changed.
    fn look_soon(&mut self, worked: bool) {
        let at = self.looked_us + if worked { LOOK_EVERY_BUSY_US } else { LOOK_EVERY_US };
        self.look_at_us = Some(self.look_at_us.map_or(at, |before| before.min(at)));
    }

    /// Whether it has failed, and how its port's link is.
    fn look_at_card(&mut self, now: u64) {
        (self.looked_us, self.look_at_us) = (now, None);
        let link = self.core.host().port_link();
        let before = std::mem::replace(&mut self.link, link);
        if link != before {
            tracing::info!("the port's link is {}", link.text());
            self.core.link(link.may_be_up(), now);
        }
        if self.core.host().card_status() == "failed" {
            let text = self.core.host().card_failure();
            self.card_failed(match text {
                Some(text) => CardError::Failed { text }.into(),
                None => anyhow::anyhow!("the card reports a failure; see toe-nic's log"),
            });
        }
    }

    /// Applications are told. What comes then: see [`stay`](Self::stay).
    fn card_failed(&mut self, e: anyhow::Error) {
        self.core.card_failed();
        self.core.host().flush();
        self.failed.get_or_insert(e);
    }

    fn event(&mut self, what: Watched, flags: EventFlags) -> Result<()> {
        match what {
            // Its queues are looked at in every turn.
            Watched::Card => self.called = true,
            Watched::CardLink => {
                if let Err(e) = self.core.host().look_at_link() {
                    let (device, hint) = (&self.settings.device, self.settings.device.hint());
                    self.card_failed(anyhow::Error::new(e).context(format!("the card at {device} is gone: {hint}")));
                }
            }
            Watched::Signals => {
                let _ = (&self.signals).read(&mut [0; 16]);
                self.stop = true;
            }
            Watched::AppListener => self.accept_clients(),
            Watched::AdminListener => self.admin.accept(&self.admin_listener, &mut self.core.host().watch),
            Watched::Client(client) => self.serve_client(client, flags),
            Watched::Admin(id) => {
                let watch = &mut self.core.host().watch;
                if flags.contains(EventFlags::OUT) {
                    self.admin.write(id, watch);
                }
                if flags.intersects(EventFlags::ERR) {
                    self.admin.close(id, watch);
                } else if flags.intersects(EventFlags::IN | EventFlags::HUP) {
                    self.admin.read(id, watch);
                    self.serve_admin(id);
                    if flags.contains(EventFlags::HUP) {
                        self.admin.hung_up(id, &mut self.core.host().watch);
                    }
                }
            }
            Watched::Token(region, slot) => self.core.token_closed(region, slot, now_us()),
        }
        Ok(())
    }

    /// Takes answers, notices and frames from the card. Whether there were any.
    fn card_work(&mut self) -> bool {
        let (now, mut any) = (now_us(), false);
        for _ in 0..BATCH {
            let Some(msg) = self.core.host().completion() else { break };
            self.core.completion(&msg, now);
            any = true;
        }
        let mut frame = std::mem::take(&mut self.frame);
        for _ in 0..BATCH {
            let Some(record) = self.core.host().exception(&mut frame) else { break };
            self.core.frame(&record, &frame, now);
            any = true;
        }
        self.frame = frame;
        any
    }

    fn accept_clients(&mut self) {
        for _ in 0..BATCH {
            if self.core.host().is_behind() {
                return self.accept_later();
            }
            let socket = match uds::accept(&self.app_listener) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(e) => {
                    tracing::warn!("an application could not connect: {e}");
                    return self.accept_later();
                }
            };
            if !self.make_room() {
                let machine = self.core.host();
                tracing::debug!("a process was turned away: {} are connected", machine.clients.len());
                machine.close_foreign(socket);
                continue;
            }
            let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { continue };
            let client = ClientId(self.next_client);
            self.next_client += 1;
            let machine = self.core.host();
            let Ok(key) = machine.watch.add(&socket, Watched::Client(client), EventFlags::IN) else { continue };
            machine.clients.insert(client, Connection { socket, key });
            self.core.client_connected(client, peer.pid.as_raw_nonzero().get(), peer.uid.as_raw());
        }
    }

    /// Makes room for one more client. Those who do not say HELLO are there at others' expense, so they go first.
    fn make_room(&mut self) -> bool {
        let strangers = self.core.strangers();
        let machine = self.core.host();
        let room = machine.clients.len() < CLIENTS_MAX && machine.has_descriptors_for(1);
        if room && strangers < machine.strangers_max() {
            return true;
        }
        let Some(client) = self.core.worst_stranger() else { return false };
        self.end_client(client);
        true
    }

    /// Something is lacking (descriptors, memory). Those who wait stay where they are, so asking at once would be in vain,
    /// again and again.
    fn accept_later(&mut self) {
        if self.core.host().watch.modify(&self.app_listener, self.app_key, EventFlags::empty()).is_ok() {
            self.accept_again_us = Some(now_us() + ACCEPT_AGAIN_US);
        }
    }

    /// Takes one request of a client. The next one is reported again, together with what was closed before it was sent.
    fn serve_client(&mut self, client: ClientId, flags: EventFlags) {
        if self.core.busy(client) {
            // Whose process has gone is reported in every turn, wanted or not, and the card may take long to answer.
            return if flags.intersects(EventFlags::HUP | EventFlags::ERR) { self.end_client(client) } else { self.hold(client) };
        }
        let machine = self.core.host();
        let Some(connection) = machine.clients.get(&client) else { return };
        let (mut buf, mut fds) = ([0; MSG_LEN], Vec::new());
        let received = uds::recv(&connection.socket, &mut buf, &mut fds);
        let request = Request::read_from_bytes(&buf).unwrap_or_default();
        let proof = fds.first().map(|fd| machine.proof(fd.as_fd(), request.slot));
        fds.into_iter().for_each(|fd| machine.close_foreign(fd));
        match received {
            Ok(MSG_LEN) => {}
            Err(Errno::AGAIN) => return,
            Ok(0) | Err(Errno::CONNRESET) => return self.end_client(client),
            Ok(n) => {
                tracing::debug!(client = client.0, "disconnected: a message of {n} bytes, not {MSG_LEN}");
                return self.end_client(client);
            }
            Err(e) => {
                tracing::debug!(client = client.0, "disconnected: {e}");
                return self.end_client(client);
            }
        }
        self.core.request(&Incoming { client, request: &request, proof }, now_us());
    }

    /// Stops listening to a client until its answer is there.
    fn hold(&mut self, client: ClientId) {
        if self.held.insert(client) {
            self.listen_to(client, EventFlags::empty());
        }
    }

    fn listen_to(&mut self, client: ClientId, flags: EventFlags) {
        let machine = self.core.host();
        if let Some(c) = machine.clients.get(&client)
            && machine.watch.modify(&c.socket, c.key, flags).is_err()
        {
            machine.broken.push(client);
        }
    }

    fn resume_held(&mut self) {
        let free: Vec<ClientId> = self.held.iter().copied().filter(|c| !self.core.busy(*c)).collect();
        for client in free {
            self.held.remove(&client);
            self.listen_to(client, EventFlags::IN);
        }
    }

    fn end_client(&mut self, client: ClientId) {
        self.held.remove(&client);
        self.core.host().disconnect(client);
        self.core.client_gone(client, now_us());
    }

    fn drop_broken(&mut self) {
        while let Some(client) = self.core.host().broken.pop() {
            self.end_client(client);
        }
    }
}

/// Makes everything that serves a card, and attaches to it.
fn attach(settings: &Settings, card: Box<dyn Card>, descriptors: usize, now: u64) -> Result<Core<Machine>> {
    let info = *card.info();
    let mut config = settings.core(&info)?;
    let engine = Engine::new(settings.engine(&info, secret()?), now).map_err(|e| anyhow::anyhow!("options: {e}"))?;
    let machine = Machine::new(card, settings.huge_pages, descriptors)?;
    // Each socket is a descriptor here: one application must not have all of them.
    config.limits.sockets = config.limits.sockets.min(u32::try_from(machine::descriptors_lent(descriptors) / 2).unwrap_or(u32::MAX));
    Ok(Core::new(config, machine, engine))
}

/// Applications can come. Returns how the port's link is, which is all that `core` knows of it.
fn say_ready(settings: &Settings, core: &mut Core<Machine>) -> PortLink {
    let machine = core.host();
    let (info, link) = (machine.card_info(), machine.port_link());
    tracing::info!(
        card = %settings.device, mac = mac_text(&info.mac), mtu = info.mtu, link = link.text(), ip = settings.options().ip_addr.join(","),
        run_dir = %settings.run_dir.display(), "ready"
    );
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
    core.link(link.may_be_up(), now_us());
    link
}

/// How long a virtual machine may take until its firmware is ready.
const CARD_WITHIN: Duration = Duration::from_secs(10);

/// The card, when it is there. A signal ends the wait.
fn connect(device: &Device, signals: &UnixStream) -> Result<Box<dyn Card>, CardError> {
    match device {
        Device::VfioUser(path) => Ok(Box::new(VfioUser::connect(path)?)),
        Device::Ivshmem(path) => {
            let mut told = false;
            let waiting = |what: &str| {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("waiting for the card, at most {} s: {what}", CARD_WITHIN.as_secs());
                }
                let mut end = [PollFd::new(signals, PollFlags::IN)];
                poll(&mut end, Some(&Timespec::default())) == Ok(0)
            };
            let card = Window::connect(path, CARD_WITHIN, waiting)?;
            tracing::warn!("applications share one window on this link: they are not protected from each other");
            Ok(Box::new(card))
        }
    }
}

/// SIGTERM, SIGINT, and SIGHUP of a terminal that is closed, as something readable.
fn signal_pipe() -> Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// Each socket of an application is a descriptor here as well. Returns how many there may be.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        tracing::warn!("the limit of open files can't be raised: {:?}", limit.current);
    }
    getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}

/// 16 random bytes: the key of sequence numbers (RFC 6528).
/// RFC 6528 4-1.
fn secret() -> Result<[u8; 16]> {
    let mut secret = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut secret)).context("/dev/urandom: reading a secret")?;
    if secret == [0; 16] {
        bail!("/dev/urandom: gives zeroes");
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    /// RFC 6528 4-1.
    #[test]
    fn each_secret_is_another() {
        assert_ne!(super::secret().unwrap(), super::secret().unwrap());
    }
}
