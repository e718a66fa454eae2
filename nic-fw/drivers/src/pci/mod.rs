//! PCI Express: who is on the bus, and where its registers lie (PCI Local Bus 3.0, PCI Express Base 4.0, chapter 7).
//!
//! ```text
//!   Ecam ─► scan: buses numbered, functions listed ─► assign: BARs and bridge windows placed ─► enable
//!                                                        └► Capabilities ─► MSI-X table, virtio structures
//! ```
//!
//! Everything is bounded by what was found out, never by what a function says: a list that loops, a bridge behind itself
//! and a BAR without size end where they are seen.

mod assign;
mod bar;
mod capability;
mod config;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod msix;
mod scan;

pub use assign::{NoRoom, Windows, assign, enable};
pub use bar::{BARS, Bar, Space};
pub use capability::{Capabilities, Capability};
pub use config::{ConfigSpace, Ecam, PciAddress};
pub use msix::{Msix, MsixError, VECTORS_MAX};
pub use scan::{Function, Kind, Numbering, Scan, scan};
