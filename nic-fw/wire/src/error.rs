//! Why a frame cannot be parsed.

use core::fmt;

/// One variant per reason that is counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrameError {
    /// Shorter than its headers say.
    Truncated,
    /// IPv4 header malformed: version, header length or total length.
    BadIpHeader,
    /// IPv4 header checksum.
    BadIpChecksum,
    /// TCP data offset outside the segment.
    BadTcpHeader,
    /// A TCP option's length makes no sense.
    BadTcpOptions,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Truncated => "frame is shorter than its headers say",
            FrameError::BadIpHeader => "IPv4 header is malformed",
            FrameError::BadIpChecksum => "IPv4 header checksum is wrong",
            FrameError::BadTcpHeader => "TCP data offset lies outside the segment",
            FrameError::BadTcpOptions => "TCP options are malformed",
        })
    }
}

impl core::error::Error for FrameError {}
