//! What is carried: loads, the peers at the other end of the wire, the application at the other end of the context queues.

pub mod app;
pub mod cost;
pub mod frame;
pub mod peer;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Payload bytes of a full segment: 1500 less IPv4, TCP and timestamps.
pub const MSS: u32 = 1448;
/// Initial sequence numbers of the card and of the peers.
pub const ISS: u32 = 0xffff_0000;
pub const IRS: u32 = 0x7fff_0000;
/// Shift of the windows that the card sends, and that the peers send.
pub const RCV_WSCALE: u8 = 4;
pub const SND_WSCALE: u8 = 7;

/// Requests that one connection has outstanding, if it is alone, and if there are many: enough for a burst on every core.
const OUTSTANDING: (u32, u32) = (128, 4);
/// Bytes of a buffer, if there is one connection, and if there are many.
const BUF_LOG2: (u8, u8) = (18, 16);

/// What goes on on every connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Peers send full segments, the application reads.
    Receive,
    /// The application sends, peers acknowledge every second segment.
    Send,
    /// Peers send requests, the application answers each with as many bytes.
    Rpc,
    /// Peers send segments without data, which acknowledge nothing new.
    Acks,
    /// The application posts descriptors that say nothing new.
    Descriptors,
}

impl Load {
    /// Those that are like life.
    pub const REAL: [Load; 3] = [Load::Receive, Load::Send, Load::Rpc];

    pub const fn name(self) -> &'static str {
        match self {
            Load::Receive => "receive",
            Load::Send => "send",
            Load::Rpc => "rpc",
            Load::Acks => "acks",
            Load::Descriptors => "descriptors",
        }
    }

    /// What is counted, as the title of a column.
    pub const fn each(self) -> &'static str {
        match self {
            Load::Receive => "a segment received",
            Load::Send => "a segment sent",
            Load::Rpc => "a request",
            Load::Acks => "an ACK received",
            Load::Descriptors => "a descriptor",
        }
    }

    /// What is counted.
    pub const fn unit(self) -> &'static str {
        match self {
            Load::Receive | Load::Send => "segment",
            Load::Rpc => "request",
            Load::Acks => "ACK",
            Load::Descriptors => "descriptor",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A load on so many connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    pub load: Load,
    pub connections: u16,
    /// Bytes of a request and of its answer.
    pub rpc_bytes: u32,
    /// Every byte is written and compared: for tests.
    pub checked: bool,
}

impl Traffic {
    /// Requests that may be outstanding on a connection.
    pub const fn outstanding(&self) -> u32 {
        if self.connections == 1 { OUTSTANDING.0 } else { OUTSTANDING.1 }
    }

    /// Size of each buffer.
    pub const fn buf_log2(&self) -> u8 {
        if self.connections == 1 { BUF_LOG2.0 } else { BUF_LOG2.1 }
    }

    pub const fn buf(&self) -> u32 {
        1 << self.buf_log2()
    }

    /// Payload bytes that a counted unit carries to the application or from it.
    pub const fn unit_bytes(&self) -> u32 {
        match self.load {
            Load::Receive | Load::Send => MSS,
            Load::Rpc => self.rpc_bytes,
            Load::Acks | Load::Descriptors => 0,
        }
    }
}

pub fn connections_text(connections: u16) -> String {
    if connections == 1 { "one connection".into() } else { format!("{connections} connections") }
}

/// Byte at position `pos` of every stream.
pub const fn byte(pos: u32) -> u8 {
    (pos.wrapping_mul(2_654_435_761) >> 24) as u8
}
