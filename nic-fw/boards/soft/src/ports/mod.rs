//! The soft card's ports: how frames reach the wire. One file per driver, one line in [`DRIVERS`].
//!
//! ```text
//!   DRIVER:IFNAME[,option=value...] ──parse──► PortSpec ──open──► Port ──┬── rx: SoftRx ──► one core, and SoftFrames for any
//!                                                                       └── tx: SoftTx ──► one core
//!                                               of af_packet or tap, with lossy around either
//! ```

pub mod af_packet;
pub mod carrier;
pub mod filter;
pub mod frames;
pub mod lossy;
pub mod netif;
pub mod spec;
pub mod tap;
mod vnet;

pub use frames::SoftFrames;
pub use lossy::Impairments;
pub use spec::{PortSpec, SpecError};

use crate::memory::SoftSlice;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::BorrowedFd;
use toe_hal::{Lease, PortCaps, RxBurst, RxLosses, RxPort, TxBusy, TxFrame, TxPort};

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

/// The receiving half of a port.
pub trait SoftRx: RxPort<Frames = SoftFrames> + Send {
    /// Readable while frames wait. It may stay readable while frames are on loan, too: who means to sleep meanwhile waits for its
    /// edges (EPOLLET), of which each frame that arrives makes one.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Called when [`fd`](Self::fd) reports an error or a hang-up: clears it, or says that the port has gone.
    fn check(&mut self) -> Result<(), PortError>;
}

/// The sending half of a port.
pub trait SoftTx: TxPort<SoftSlice> + Send {}

impl<T: TxPort<SoftSlice> + Send> SoftTx for T {}

/// A port of any driver. What both halves need stays until the last of them has gone.
pub struct Port {
    pub rx: Box<dyn SoftRx>,
    pub tx: Box<dyn SoftTx>,
}

impl Port {
    /// Opens what `spec` names, with `impairments` if any.
    pub fn open(spec: &PortSpec, impairments: Option<&Impairments>) -> Result<Self, PortError> {
        let driver = spec.driver()?;
        let port = (driver.open)(spec)?;
        Ok(match impairments {
            Some(impairments) => lossy::around(port, impairments),
            None => port,
        })
    }
}

/// A port driver.
pub struct Driver {
    pub name: &'static str,
    /// Options it takes, with their meaning.
    pub options: &'static [(&'static str, &'static str)],
    open: fn(&PortSpec) -> Result<Port, PortError>,
}

/// Every driver there is.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "af_packet", options: af_packet::OPTIONS, open: af_packet::open },
    Driver { name: "tap", options: tap::OPTIONS, open: tap::open },
];

/// Whether a descriptor is ready for `what` now.
fn is_ready(fd: BorrowedFd<'_>, what: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, what)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(what)
}

impl RxPort for Box<dyn SoftRx> {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        (**self).frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        (**self).receive(burst)
    }

    fn any(&mut self) -> bool {
        (**self).any()
    }

    fn release(&mut self, lease: Lease) {
        (**self).release(lease);
    }

    fn losses(&mut self) -> RxLosses {
        (**self).losses()
    }

    fn holding(&self) -> bool {
        (**self).holding()
    }
}

impl TxPort<SoftSlice> for Box<dyn SoftTx> {
    fn caps(&self) -> PortCaps {
        (**self).caps()
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        (**self).transmit(frame)
    }

    fn flush(&mut self) -> usize {
        (**self).flush()
    }

    fn holding(&self) -> bool {
        (**self).holding()
    }
}
