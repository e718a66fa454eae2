//! TCP headers and options (RFC 9293, 3.1 and 3.2; RFC 7323; RFC 2018).

use crate::bytes::{self, Writer};
use crate::ipv4::Span;
use crate::{FrameError, SeqNum};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Most bytes of options.
pub const OPTIONS_MAX: usize = 40;
/// Bytes of the timestamps option with two NOPs before it (RFC 7323, appendix A).
pub const TIMESTAMPS_LEN: usize = 12;
/// Bytes of the SACK option with one block.
const SACK_LEN_MIN: usize = 10;
/// Its first four bytes then.
pub(crate) const COMMON_TIMESTAMPS: u32 = u32::from_be_bytes([KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10]);

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct TcpFlags: u8 {
        const FIN = 1 << 0;
        const SYN = 1 << 1;
        const RST = 1 << 2;
        const PSH = 1 << 3;
        const ACK = 1 << 4;
        const URG = 1 << 5;
        const ECE = 1 << 6;
        const CWR = 1 << 7;
    }
}

/// The timestamps option (RFC 7323, 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    pub val: u32,
    pub ecr: u32,
}

/// SACK blocks (RFC 2018, 3), `[left, right)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [[u32; 2]; SackBlocks::MAX],
    count: u8,
}

impl SackBlocks {
    pub const MAX: usize = 4;

    /// Adds a block behind the others; `false`: there are [`MAX`](Self::MAX) already.
    pub fn push(&mut self, left: SeqNum, right: SeqNum) -> bool {
        match self.blocks.get_mut(usize::from(self.count)) {
            Some(block) => {
                *block = [left.0, right.0];
                self.count += 1;
                true
            }
            None => false,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        self.blocks.iter().take(usize::from(self.count)).map(|&[l, r]| (SeqNum(l), SeqNum(r)))
    }

    pub const fn len(&self) -> usize {
        self.count as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The options we know. Others are skipped (RFC 9293, 3.2: MUST-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    pub mss: Option<u16>,
    /// As received; more than 14 means 14 (RFC 7323, 2.3).
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
}

const KIND_EOL: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WSCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;

impl TcpOptions {
    /// Parses a header's option bytes. A length that makes no sense is an error (RFC 9293, 3.2: MUST-7).
    /// RFC 9293 MUST-4, MUST-5, MUST-6, MUST-7, MUST-64, MUST-68.
    pub fn parse(mut rest: &[u8]) -> Result<Self, FrameError> {
        let mut options = Self::default();
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                KIND_EOL => break,
                KIND_NOP => rest = tail,
                _ => {
                    let len = usize::from(*tail.first().ok_or(FrameError::BadTcpOptions)?);
                    let body = rest.get(2..len).ok_or(FrameError::BadTcpOptions)?;
                    options.take(kind, body)?;
                    rest = rest.get(len..).unwrap_or_default();
                }
            }
        }
        Ok(options)
    }

    fn take(&mut self, kind: u8, body: &[u8]) -> Result<(), FrameError> {
        match (kind, body) {
            (KIND_MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (KIND_WSCALE, &[shift]) => self.window_scale = Some(shift),
            (KIND_SACK_PERMITTED, &[]) => self.sack_permitted = true,
            (KIND_TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                let (val, ecr) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                self.timestamps = Some(Timestamps { val, ecr });
            }
            (KIND_SACK, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 => {
                self.sack = SackBlocks::default();
                for at in (0..blocks.len()).step_by(8) {
                    if let (Some(l), Some(r)) = (bytes::be32(blocks, at), bytes::be32(blocks, at + 4)) {
                        self.sack.push(SeqNum(l), SeqNum(r));
                    }
                }
            }
            (KIND_MSS | KIND_WSCALE | KIND_SACK_PERMITTED | KIND_TIMESTAMPS | KIND_SACK, _) => return Err(FrameError::BadTcpOptions),
            // RFC 5482 3-5, 4.1-1: the user timeout option is one of those that we do not know.
            _ => {}
        }
        Ok(())
    }

    /// Appends the options, padded to whole words.
    #[inline]
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        // Nearly every segment of an established connection.
        if let Self { mss: None, window_scale: None, sack_permitted: false, timestamps: Some(ts), sack } = self
            && sack.is_empty()
        {
            let ([a, b, c, d], [e, f, g, h]) = (ts.val.to_be_bytes(), ts.ecr.to_be_bytes());
            return w.put(&[KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10, a, b, c, d, e, f, g, h]);
        }
        self.write_any(w);
    }

    fn write_any(&self, w: &mut Writer<'_>) {
        if let Some(mss) = self.mss {
            w.put(&[KIND_MSS, 4]);
            w.put16(mss);
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(_)) => w.put(&[KIND_SACK_PERMITTED, 2]),
            (true, None) => w.put(&[KIND_NOP, KIND_NOP, KIND_SACK_PERMITTED, 2]),
            (false, Some(_)) => w.put(&[KIND_NOP, KIND_NOP]),
            (false, None) => {}
        }
        if let Some(ts) = self.timestamps {
            w.put(&[KIND_TIMESTAMPS, 10]);
            w.put32(ts.val);
            w.put32(ts.ecr);
        }
        if let Some(shift) = self.window_scale {
            w.put(&[KIND_NOP, KIND_WSCALE, 3, shift]);
        }
        if !self.sack.is_empty() {
            w.put(&[KIND_NOP, KIND_NOP, KIND_SACK, 2 + 8 * self.sack.count]);
            for (left, right) in self.sack.iter() {
                w.put32(left.0);
                w.put32(right.0);
            }
        }
    }

    /// Bytes that [`TxHeader`](crate::TxHeader) will write for these options.
    pub const fn wire_len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        let sack_permitted = if self.sack_permitted && self.timestamps.is_none() { 4 } else { 0 };
        let wscale = if self.window_scale.is_some() { 4 } else { 0 };
        let sack = if self.sack.is_empty() { 0 } else { 4 + 8 * self.sack.len() };
        mss + timestamps + sack_permitted + wscale + sack
    }
}

/// A header whose lengths and options have been checked. Its checksum has not: see [`Frame::tcp_checksum_ok`](crate::Frame::tcp_checksum_ok).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Unscaled.
    pub window: u16,
    /// As received, whether URG is set or not.
    pub urgent: u16,
    pub timestamps: Option<Timestamps>,
    pub header: Span,
    /// Within `header`; [`TcpOptions::parse`] gives all of them.
    pub options: Span,
    pub payload: Span,
}

impl Tcp {
    /// Parses the segment that fills `segment` of `frame`.
    #[inline]
    pub fn parse(frame: &[u8], segment: Span) -> Result<Self, FrameError> {
        let bytes = segment.of(frame);
        let fixed: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(FrameError::Truncated)?;
        let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] = *fixed;
        let header_len = usize::from(offset >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(FrameError::BadTcpHeader);
        }
        let option_bytes = bytes.get(HEADER_LEN..header_len).ok_or(FrameError::BadTcpHeader)?;
        let start = segment.start as usize;
        Ok(Self {
            src_port: u16::from_be_bytes([sp0, sp1]),
            dst_port: u16::from_be_bytes([dp0, dp1]),
            seq: SeqNum(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: SeqNum(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: TcpFlags::from_bits_retain(flags),
            window: u16::from_be_bytes([w0, w1]),
            urgent: u16::from_be_bytes([u0, u1]),
            timestamps: timestamps(option_bytes)?,
            header: Span::new(start, start + header_len),
            options: Span::new(start + HEADER_LEN, start + header_len),
            payload: Span { start: segment.start + header_len as u32, end: segment.end },
        })
    }

    /// SACK blocks among the options of the `frame` that was parsed.
    #[inline]
    pub fn sack(&self, frame: &[u8]) -> SackBlocks {
        // Room for one block beside the timestamps? Not in nearly every segment of an established connection.
        let others = if self.timestamps.is_some() { TIMESTAMPS_LEN - 2 } else { 0 };
        if (self.options.len() as usize) < others + SACK_LEN_MIN {
            return SackBlocks::default();
        }
        TcpOptions::parse(self.options.of(frame)).map(|o| o.sack).unwrap_or_default()
    }
}

/// The timestamps among a header's options; every option is checked.
#[inline]
/// RFC 7323 2.2-7: of an established connection nothing else is taken.
fn timestamps(options: &[u8]) -> Result<Option<Timestamps>, FrameError> {
    match *options {
        [] => Ok(None),
        // The layout of RFC 7323, appendix A: nearly every segment of an established connection.
        [KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10, a, b, c, d, e, f, g, h] => {
            Ok(Some(Timestamps { val: u32::from_be_bytes([a, b, c, d]), ecr: u32::from_be_bytes([e, f, g, h]) }))
        }
        _ => TcpOptions::parse(options).map(|o| o.timestamps),
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
