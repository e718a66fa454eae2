//! Bytes to values and back: Ethernet, ARP, IPv4 and IPv6, ICMP, neighbour discovery, TCP with its options, checksums, sequence numbers.
//!
//! ```text
//!   bytes ──► common_segment ──► Segment ◄───────────┐            the short way, for nearly all
//!         ──► parse_frame ──► Frame ─┬─ Payload::Ipv4, Ipv6 ─► Ip ─► Tcp ─► TcpOptions
//!                                    ├─ Payload::Arp  ─► Arp
//!                                    └─ Payload::Other       Icmp::parse, Icmpv6::parse ─► Nd on Ip's payload
//!   TxHeader, Arp, Nd's, icmp::echo_reply ──► bytes            Fragment::parse on Ip's header
//! ```
//!
//! Nothing is allocated, nothing panics, whatever the bytes are: what cannot be parsed is a [`FrameError`]
//! with one variant for each reason that operators can tell apart. Only header fields are copied; payloads
//! are byte ranges of the frame.
//!
//! May depend on: nothing of ours.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod arp;
mod bytes;
pub mod checksum;
pub mod congestion;
pub mod error;
pub mod ethernet;
pub mod fragment;
pub mod frame;
pub mod header;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod mld;
pub mod nd;
pub mod segment;
pub mod seq;
pub mod tcp;

pub use arp::{Arp, ArpOp};
pub use checksum::Sum;
pub use error::FrameError;
pub use ethernet::{Ethernet, Mac, ethertype};
pub use frame::{Frame, Payload, parse_frame, tcp_tuple};
pub use header::{Built, Checksum, TooLong, TxHeader};
pub use icmp::Icmp;
pub use icmpv6::Icmpv6;
pub use ipv4::{Ip, Span, ip_proto};
pub use segment::{Segment, TcpTuple, common_segment};
pub use seq::SeqNum;
pub use tcp::{SackBlocks, Tcp, TcpFlags, TcpOptions, Timestamps};
