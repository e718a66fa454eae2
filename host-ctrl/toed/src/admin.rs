//! The admin protocol: what `toectl` and other tools ask on `admin.sock`.
//!
//! One JSON request per line, one JSON answer per line, in order: `{"cmd":"status"}` is answered by a [`Status`],
//! the others as [`Request`] says. What went wrong is a [`Failure`]. [`call`] does one exchange.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};
use toe_abi::counters;

/// Longest request line, bytes.
pub const REQUEST_MAX: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// [`Status`].
    Status,
    /// `Vec<`[`Connection`]`>`.
    Ss,
    /// [`Stats`].
    Stats,
    /// `Vec<`[`Stage`]`>`; null: this card does not tell.
    Stages,
    /// [`Trace`]: the card records from now on how segments pass its stages. One trace at a time; one that nobody has read for
    /// ten seconds is stopped.
    TraceStart,
    /// [`Visits`]: what was recorded since it was last read.
    TraceRead { trace: u64 },
    /// `{}`: the card records no more.
    TraceStop { trace: u64 },
    /// [`Share`]: what the application with this process or this region gets from now on. What is absent stays as it is.
    SetShare { pid: Option<i32>, region: Option<u32>, weight: Option<u32>, rate_kbps: Option<u64> },
    /// [`Ticket`]: who says HELLO with it becomes an application with this share. What is absent is as for all.
    Reserve { weight: Option<u32>, rate_kbps: Option<u64> },
    /// [`Logs`]: what the card has logged from byte `from` on since the start `instance`, or all that there is, if that is not the card's
    /// last start; null: this card has no log that toed can read.
    Logs { instance: u32, from: u32 },
    /// The options that were given, by flag or file, as an object; null: its default.
    Config,
    /// `{}`; then toed resets all connections and ends.
    Shutdown,
}

impl Request {
    /// One line of the protocol.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        // By way of a `Value`: read directly, an enum with a tag refuses all numbers if anything in the program has switched on serde_json's
        // feature `arbitrary_precision`.
        serde_json::from_slice::<serde_json::Value>(line).and_then(serde_json::from_value)
    }
}

/// The answer when a request fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub error: String,
}

impl Failure {
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into() }
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// toed's version.
    pub version: String,
    pub card: CardStatus,
    /// The first of the card's addresses that were given, and its prefix length, `10.0.0.2/24`.
    pub ip: String,
    /// All of them.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Default routers, those that were given and those that have told of themselves, in the order in which they are tried.
    pub gateway: Option<String>,
    /// All routes, in this order too.
    #[serde(default)]
    pub routes: Vec<Route>,
    pub uptime_s: u64,
    pub applications: Vec<Application>,
    pub listeners: Vec<Listener>,
    /// Neighbours known or being asked for.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
    /// Connections being opened.
    #[serde(default)]
    pub half_open: u64,
    /// Connections in TIME-WAIT.
    #[serde(default)]
    pub time_wait: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    /// `10.1.0.0/16`, `fd01::/48`.
    pub dest: String,
    /// The next hop; none: hosts on the link.
    pub via: Option<String>,
}

impl Route {
    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.dest.ends_with("/0")
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CardStatus {
    /// How the card is reached: `vfio-user:/run/toe/card.sock`, `ivshmem:/run/toe/window.sock`.
    pub device: String,
    /// What kind of card it is.
    pub board: String,
    /// MAC address of its port.
    pub port_mac: String,
    /// Bytes of IP packet on the port.
    pub mtu: u32,
    /// The port's link: `up`, `down` or `unknown`.
    #[serde(default)]
    pub link: String,
    /// `attached`, `detached`, `failed` or `gone`.
    pub status: String,
    /// Flows installed.
    pub flows: u32,
    pub flows_max: u32,
    /// Contexts open, toed's included.
    pub contexts: u32,
    pub contexts_max: u32,
    pub regions_max: u32,
    /// Bytes of the card's window that are handed out, and that there are. Absent: memory is the host's own.
    #[serde(default)]
    pub memory_used_bytes: Option<u64>,
    #[serde(default)]
    pub memory_max_bytes: Option<u64>,
    /// Why the card failed, by its own words.
    #[serde(default)]
    pub failure: Option<String>,
}

/// A family of processes that shares a region.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Application {
    /// Region number on the card.
    pub region: u32,
    /// `starting`, `running` or `ending`.
    pub state: String,
    pub pids: Vec<i32>,
    pub contexts: u32,
    /// Socket descriptors, unused ones in the libraries' pools included.
    pub sockets: u32,
    pub connections: u32,
    pub listeners: u32,
    /// Payload buffers handed out, bytes.
    pub memory_bytes: u64,
    /// Payload buffers there can be, bytes.
    pub memory_max_bytes: u64,
    /// Absent: the card did not take it.
    #[serde(default)]
    pub share: Option<Share>,
}

/// What an application gets of the card when it competes with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// From 1 to [`WEIGHT_MAX`](Self::WEIGHT_MAX).
    pub weight: u32,
    /// Most that its connections send together, kbit/s; 0: unlimited. [`crate::rate`] reads and writes it.
    pub rate_kbps: u64,
}

impl Share {
    pub const WEIGHT_MAX: u32 = 1000;
}

/// As the card has it for who was not given another.
impl Default for Share {
    fn default() -> Self {
        Self { weight: 100, rate_kbps: 0 }
    }
}

/// A share that waits for its application, which finds the number in its environment as `TOE_TICKET`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    pub ticket: u64,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Listener {
    /// `10.0.0.2:80`.
    pub local: String,
    pub region: u32,
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// One more than this may wait.
    pub backlog: u32,
    /// Connections that the peer has begun, and not completed.
    pub half_open: u64,
    /// SYNs and final ACKs dropped because no more may wait.
    pub overflows: u64,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Address {
    /// `10.0.0.2/24`, `fd00::2/64`.
    pub ip: String,
    /// `tentative`: others are asked whether they have it; `duplicate`: they have; `preferred`, `deprecated`.
    pub state: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Neighbour {
    pub ip: String,
    /// Absent: not resolved.
    pub mac: Option<String>,
    pub state: String,
    /// The router that has its frames instead, as it is silent or has resigned.
    pub stand_in: Option<String>,
}

/// A connection or a listener, as `ss` shows it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Connection {
    /// `LISTEN`, `SYN-SENT`, `ESTAB`, `FIN-WAIT-1`, ...
    pub state: String,
    pub local: String,
    pub remote: String,
    /// Received bytes the application has not taken; of a listener: connections waiting.
    pub rx_queue: u32,
    /// Bytes written and not acknowledged; of a listener: its backlog.
    pub tx_queue: u32,
    /// Bytes.
    pub cwnd: u32,
    /// Bytes.
    pub ssthresh: u32,
    /// What it is paced at, kbit/s, by its congestion control, the application (SO_MAX_PACING_RATE) or `--cc-pacing`; 0: by nothing.
    #[serde(default)]
    pub rate_kbps: u64,
    pub srtt_us: u32,
    pub rttvar_us: u32,
    /// The shortest round trip of the last minutes.
    #[serde(default)]
    pub min_rtt_us: u32,
    /// How long a segment may be overtaken by others before it counts as lost (RFC 8985); 0: none has been.
    #[serde(default)]
    pub reo_wnd_us: u32,
    /// Congestion control, as TCP_CONGESTION has it; absent where there is no flow.
    #[serde(default)]
    pub cc: Option<String>,
    /// What it is doing, in Linux's words: `open`, `disorder` (something is missing or was probed for), `cwr` (reduced for a congestion
    /// mark), `recovery`, `loss` (after a timeout).
    #[serde(default)]
    pub ca_state: Option<String>,
    /// Consecutive retransmission timeouts now.
    #[serde(default)]
    pub backoff: u32,
    /// Segments sent again since the connection began, where the card counts them.
    #[serde(default)]
    pub retransmits: Option<u32>,
    /// `index.generation`; absent where there is no flow.
    #[serde(default)]
    pub flow: Option<String>,
    pub region: u32,
    /// A process of the application.
    #[serde(default)]
    pub pid: Option<i32>,
}

/// A stage of the card's pipeline, as it is now. Two samples give rates: divide by the difference of `clock_ns`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stage {
    /// `pre`, `protocol`, ... ([`toe_abi::observe::stage`]).
    pub stage: String,
    /// Which replica, or flow group.
    pub instance: u16,
    pub core: u16,
    /// CPU that the core is bound to; absent: it may run anywhere.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Messages that wait for it, and that can wait at most.
    pub queue: u32,
    pub queue_max: u32,
    /// Messages that it may still send on, and that are on their way at most; 0: it gives no credits.
    pub credits: u32,
    pub credits_max: u32,
    /// Messages or frames that it has handled.
    pub items: u64,
    /// How long it was at work.
    pub busy_ns: u64,
    /// The card's clock.
    pub clock_ns: u64,
    /// Its core sleeps.
    pub asleep: bool,
}

/// A trace that was started, as its reader names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    pub trace: u64,
}

/// A part of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Visits {
    /// In no order: each core records for itself.
    pub visits: Vec<Visit>,
    /// Records lost since the start because nobody read them in time.
    pub lost: u64,
}

/// A segment, or other work, was at a stage.
///
/// On its way in it is known by `group` and `number`, from protocol on by `group` and `out`; protocol's own visit has both.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Visit {
    /// `pre`, `protocol`, ... ([`toe_abi::observe::stage`]).
    pub stage: String,
    pub instance: u8,
    pub core: u8,
    pub kind: VisitKind,
    /// The card's clock when the stage took it up, and when it was done.
    pub begin_ns: u64,
    pub end_ns: u64,
    pub group: u16,
    pub number: Option<u32>,
    pub out: Option<u32>,
    /// Absent: not known at this stage.
    pub flow: Option<u32>,
    /// Local port; absent: not known at this stage.
    pub port: Option<u16>,
    /// Sequence number of the segment received or sent, or 0.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// In protocol's visits: the stages that it had still to pass.
    #[serde(default)]
    pub next: Vec<String>,
}

/// What a visit was for ([`toe_abi::observe::trace_kind`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisitKind {
    /// A segment on its way in.
    Rx,
    /// Protocol handled a segment.
    RxOut,
    /// Protocol handled an application's descriptor.
    HcOut,
    /// Protocol handled a descriptor, and nothing came of it that had to be sent on at once.
    HcDone,
    /// Protocol let the connection send a segment.
    TxOut,
    /// On the way out.
    Out,
    /// A descriptor was taken from an application.
    Hc,
    /// An application was told.
    Event,
    /// Something that only a later card knows.
    #[default]
    #[serde(other)]
    Other,
}

/// A part of the card's log, as the card has written it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Logs {
    /// Which start of the card it is about: to be asked with for the next part.
    pub instance: u32,
    /// Which build of its firmware: the GNU build id of its ELF file, hexadecimal. Empty: unknown.
    pub build: String,
    /// That ELF file, as toed was told (`--image`).
    pub image: Option<String>,
    /// defmt's rzCOBS frames, which end in 0, hexadecimal.
    pub bytes: String,
    /// Bytes lost before these: overwritten before anybody asked.
    pub missed: u32,
    /// Where the next part begins.
    pub next: u32,
    /// Messages that the card could not write since its start.
    pub dropped: u32,
}

/// Counters by name: the card's ([`toe_abi::counters`]), `engine_*` and `toed_*`.
pub type Stats = BTreeMap<String, u64>;

/// toed's own counters, and what they count.
pub(crate) const OWN_COUNTERS: [(&str, &str); 13] = [
    ("toed_requests", "Requests of applications."),
    ("toed_requests_refused", "Those that were answered with an error."),
    ("toed_control_refused", "Control messages that the card answered with an error."),
    ("toed_stray_completions", "Answers of the card to what was never asked."),
    ("toed_stray_flows", "Ends of flows that nobody has."),
    ("toed_bad_accept_heads", "Accept queues in which an application had written what cannot be."),
    ("toed_out_of_memory", "Connections for which an application's region had no payload buffers."),
    ("toed_packets_dropped", "Packets not sent, as the ring to the card was full for too long."),
    ("toed_applications", "Applications now."),
    ("toed_clients", "Processes connected now."),
    ("toed_flows", "Flows on the card now."),
    ("toed_listeners", "Listeners now."),
    ("toed_control_in_flight", "Control messages that the card has still to answer, now."),
];

/// What each of [`Stats`] counts.
pub fn explanations() -> BTreeMap<String, &'static str> {
    let card = (0..counters::TOTAL).filter_map(|i| Some((counters::name(i)?.to_owned(), counters::help(i)?)));
    let own = OWN_COUNTERS.iter().map(|(name, help)| ((*name).to_owned(), *help));
    let none = toe_engine::Counters::default();
    let engine = none.all().map(|(name, _, help)| (format!("engine_{name}"), help));
    card.chain(own).chain(engine).map(|(name, help)| (name, help.trim())).collect()
}

/// Asks the toed that listens on `socket`. An error names the step that failed.
pub fn call<T: DeserializeOwned>(socket: &Path, request: Request, deadline: Duration) -> io::Result<T> {
    let step = |what: &str, e: io::Error| io::Error::new(e.kind(), format!("{what} {}: {e}", socket.display()));
    let stream = UnixStream::connect(socket).map_err(|e| step("connecting to", e))?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut line = serde_json::to_string(&request)?;
    line.push('\n');
    (&stream).write_all(line.as_bytes()).map_err(|e| step("writing to", e))?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).map_err(|e| step("reading from", e))?;
    if answer.is_empty() {
        return Err(step("reading from", io::ErrorKind::UnexpectedEof.into()));
    }
    if let Ok(Failure { error }) = serde_json::from_str(&answer) {
        return Err(io::Error::other(error));
    }
    serde_json::from_str(&answer).map_err(|e| step("understanding the answer of", e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_documentation_says() {
        assert_eq!(serde_json::to_string(&Request::Ss).expect("serializes"), r#"{"cmd":"ss"}"#);
        let parse = |line: &str| Request::parse(line.as_bytes());
        assert_eq!(parse(r#"{"cmd":"status"}"#).expect("parses"), Request::Status);
        assert!(parse(r#"{"cmd":"format"}"#).is_err());
        assert_eq!(
            parse(r#"{"cmd":"logs","instance":7,"from":4294967295}"#).expect("parses"),
            Request::Logs { instance: 7, from: u32::MAX }
        );
        assert_eq!(serde_json::to_string(&Request::TraceStart).expect("serializes"), r#"{"cmd":"trace_start"}"#);
        let read = Request::TraceRead { trace: u64::MAX };
        assert_eq!(serde_json::to_string(&read).expect("serializes"), r#"{"cmd":"trace_read","trace":18446744073709551615}"#);
        assert_eq!(parse(r#"{"cmd":"trace_read","trace":18446744073709551615}"#).expect("parses"), read);
        assert!(parse(r#"{"cmd":"trace_read"}"#).is_err());
        let limit = Request::SetShare { pid: Some(7), region: None, weight: None, rate_kbps: Some(1000) };
        assert_eq!(parse(r#"{"cmd":"set_share","pid":7,"rate_kbps":1000}"#).expect("parses"), limit);
    }

    #[test]
    fn a_visit_of_an_unknown_kind_is_understood_as_such() {
        assert_eq!(serde_json::to_string(&VisitKind::RxOut).expect("serializes"), r#""rx_out""#);
        assert_eq!(serde_json::from_str::<VisitKind>(r#""warp""#).expect("parses"), VisitKind::Other);
    }

    #[test]
    fn a_status_survives_the_wire() {
        let status =
            Status { version: "1".into(), applications: vec![Application { pids: vec![7], ..Default::default() }], ..Default::default() };
        let line = serde_json::to_string(&status).expect("serializes");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Status>(&line).expect("parses"), status);
    }
}
