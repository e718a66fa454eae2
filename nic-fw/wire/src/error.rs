//! Why a frame cannot be parsed.

use core::fmt;

/// One variant per reason that is counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrameError {
    /// Shorter than its headers say.
    Truncated,
    /// IP header malformed: version or lengths, or addresses that no packet has.
    BadIpHeader,
    /// IPv4 header checksum.
    BadIpChecksum,
    /// IPv6 extension headers: malformed, out of order, or too many.
    BadExtension,
    /// IPv6 extension headers that forbid to process the packet: options nobody knows, a route with segments left.
    RefusedExtension,
    /// TCP data offset outside the segment.
    BadTcpHeader,
    /// A TCP option's length makes no sense.
    BadTcpOptions,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Truncated => "frame is shorter than its headers say",
            FrameError::BadIpHeader => "IP header is malformed",
            FrameError::BadIpChecksum => "IPv4 header checksum is wrong",
            FrameError::BadExtension => "IPv6 extension headers are malformed",
            FrameError::RefusedExtension => "IPv6 extension headers forbid to process the packet",
            FrameError::BadTcpHeader => "TCP data offset lies outside the segment",
            FrameError::BadTcpOptions => "TCP options are malformed",
        })
    }
}

impl core::error::Error for FrameError {}
