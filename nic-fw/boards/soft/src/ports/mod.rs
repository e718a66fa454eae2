//! The soft card's ports: how frames reach the wire. One file per driver, one line in [`DRIVERS`].
//!
//! ```text
//!   DRIVER:IFNAME[,option=value...] ──parse──► PortSpec ──open──► Port ──► af_packet | tap
//!                                                                  └── lossy around either
//! ```

pub mod af_packet;
pub mod filter;
pub mod lossy;
pub mod netif;
pub mod spec;
pub mod tap;
mod vnet;

pub use lossy::Impairments;
pub use spec::{PortSpec, SpecError};

use crate::memory::SoftSlice;
use std::io;
use std::os::fd::BorrowedFd;
use toe_hal::{EthPort, Lease, PortCaps, RxBurst, TxBusy, TxFrame};

/// Largest frame that a port carries: 64 KiB of IP, Ethernet with two VLAN tags, rounded up.
pub const FRAME_MAX: usize = 66 * 1024;

/// Why a port could not be opened, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("no interface `{0}` in this network namespace")]
    NoInterface(String),
    #[error("interface `{0}` is not Ethernet")]
    NotEthernet(String),
    #[error("{step} needs the right {right}: run as root, in a user namespace (unshare -Urn), or setcap {right}+ep")]
    NoRight { right: &'static str, step: &'static str },
    #[error("{path} can't be used: {source}; this user must be able to read and write it")]
    NoDevice { path: &'static str, source: io::Error },
    #[error("interface `{0}` is in use by another card")]
    InUse(String),
    #[error("interface `{0}` has gone")]
    Gone(String),
    #[error("{step}: {source}")]
    Os { step: &'static str, source: io::Error },
}

impl PortError {
    pub(crate) fn os(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Os { step, source: source.into() }
    }

    /// The same, with EPERM and EACCES said as the right that is missing.
    pub(crate) fn needs(right: &'static str, step: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoRight { right, step },
            _ => Self::Os { step, source },
        }
    }

    /// Whether the operator can put it right (exit code 2), rather than the system having failed (1).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Gone(_) | Self::Os { .. })
    }
}

/// Losses inside a port since it was opened, frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Received, but the ring had no room.
    pub rx_overrun: u64,
    /// Received, but unusable: longer than a slot, or of a VLAN.
    pub rx_unusable: u64,
    /// Refused by the kernel on sending.
    pub tx_lost: u64,
}

/// What the soft card asks of a port besides [`EthPort`].
pub trait SoftPort: EthPort<SoftSlice> {
    /// Readable while frames wait.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Called when [`fd`](Self::fd) reports an error or a hang-up: clears it, or says that the port has gone.
    fn check(&mut self) -> Result<(), PortError>;

    fn stats(&mut self) -> PortStats;

    /// Whether the port holds frames back that only further calls of [`EthPort::receive`] bring out.
    fn holding(&self) -> bool {
        false
    }
}

/// Opens a port of one driver.
type Open = fn(&PortSpec) -> Result<Box<dyn SoftPort>, PortError>;

/// A port driver.
pub struct Driver {
    pub name: &'static str,
    /// Options it takes, with their meaning.
    pub options: &'static [(&'static str, &'static str)],
    open: Open,
}

/// Every driver there is.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "af_packet", options: af_packet::OPTIONS, open: |spec| Ok(Box::new(af_packet::AfPacket::open(spec)?)) },
    Driver { name: "tap", options: tap::OPTIONS, open: |spec| Ok(Box::new(tap::Tap::open(spec)?)) },
];

/// A port of any driver.
pub struct Port(Box<dyn SoftPort>);

impl Port {
    /// Opens what `spec` names, with `impairments` if any.
    pub fn open(spec: &PortSpec, impairments: Option<&Impairments>) -> Result<Self, PortError> {
        let driver = spec.driver()?;
        let inner = (driver.open)(spec)?;
        Ok(Self(match impairments {
            Some(impairments) => Box::new(lossy::Lossy::new(inner, impairments)),
            None => inner,
        }))
    }

    pub fn new(inner: Box<dyn SoftPort>) -> Self {
        Self(inner)
    }
}

impl EthPort<SoftSlice> for Port {
    fn caps(&self) -> PortCaps {
        self.0.caps()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        self.0.receive(burst)
    }

    fn frame(&self, lease: Lease) -> &[u8] {
        self.0.frame(lease)
    }

    fn release(&mut self, lease: Lease) {
        self.0.release(lease);
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        self.0.transmit(frame)
    }

    fn flush(&mut self) -> usize {
        self.0.flush()
    }
}

impl SoftPort for Port {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.0.check()
    }

    fn stats(&mut self) -> PortStats {
        self.0.stats()
    }

    fn holding(&self) -> bool {
        self.0.holding()
    }
}
