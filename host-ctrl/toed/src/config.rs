//! Options: flags, a TOML file with the same names, defaults. FlexTOE's names and units where the thing exists here;
//! `docs/toed.md` lists what differs.

mod congestion;
mod device;
mod opening;
mod sizes;

pub use device::Device;

use crate::{
    admin::Share,
    core::{CoreConfig, Limits},
    rate,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use congestion::algorithm;
use opening::Opening;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use serde::{Deserialize, Serialize};
use sizes::Sizes;
use std::{
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};
use toe_abi::desc;
use toe_engine::{BufferLog2, Config as EngineConfig, Prefix, addr, rates::Params, route::Route};
use toe_link::card::CardInfo;
use tracing::level_filters::LevelFilter;

/// The control plane daemon of a FerroTOE card: opens and closes its TCP connections, resolves addresses, serves applications.
///
/// Flags win over the file named by --config, which has the same names without the dashes in front (`ip-addr = "10.0.0.2/24"`).
/// On a card behind ivshmem all memory is one window: it bounds --shm-len and what else an application has, defaults are smaller (the
/// documentation lists them), --huge-pages does nothing, and applications are NOT protected from each other.
/// Sizes are bytes, times are microseconds unless an option says otherwise.
///
/// Exit status: 0 after an orderly end, 1 when something failed on the way (the card has gone), 2 when options or the environment are wrong.
#[derive(Parser, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[command(name = "toed", version, max_term_width = 120)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// Read options from this TOML file.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The card: `vfio-user:PATH` is a toe-nic that listens on the UNIX socket PATH, `ivshmem:PATH` a card inside QEMU whose window has
    /// the toe-window that listens on PATH. [default: vfio-user:RUN_DIR/card.sock]
    #[arg(long, value_name = "DRIVER:PATH", help_heading = "Card")]
    pub device: Option<String>,
    /// The firmware of a card behind ivshmem, as ELF: toectl logs finds the words of the card's messages there. [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Card")]
    pub image: Option<PathBuf>,
    /// Folder for toed.sock (applications) and admin.sock (toectl). [default: $TOE_RUN_DIR, else /run/toe as root,
    /// $XDG_RUNTIME_DIR/toe or /tmp/toe-UID]
    #[arg(long, value_name = "DIR", help_heading = "Card")]
    pub run_dir: Option<PathBuf>,

    /// Bytes of payload buffers of one application; memory is taken when used. [default: half of the machine's memory, at most 17179869184]
    #[arg(long, value_name = "BYTES", help_heading = "Memory and limits of one application")]
    pub shm_len: Option<u64>,
    /// Bytes of each application-to-card queue, 64 a descriptor, a power of two. [default: 262144]
    #[arg(long, value_name = "BYTES", help_heading = "Memory and limits of one application")]
    pub app_kin_len: Option<u64>,
    /// Bytes of each card-to-application queue, 64 a descriptor, a power of two. [default: 262144]
    #[arg(long, value_name = "BYTES", help_heading = "Memory and limits of one application")]
    pub app_kout_len: Option<u64>,
    /// Connections. [default: 8192]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub max_connections: Option<u32>,
    /// Sockets, connected or not; at most 65536. [default: 8192]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub max_sockets: Option<u32>,
    /// Listening sockets. [default: 256]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub max_listeners: Option<u32>,
    /// Connections that may wait at one listener (listen's backlog is cut to it), a power of two. [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub max_backlog: Option<u32>,
    /// Contexts: processes, or threads of a library with a context each. [default: 64]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub max_contexts: Option<u32>,
    /// Weight of its connections when they compete with other applications' for the card, from 1 to 1000. [default: 100]
    #[arg(long, value_name = "N", help_heading = "Memory and limits of one application")]
    pub app_weight: Option<u32>,
    /// Most that its connections send together: 500kbit, 2.5gbit, unlimited. [default: unlimited]
    #[arg(long, value_name = "RATE", help_heading = "Memory and limits of one application")]
    pub app_rate: Option<String>,
    /// Use 2 MiB pages where the system has some free; they are reserved when an application starts. For programs that you trust: one
    /// that punches holes into its memory, and takes the system's huge pages itself, ends toed and the card by SIGBUS.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "Memory and limits of one application")]
    pub huge_pages: Option<bool>,

    /// Round-trip time assumed before the first sample, microseconds; 0: none (RFC 6298: first timeout after 1 s). [default: 0]
    #[arg(long, value_name = "US", help_heading = "TCP")]
    pub tcp_rtt_init: Option<u32>,
    /// Link bandwidth, Gbit/s: no rate of congestion control is above it. [default: 40]
    #[arg(long, value_name = "GBPS", help_heading = "TCP")]
    pub tcp_link_bw: Option<u32>,
    /// Receive buffer of a connection, bytes, a power of two from 4096 to 1073741824. [default: 1048576]
    #[arg(long, value_name = "BYTES", help_heading = "TCP")]
    pub tcp_rxbuf_len: Option<u64>,
    /// Transmit buffer of a connection, bytes, a power of two from 4096 to 1073741824. [default: 1048576]
    #[arg(long, value_name = "BYTES", help_heading = "TCP")]
    pub tcp_txbuf_len: Option<u64>,
    /// First retransmission of a SYN or SYN-ACK after this, microseconds; doubles each time, up to 60 s. [default: 1000000]
    #[arg(long, value_name = "US", help_heading = "TCP")]
    pub tcp_handshake_timeout: Option<u64>,
    /// Retransmissions of a SYN or SYN-ACK. [default: 6]
    #[arg(long, value_name = "N", help_heading = "TCP")]
    pub tcp_handshake_retries: Option<u8>,
    /// Half-open connections of one listener. [default: 1024]
    #[arg(long, value_name = "N", help_heading = "TCP")]
    pub tcp_max_syn_backlog: Option<u32>,
    /// SYN cookies: 0: never, the oldest half-open connection makes room; 1: when a listener has as many half-open connections as it may;
    /// 2: always, for tests. A connection through a cookie has window scaling, SACK and ECN only if its peer has timestamps. [default: 1]
    #[arg(long, value_name = "N", help_heading = "TCP")]
    pub tcp_syncookies: Option<u8>,
    /// Negotiate ECN (RFC 3168). Connections of dctcp and dctcp-rate do in any case.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "TCP")]
    pub tcp_ecn: Option<bool>,
    /// Least that is added to the round-trip time for a retransmission timeout, microseconds, from 5000 to 1000000, rounded up to a multiple of 4000.
    /// Peers that delay ACKs by more make for needless timeouts. [default: 200000]
    #[arg(long, value_name = "US", help_heading = "TCP")]
    pub tcp_rto_min: Option<u32>,
    /// TIME-WAIT (2 MSL), microseconds. [default: 60000000]
    #[arg(long, value_name = "US", help_heading = "TCP")]
    pub time_wait: Option<u64>,
    /// Longest FIN-WAIT-2 of a connection that no program holds any more, microseconds; also how long connections of an
    /// application that has ended may go on closing. [default: 60000000]
    #[arg(long, value_name = "US", help_heading = "TCP")]
    pub fin_wait2: Option<u64>,

    /// Congestion control of connections that do not ask for another (TCP_CONGESTION). Windows, on the card: reno, cubic, dctcp.
    /// Rates, set by toed: dctcp-rate, timely, const-rate. [default: cubic]
    #[arg(long, value_name = "ALGORITHM", help_heading = "Congestion control")]
    pub cc: Option<String>,
    /// Windows: spread each over its round trip (pacing), instead of sending as fast as acknowledgements come.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "Congestion control")]
    pub cc_pacing: Option<bool>,
    /// Rates: least time between two rates of a connection, microseconds. [default: 1000]
    #[arg(long, value_name = "US", help_heading = "Congestion control")]
    pub cc_control_granularity: Option<u64>,
    /// Rates: round-trip times between two rates of a connection. [default: 2]
    #[arg(long, value_name = "N", help_heading = "Congestion control")]
    pub cc_control_interval: Option<u32>,
    /// dctcp-rate: weight of an interval in the estimate of the marked part. [default: 0.0625]
    #[arg(long, value_name = "WEIGHT", help_heading = "Congestion control")]
    pub cc_dctcp_weight: Option<f64>,
    /// dctcp-rate: multiplicative increase by this part of the rate, 0: additive. [default: 0]
    #[arg(long, value_name = "PART", help_heading = "Congestion control")]
    pub cc_dctcp_mimd: Option<f64>,
    /// dctcp-rate: least rate, kbit/s. [default: 0]
    #[arg(long, value_name = "KBPS", help_heading = "Congestion control")]
    pub cc_dctcp_min: Option<u32>,
    /// const-rate: the rate of every connection, kbit/s; 0: unlimited. [default: 0]
    #[arg(long, value_name = "KBPS", help_heading = "Congestion control")]
    pub cc_const_rate: Option<u32>,
    /// timely: below this round-trip time rates grow, microseconds. [default: 30]
    #[arg(long, value_name = "US", help_heading = "Congestion control")]
    pub cc_timely_tlow: Option<u32>,
    /// timely: above this round-trip time rates fall, microseconds. [default: 150]
    #[arg(long, value_name = "US", help_heading = "Congestion control")]
    pub cc_timely_thigh: Option<u32>,
    /// timely: additive increase, kbit/s. [default: 10000]
    #[arg(long, value_name = "KBPS", help_heading = "Congestion control")]
    pub cc_timely_step: Option<u32>,
    /// timely: rate of a new connection, kbit/s. [default: 10000]
    #[arg(long, value_name = "KBPS", help_heading = "Congestion control")]
    pub cc_timely_init: Option<u32>,
    /// timely: weight of a difference of round-trip times. [default: 0.02]
    #[arg(long, value_name = "WEIGHT", help_heading = "Congestion control")]
    pub cc_timely_alpha: Option<f64>,
    /// timely: multiplicative decrease. [default: 0.8]
    #[arg(long, value_name = "PART", help_heading = "Congestion control")]
    pub cc_timely_beta: Option<f64>,
    /// timely: round-trip time without queues, microseconds. [default: 11]
    #[arg(long, value_name = "US", help_heading = "Congestion control")]
    pub cc_timely_minrtt: Option<u32>,
    /// timely: least rate, kbit/s. [default: 10000]
    #[arg(long, value_name = "KBPS", help_heading = "Congestion control")]
    pub cc_timely_minrate: Option<u32>,

    /// The card's address and prefix length (10.0.0.2/24, fd00::2/64); several with commas or by repetition. Required, unless --slaac.
    #[arg(long, value_name = "ADDR[/PREFIXLEN]", value_delimiter = ',', help_heading = "IP")]
    #[serde(deserialize_with = "one_or_more")]
    pub ip_addr: Vec<String>,
    /// Ports chosen for sockets that did not ask for one. [default: 32768-60999]
    #[arg(long, value_name = "FIRST-LAST", help_heading = "IP")]
    pub ip_local_port_range: Option<String>,
    /// A route, of IPv4 or IPv6, and the congestion control of connections over it; may be given more than once. [default: none]
    #[arg(long, value_name = "DEST[/PREFIX],NEXTHOP[,cc=ALGORITHM][,pacing=BOOL]", help_heading = "IP")]
    pub ip_route: Vec<String>,
    /// Default routers, of IPv4 and IPv6, with commas or by repetition; of several of one version the first that answers is used. [default: none]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', help_heading = "IP")]
    #[serde(deserialize_with = "one_or_more")]
    pub gateway: Vec<String>,
    /// Take IPv6 addresses, routers and the MTU from router advertisements (RFC 4862). Whoever is on the link can send them.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "IP")]
    pub slaac: Option<bool>,
    /// The 802.1Q VLAN that the card is on, 1 to 4094: what it sends is tagged, what is not of this VLAN it does not hear. [default: none]
    #[arg(long, value_name = "ID", help_heading = "IP")]
    pub vlan: Option<u16>,
    /// The kernel's interface that the card has taken over: what programs call fe80::1%NAME is on the card's link. [default: none]
    #[arg(long, value_name = "NAME", help_heading = "IP")]
    pub interface: Option<String>,
    /// First timeout of an ARP request or neighbour solicitation, microseconds; doubles each time. [default: 250000]
    #[arg(long, value_name = "US", help_heading = "IP")]
    pub arp_timeout: Option<u64>,
    /// Resolving an address gives up when the timeout would exceed this, microseconds. [default: 1000000]
    #[arg(long, value_name = "US", help_heading = "IP")]
    pub arp_timeout_max: Option<u64>,
    /// Neighbours are asked again after this, microseconds. [default: 30000000]
    #[arg(long, value_name = "US", help_heading = "IP")]
    pub arp_expire: Option<u64>,

    /// Log only warnings and errors.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "Logging")]
    pub quiet: Option<bool>,
    /// off, error, warn, info, debug or trace, or a filter as tracing has them (`toed=debug,info`). [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub log_level: Option<String>,

    // FlexTOE options of things that are otherwise here: refused with a word about what to use instead.
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic_rx_len: Option<String>,
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic_tx_len: Option<String>,
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cc_rexmit_ints: Option<String>,
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fp_poll_interval_app: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_console: Option<String>,
}

/// Takes from `$file` what `$flags` leaves open.
macro_rules! fill {
    ($flags:ident, $file:ident: $($name:ident)*) => { $($flags.$name = $flags.$name.take().or($file.$name);)* };
}

impl Options {
    /// Flags, completed by the file that they name.
    pub fn complete(mut self) -> Result<Self> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("--config: reading {}", path.display()))?;
        let file: Options = toml::from_str(&text).with_context(|| format!("--config: {}", path.display()))?;
        fill!(self, file: device image run_dir shm_len app_kin_len app_kout_len max_connections max_sockets max_listeners
            max_backlog max_contexts app_weight app_rate huge_pages tcp_rtt_init tcp_link_bw tcp_rxbuf_len tcp_txbuf_len
            tcp_handshake_timeout tcp_handshake_retries tcp_max_syn_backlog tcp_syncookies cc cc_pacing cc_control_granularity cc_control_interval cc_dctcp_weight
            cc_dctcp_mimd cc_dctcp_min cc_const_rate cc_timely_tlow cc_timely_thigh cc_timely_step cc_timely_init cc_timely_alpha
            cc_timely_beta cc_timely_minrtt cc_timely_minrate cc_rexmit_ints tcp_ecn tcp_rto_min time_wait fin_wait2 ip_local_port_range slaac vlan interface arp_timeout
            arp_timeout_max arp_expire quiet log_level nic_rx_len nic_tx_len fp_poll_interval_app debug_console);
        if self.ip_addr.is_empty() {
            self.ip_addr = file.ip_addr;
        }
        if self.ip_route.is_empty() {
            self.ip_route = file.ip_route;
        }
        if self.gateway.is_empty() {
            self.gateway = file.gateway;
        }
        Ok(self)
    }
}

/// `"a"`, or `["a", "b"]`.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(from)? {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    })
}

/// What toed works with: complete and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub device: Device,
    /// The card's firmware as ELF.
    pub image: Option<PathBuf>,
    pub run_dir: PathBuf,
    pub addresses: Vec<Prefix>,
    /// Default routers.
    pub gateways: Vec<IpAddr>,
    pub huge_pages: bool,
    pub log_filter: String,
    share: Share,
    scope: u32,
    options: Options,
    routes: Vec<Route>,
    cc: u8,
    opening: Opening,
    rates: Params,
}

impl Settings {
    pub fn new(options: Options) -> Result<Self> {
        refuse_replaced(&options)?;
        let run_dir = options.run_dir.clone().unwrap_or_else(toe_link::client::run_dir);
        let device = options.device.as_deref().map_or_else(|| Ok(Device::VfioUser(run_dir.join("card.sock"))), Device::parse)?;
        let addresses = addresses(&options)?;
        let gateways = gateways(&options, &addresses)?;
        // What they are in the end, the card's memory says; whether they are wrong, not.
        let sizes = Sizes::new(None);
        limits(&options, &sizes)?;
        ensure!(
            options.tcp_rto_min.is_none_or(|us| RTO_MIN_US.contains(&us)),
            "--tcp-rto-min: from {} to {} microseconds",
            RTO_MIN_US.start(),
            RTO_MIN_US.end()
        );
        buffers(&options, &sizes)?;
        Ok(Self {
            share: share(&options)?,
            scope: options.interface.as_deref().map_or(Ok(0), scope)?,
            routes: options.ip_route.iter().map(|r| route(r, &options, &addresses)).collect::<Result<_>>()?,
            cc: algorithm("--cc", options.cc.as_deref().unwrap_or("cubic"))?,
            opening: Opening::new(&options)?,
            rates: congestion::rates(&options)?,
            huge_pages: options.huge_pages == Some(true),
            log_filter: log_filter(&options)?,
            device,
            image: options.image.as_ref().and_then(|path| std::path::absolute(path).ok()),
            run_dir,
            addresses,
            gateways,
            options,
        })
    }

    /// For the engine, with the card's own facts.
    pub fn engine(&self, card: &CardInfo, secret: [u8; 16]) -> EngineConfig {
        let o = &self.options;
        let base = self.opening.apply(EngineConfig::new(card.mac, self.addresses.clone()));
        EngineConfig {
            gateways: self.gateways.iter().map(|g| mapped(*g)).collect(),
            slaac: o.slaac == Some(true),
            stable_secret: machine_id().unwrap_or(secret),
            vlan: o.vlan.unwrap_or(0),
            routes: self.routes.clone(),
            mtu: u16::try_from(card.mtu).unwrap_or(u16::MAX),
            handshake_timeout_us: o.tcp_handshake_timeout.unwrap_or(base.handshake_timeout_us),
            handshake_retries: o.tcp_handshake_retries.unwrap_or(base.handshake_retries),
            arp_timeout_us: o.arp_timeout.unwrap_or(base.arp_timeout_us),
            arp_timeout_max_us: o.arp_timeout_max.unwrap_or(base.arp_timeout_max_us),
            arp_expire_us: o.arp_expire.unwrap_or(base.arp_expire_us),
            time_wait_us: o.time_wait.unwrap_or(base.time_wait_us),
            fin_wait2_us: o.fin_wait2.unwrap_or(base.fin_wait2_us),
            connections_max: card.max_flows as usize,
            secret,
            cc: self.cc,
            cc_pacing: o.cc_pacing.unwrap_or(base.cc_pacing),
            next_hops: u16::try_from(card.max_next_hops).unwrap_or(u16::MAX),
            ecn: o.tcp_ecn.unwrap_or(base.ecn),
            rto_min_us: o.tcp_rto_min.unwrap_or(base.rto_min_us),
            rtt_init_us: o.tcp_rtt_init.unwrap_or(base.rtt_init_us),
            ..base
        }
    }

    /// For the core. An error: with these settings no application could start on this card.
    pub fn core(&self, card: &CardInfo) -> Result<CoreConfig> {
        let sizes = Sizes::new(card.memory_max);
        let limits = limits(&self.options, &sizes)?;
        sizes.check(&limits)?;
        let base = CoreConfig::new(self.addresses.first().copied());
        Ok(CoreConfig {
            limits,
            buffers: buffers(&self.options, &sizes)?,
            card_contexts: u16::try_from(card.max_contexts).unwrap_or(u16::MAX),
            card_regions: u16::try_from(card.max_regions).unwrap_or(u16::MAX),
            unprivileged_port_start: unprivileged_port_start().unwrap_or(base.unprivileged_port_start),
            uid: rustix::process::geteuid().as_raw(),
            linger_us: self.options.fin_wait2.unwrap_or(base.linger_us),
            share: self.share,
            vlan: self.options.vlan.unwrap_or(0),
            scope: self.scope,
            rates: self.rates.clone(),
            ..base
        })
    }

    /// The options given, for `config` on the admin socket.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// The system's, for toed's network namespace (ip-sysctl.rst).
fn unprivileged_port_start() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?.trim().parse().ok()
}

/// What a flow's state has room for, and clocks of milliseconds can tell.
const RTO_MIN_US: std::ops::RangeInclusive<u32> = 5_000..=1_000_000;

fn refuse_replaced(o: &Options) -> Result<()> {
    let ring = "toed's rings to the card have a fixed size (toe_abi::control); leave it out";
    let poll = "the library decides: set TOE_SPIN_US (microseconds) in the application's environment";
    let console = "use toectl status, ss and stats, or the admin socket";
    let replaced = [
        ("--nic-rx-len", &o.nic_rx_len, ring),
        ("--nic-tx-len", &o.nic_tx_len, ring),
        ("--cc-rexmit-ints", &o.cc_rexmit_ints, "the card retransmits by its own timers (RFC 6298); leave it out"),
        ("--fp-poll-interval-app", &o.fp_poll_interval_app, poll),
        ("--debug-console", &o.debug_console, console),
    ];
    match replaced.iter().find(|(_, value, _)| value.is_some()) {
        Some((name, _, instead)) => Err(anyhow!("{name} is FlexTOE's; here {instead}")),
        None => Ok(()),
    }
}

/// As toe_abi has it.
fn mapped(ip: IpAddr) -> addr::Ip {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `ADDR[/LEN]`; without a length, that of its version. None: it is not that.
fn prefix(text: &str, v4_len: u8, v6_len: u8) -> Option<Prefix> {
    let (ip, len) = text.trim().split_once('/').map_or((text.trim(), None), |(ip, len)| (ip, Some(len)));
    let ip: IpAddr = ip.parse().ok()?;
    // "::ffff:10.0.0.1" would be taken for one of IPv4.
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return None;
    }
    let usual = if ip.is_ipv4() { v4_len } else { v6_len };
    Prefix::new(mapped(ip), len.map_or(Some(usual), |len| len.parse().ok())?)
}

fn addresses(o: &Options) -> Result<Vec<Prefix>> {
    let none = o.ip_addr.is_empty() && o.slaac != Some(true);
    ensure!(!none, "--ip-addr is missing: the card needs an address, such as --ip-addr 10.0.0.2/24 or fd00::2/64, or --slaac");
    ensure!(o.vlan.is_none_or(|id| (1..=4094).contains(&id)), "--vlan {}: must be from 1 to 4094", o.vlan.unwrap_or_default());
    let mut all: Vec<Prefix> = Vec::new();
    for text in &o.ip_addr {
        let wrong = || format!("--ip-addr {text}: not ADDR[/PREFIXLEN], such as 10.0.0.2/24 or fd00::2/64");
        let address = prefix(text, 24, 64).with_context(wrong)?;
        ensure!(addr::is_host(&address.ip), "--ip-addr {text}: no host can have this address");
        ensure!(all.iter().all(|a| a.ip != address.ip), "--ip-addr {text}: given twice");
        all.push(address);
    }
    Ok(all)
}

/// The number of an interface.
fn scope(interface: &str) -> Result<u32> {
    let find = || {
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        netdevice::name_to_index(&any, interface)
    };
    find().with_context(|| format!("--interface {interface}"))
}

/// A router must be on the same link.
fn gateways(o: &Options, addresses: &[Prefix]) -> Result<Vec<IpAddr>> {
    let gateway = |text: &String| {
        let g: IpAddr = text.trim().parse().with_context(|| format!("--gateway {text}: not an address"))?;
        ensure!(is_neighbour(g, o, addresses), "--gateway {g}: not a neighbour of the card; a router must be on the same link");
        Ok(g)
    };
    o.gateway.iter().map(gateway).collect()
}

/// Whether a host with this address can be on the card's link.
fn is_neighbour(host: IpAddr, o: &Options, addresses: &[Prefix]) -> bool {
    let ip = mapped(host);
    let has_v6 = o.slaac == Some(true) || addresses.iter().any(|a| !is_v4(a));
    let link_local = matches!(host, IpAddr::V6(v6) if v6.is_unicast_link_local()) && has_v6;
    link_local || addresses.iter().any(|a| a.contains(&ip) && a.ip != ip)
}

fn log_filter(o: &Options) -> Result<String> {
    let usual = if o.quiet == Some(true) { "warn" } else { "info" };
    let word = o.log_level.as_deref().unwrap_or(usual);
    if word.contains(['=', ',']) {
        return Ok(word.to_owned());
    }
    // It would be taken for a module of that name, and all else would be silent.
    ensure!(word.parse::<LevelFilter>().is_ok(), "--log-level {word}: not off, error, warn, info, debug, trace or a filter");
    // The link's library logs every message at debug: only who asks for it by name gets that.
    Ok(format!("{word},vfio_user=warn"))
}

fn is_v4(prefix: &Prefix) -> bool {
    Ipv6Addr::from(prefix.ip).to_ipv4_mapped().is_some()
}

fn route(text: &str, o: &Options, addresses: &[Prefix]) -> Result<Route> {
    let wrong = || {
        format!(
            "--ip-route {text}: not DEST[/PREFIX],NEXTHOP[,cc=ALGORITHM][,pacing=BOOL], such as 192.168.0.0/16,10.0.0.1 or fd01::/48,fe80::1"
        )
    };
    let mut words = text.split(',');
    let (dest, via) = words.next().zip(words.next()).with_context(wrong)?;
    let dest = prefix(dest, 32, 128).with_context(wrong)?;
    let via: IpAddr = via.trim().parse().with_context(wrong)?;
    ensure!(via.is_ipv4() == is_v4(&dest), "--ip-route {text}: both ends must be of one version");
    // Of a prefix that routers are still to advertise nothing is known yet.
    let is_unknown = o.slaac == Some(true) && via.is_ipv6();
    ensure!(
        is_unknown || is_neighbour(via, o, addresses),
        "--ip-route {text}: {via} is no neighbour of the card; a next hop must be on the same link"
    );
    let mut route = Route::new(dest, Some(mapped(via)));
    for word in words {
        match word.trim().split_once('=').with_context(wrong)? {
            ("cc", name) if route.cc.is_none() => route.cc = Some(algorithm("--ip-route: cc", name)?),
            ("pacing", value) if route.pacing.is_none() => route.pacing = Some(value.parse().ok().with_context(wrong)?),
            _ => bail!(wrong()),
        }
    }
    Ok(route)
}

/// What tells this machine from others and stays: the key of the numbers that addresses are made of.
fn machine_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    u128::from_str_radix(text.trim(), 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes)
}

fn power_of_two(option: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
    let (low, high) = (range.start(), range.end());
    let fits = value.is_power_of_two() && range.contains(&value);
    ensure!(fits, "{option} {value}: must be a power of two from {low} to {high}");
    Ok(value)
}

fn buffer_log2(option: &str, bytes: Option<u64>, default: u8) -> Result<u8> {
    let bytes = power_of_two(option, bytes.unwrap_or(1 << default), 4096..=1 << 30)?;
    Ok(bytes.ilog2() as u8)
}

fn buffers(o: &Options, sizes: &Sizes) -> Result<BufferLog2> {
    Ok(BufferLog2 {
        tx: buffer_log2("--tcp-txbuf-len", o.tcp_txbuf_len, sizes.buffer_log2)?,
        rx: buffer_log2("--tcp-rxbuf-len", o.tcp_rxbuf_len, sizes.buffer_log2)?,
    })
}

fn queue_entries(option: &str, bytes: Option<u64>, default: u32) -> Result<u32> {
    let Some(bytes) = bytes else { return Ok(default) };
    let len = desc::DESC_LEN as u64;
    let low = len * u64::from(desc::MIN_ENTRIES);
    Ok((power_of_two(option, bytes, low..=len << 20)? / len) as u32)
}

fn count(option: &str, value: Option<u32>, default: u32, most: u32) -> Result<u32> {
    let value = value.unwrap_or(default);
    ensure!((1..=most).contains(&value), "{option} {value}: must be from 1 to {most}");
    Ok(value)
}

fn share(o: &Options) -> Result<Share> {
    let rate = o.app_rate.as_deref().unwrap_or("unlimited");
    Ok(Share {
        weight: count("--app-weight", o.app_weight, Share::default().weight, Share::WEIGHT_MAX)?,
        rate_kbps: rate::parse(rate).map_err(|e| anyhow!("--app-rate {rate}: {e}"))?,
    })
}

fn limits(o: &Options, sizes: &Sizes) -> Result<Limits> {
    let d = &sizes.limits;
    let payload_len = o.shm_len.unwrap_or(d.payload_len);
    // Buffer offsets are 32-bit counts of 64 bytes, and the rest of a region stays below 16 GiB.
    ensure!((1 << 16..=1 << 37).contains(&payload_len), "--shm-len {payload_len}: must be from 65536 to {}", 1u64 << 37);
    let backlog = u64::from(o.max_backlog.unwrap_or(d.accept_entries));
    Ok(Limits {
        contexts: count("--max-contexts", o.max_contexts, d.contexts, 1024)?,
        hc_entries: queue_entries("--app-kin-len", o.app_kin_len, d.hc_entries)?,
        ev_entries: queue_entries("--app-kout-len", o.app_kout_len, d.ev_entries)?,
        sockets: count("--max-sockets", o.max_sockets, d.sockets, 1 << 16)?,
        listeners: count("--max-listeners", o.max_listeners, d.listeners, 4096)?,
        accept_entries: power_of_two("--max-backlog", backlog, 1..=1 << 16)? as u32,
        connections: count("--max-connections", o.max_connections, d.connections, 1 << 20)?,
        payload_len,
    })
}

/// Where a run directory keeps what.
pub fn app_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("toed.sock")
}

pub fn admin_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// Why the last toed ended, if it failed on the way.
pub fn failure_file(run_dir: &Path) -> PathBuf {
    run_dir.join("toed.failure")
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::flow::cc;

    fn settings(args: &[&str]) -> Result<Settings> {
        let args = ["toed", "--ip-addr", "10.0.0.2/24"].iter().chain(args);
        Settings::new(Options::try_parse_from(args)?.complete()?)
    }

    fn refused(args: &[&str]) -> String {
        format!("{:#}", settings(args).expect_err("must be refused"))
    }

    #[test]
    fn defaults_are_what_the_help_says() {
        let s = settings(&[]).expect("defaults are fine");
        let core = s.core(&CardInfo::default()).expect("fine");
        assert_eq!((core.buffers.tx, core.buffers.rx, s.cc), (20, 20, cc::CUBIC));
        assert_eq!((core.limits.payload_len, core.limits.hc_entries * 64), ((1 << 34).min(sizes::half_of_memory()), 262_144));
        assert_eq!(s.share, Share::default());
        let e = s.engine(&CardInfo { mac: [2; 6], mtu: 1500, max_flows: 10, max_next_hops: 5, ..CardInfo::default() }, [0; 16]);
        assert_eq!((e.handshake_timeout_us, e.handshake_retries, e.time_wait_us), (1_000_000, 6, 60_000_000));
        assert_eq!((e.arp_timeout_us, e.arp_timeout_max_us, e.arp_expire_us), (250_000, 1_000_000, 30_000_000));
        assert_eq!((e.mtu, e.connections_max, e.next_hops, e.rtt_init_us, e.rto_min_us), (1500, 10, 5, 0, 200_000));
    }

    #[test]
    fn every_option_in_help_has_a_default_or_is_a_switch() {
        use clap::CommandFactory;
        for arg in Options::command().get_arguments().filter(|a| !a.is_hide_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let switch = ["config", "huge_pages", "tcp_ecn", "cc_pacing", "quiet", "ip_addr", "slaac"].contains(&arg.get_id().as_str());
            assert!(switch || help.contains("[default: "), "--{}: {help}", arg.get_id());
        }
    }

    #[test]
    fn the_least_timeout_has_bounds() {
        for us in ["4999", "1000001"] {
            assert!(refused(&["--tcp-rto-min", us]).contains("--tcp-rto-min"));
        }
        let e = settings(&["--tcp-rto-min", "5000"]).expect("fine").engine(&CardInfo::default(), [0; 16]);
        assert_eq!(e.rto_min_us, 5000);
    }

    #[test]
    fn addresses_of_both_versions() {
        let s = settings(&["--ip-addr", "fd00::2,fd01::2/48", "--gateway", "10.0.0.1,fe80::1", "--ip-route", "fd02::/16,fd00::9"]);
        let e = s.expect("fine").engine(&CardInfo::default(), [0; 16]);
        let text = |ip: &[u8; 16]| IpAddr::from(*ip).to_canonical().to_string();
        let addresses: Vec<_> = e.addresses.iter().map(|a| format!("{}/{}", text(&a.ip), a.written_len())).collect();
        assert_eq!(addresses, ["10.0.0.2/24", "fd00::2/64", "fd01::2/48"]);
        assert_eq!(e.gateways.iter().map(text).collect::<Vec<_>>(), ["10.0.0.1", "fe80::1"]);
        assert_eq!((e.routes[0].dest.len, e.routes[0].via.map(|v| text(&v))), (16, Some("fd00::9".into())));
        let alone = Options { slaac: Some(true), vlan: Some(7), ..Options::default() };
        let e = Settings::new(alone).expect("advertised ones will do").engine(&CardInfo::default(), [0; 16]);
        assert_eq!((e.slaac, e.vlan, e.addresses.len()), (true, 7, 0));
    }

    #[test]
    fn an_interface_is_a_scope() {
        let scope = |args: &[&str]| settings(args).expect("fine").core(&CardInfo::default()).expect("fits").scope;
        assert_eq!(scope(&[]), 0);
        // The loopback is the first of every machine.
        assert_eq!(scope(&["--interface", "lo"]), 1);
    }

    #[test]
    fn a_file_has_one_address_or_several() {
        let file = |text: &str| toml::from_str::<Options>(text).expect("fine").ip_addr;
        assert_eq!(file("ip-addr = \"10.0.0.2/24\""), ["10.0.0.2/24"]);
        assert_eq!(file("ip-addr = [\"10.0.0.2/24\", \"fd00::2\"]"), ["10.0.0.2/24", "fd00::2"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("toed.toml");
        std::fs::write(&path, "tcp-rxbuf-len = 8192\ntcp-txbuf-len = 8192\nip-route = [\"10.1.0.0/16,10.0.0.1\"]\nquiet = true\n")
            .expect("written");
        let s = settings(&["--config", path.to_str().expect("utf-8"), "--tcp-rxbuf-len", "16384"]).expect("fine");
        let buffers = s.core(&CardInfo::default()).expect("fine").buffers;
        assert_eq!((buffers.rx, buffers.tx, s.routes.len(), s.log_filter.as_str()), (14, 13, 1, "warn,vfio_user=warn"));
    }

    fn behind_a_window(args: &[&str], bytes: u64) -> Result<CoreConfig> {
        settings(args)?.core(&CardInfo { memory_max: Some(bytes), ..CardInfo::default() })
    }

    #[test]
    fn a_window_makes_applications_smaller_and_holds_several() {
        for bytes in [4 << 20, 16 << 20, 64 << 20, 1 << 30, 16 << 30_u64] {
            let core = behind_a_window(&[], bytes - 0x2_0000).unwrap_or_else(|e| panic!("{bytes}: {e:#}"));
            let connections = core.limits.payload_len >> (core.buffers.tx + 1);
            assert!(connections >= 100 || bytes < 64 << 20, "{bytes}: {connections} connections");
            assert!(core.limits.payload_len <= bytes / 8 && core.buffers.tx >= 14);
        }
        let core = behind_a_window(&["--tcp-rxbuf-len", "65536", "--shm-len", "16777216"], 64 << 20).expect("fits");
        assert_eq!((core.buffers.rx, core.limits.payload_len), (16, 16 << 20), "what was asked for wins");
    }

    #[test]
    fn applications_that_do_not_fit_the_window_are_refused_at_the_start() {
        let e = behind_a_window(&["--shm-len", "67108864"], 64 << 20).expect_err("too large").to_string();
        assert!(e.contains("toe-window --size") && e.contains("--shm-len"), "{e}");
    }

    #[test]
    fn without_a_device_the_card_is_in_the_run_directory() {
        assert!(
            matches!(settings(&["--run-dir", "/r"]).expect("default").device, Device::VfioUser(path) if path == Path::new("/r/card.sock"))
        );
    }

    #[test]
    fn an_unknown_name_in_the_file_is_refused_with_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("toed.toml");
        std::fs::write(&path, "tcp-rxbuf = 8192\n").expect("written");
        let e = refused(&["--config", path.to_str().expect("utf-8")]);
        assert!(e.contains("tcp-rxbuf") && e.contains("toed.toml"), "{e}");
    }

    #[test]
    fn flextoe_options_that_are_replaced_say_by_what() {
        assert!(refused(&["--fp-poll-interval-app", "100"]).contains("TOE_SPIN_US"));
        assert!(refused(&["--nic-rx-len", "256"]).contains("fixed size"));
        assert!(refused(&["--cc-rexmit-ints", "4"]).contains("RFC 6298"));
        assert!(refused(&["--debug-console"]).contains("toectl"));
    }

    #[test]
    fn a_route_may_have_a_congestion_control_of_its_own() {
        let s = settings(&["--ip-route", "10.1.0.0/16,10.0.0.1,cc=dctcp", "--ip-route", "10.2.0.0/16,10.0.0.1", "--cc", "newreno"])
            .expect("fine");
        assert_eq!(s.routes.iter().map(|r| r.cc).collect::<Vec<_>>(), [Some(cc::DCTCP), None]);
        assert_eq!(s.cc, cc::NEWRENO);
    }

    #[test]
    fn windows_are_paced_where_the_route_or_everybody_says_so() {
        let routes = ["--ip-route", "10.1.0.0/16,10.0.0.1,cc=reno,pacing=true", "--ip-route", "10.2.0.0/16,10.0.0.1,pacing=false"];
        let s = settings(&routes).expect("fine");
        assert_eq!(s.routes.iter().map(|r| (r.cc, r.pacing)).collect::<Vec<_>>(), [(Some(cc::NEWRENO), Some(true)), (None, Some(false))]);
        let pacing = |args: &[&str]| settings(args).expect("fine").engine(&CardInfo::default(), [0; 16]).cc_pacing;
        assert_eq!((pacing(&[]), pacing(&["--cc-pacing"])), (false, true));
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (args, word) in [
            (["--tcp-rxbuf-len", "5000"], "power of two"),
            (["--app-kin-len", "100"], "--app-kin-len"),
            (["--shm-len", "1"], "--shm-len"),
            (["--gateway", "192.168.0.1"], "same link"),
            (["--device", "pci:0"], "vfio-user:PATH"),
            (["--ip-route", "10.0.0.0/8"], "NEXTHOP"),
            (["--ip-route", "fd00::/8,10.0.0.1"], "one version"),
            (["--ip-route", "10.0.0.0/8,10.9.0.1"], "10.9.0.1 is no neighbour"),
            (["--ip-route", "10.0.0.0/8,10.0.0.2"], "10.0.0.2 is no neighbour"),
            (["--gateway", "fe80::1"], "same link"),
            (["--gateway", "10.0.0.300"], "--gateway 10.0.0.300: not an address"),
            (["--log-level", "warning"], "--log-level warning: not off, error"),
            (["--ip-addr", "fd00::2/129"], "fd00::2/64"),
            (["--ip-addr", "::ffff:10.0.0.3"], "fd00::2/64"),
            (["--ip-addr", "ff02::1"], "no host"),
            (["--ip-addr", "10.0.0.2/8"], "twice"),
            (["--vlan", "4095"], "4094"),
            (["--interface", "no-such-if"], "--interface no-such-if"),
            (["--ip-route", "10.0.0.0/8,10.0.0.1,mtu=1"], "cc=ALGORITHM"),
            (["--ip-route", "10.0.0.0/8,10.0.0.1,cc=bbr"], "cc bbr: unknown"),
            (["--ip-route", "10.0.0.0/8,10.0.0.1,pacing=2"], "pacing=BOOL"),
            (["--ip-route", "10.0.0.0/8,10.0.0.1,cc=reno,cc=reno"], "cc=ALGORITHM"),
            (["--cc", "bbr"], "reno, cubic"),
            (["--max-sockets", "70000"], "65536"),
            (["--app-weight", "0"], "from 1 to 1000"),
            (["--app-rate", "100"], "--app-rate 100: a unit is missing"),
        ] {
            let e = refused(&args);
            assert!(e.contains(word), "{args:?}: {e}");
        }
        assert!(Settings::new(Options::default()).expect_err("no address").to_string().contains("--ip-addr"));
        let loopback = Options { ip_addr: vec!["127.0.0.1/8".into()], ..Options::default() };
        assert!(Settings::new(loopback).is_err());
    }
}
