//! `--device`: how the card is reached.

use anyhow::{Result, bail};
use std::fmt;
use std::path::PathBuf;

/// How the card is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// A toe-nic that listens on this socket.
    VfioUser(PathBuf),
    /// A card inside QEMU; the toe-window of its memory listens on this socket.
    Ivshmem(PathBuf),
}

impl Device {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("vfio-user", path)) if !path.is_empty() => Ok(Self::VfioUser(path.into())),
            Some(("ivshmem", path)) if !path.is_empty() => Ok(Self::Ivshmem(path.into())),
            _ => bail!(
                "--device {text}: unknown; there is vfio-user:PATH, the socket of a toe-nic, and ivshmem:PATH, the socket of a toe-window"
            ),
        }
    }

    /// What to look at when it has gone.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::VfioUser(_) => "toe-nic has ended; see its log",
            Self::Ivshmem(_) => "look at QEMU and toe-window",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VfioUser(path) => write!(f, "vfio-user:{}", path.display()),
            Self::Ivshmem(path) => write!(f, "ivshmem:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_driver_and_path() {
        assert_eq!(Device::parse("ivshmem:/run/w.sock").expect("known"), Device::Ivshmem("/run/w.sock".into()));
        assert_eq!(Device::parse("vfio-user:/a:b").expect("known").to_string(), "vfio-user:/a:b");
        for wrong in ["ivshmem:", "vfio-user", "pci:0", ""] {
            assert!(Device::parse(wrong).is_err(), "{wrong}");
        }
    }
}
