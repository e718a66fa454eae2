//! The sending half of a bad wire.
//!
//! ```text
//!   card ──► Pass, Twice ────────────────► inner
//!        ──► Late ──► copy ──► some ticks ──►      a tick: a frame that is sent, or a flush with none before it
//!        ──► Marked ──► copy with CE ───────►
//!        ──► Lose
//! ```

use super::super::SoftTx;
use super::{Dice, Fate, Late};
use crate::memory::SoftSlice;
use toe_hal::{PortCaps, TxBusy, TxFrame, TxOffload, TxPort};

/// A frame that waits: the card's memory may be reused meanwhile, so it is a copy.
struct Copied {
    bytes: Vec<u8>,
    header_len: usize,
    offload: TxOffload,
}

impl Copied {
    fn new(frame: &TxFrame<'_, SoftSlice>) -> Self {
        let mut bytes = frame.header.to_vec();
        frame.payload.iter().for_each(|slice| slice.copy_to(&mut bytes));
        Self { bytes, header_len: frame.header.len(), offload: frame.offload }
    }
}

pub(super) struct LossyTx {
    inner: Box<dyn SoftTx>,
    dice: Dice,
    late: Late<Copied>,
    /// Copies handed to the inner port: they stay until its flush.
    sending: Vec<Vec<u8>>,
    /// A frame has been sent since the last flush.
    sent: bool,
}

impl LossyTx {
    pub fn new(inner: Box<dyn SoftTx>, dice: Dice) -> Self {
        Self { inner, dice, late: Late::new(), sending: Vec::new(), sent: false }
    }

    fn send_late(&mut self) {
        while let Some(Copied { bytes, header_len, offload }) = self.late.due() {
            let (header, payload) = bytes.split_at(header_len);
            let slices = [SoftSlice::of(payload)];
            let payload_len = payload.len() as u32;
            let payload = if payload.is_empty() { &slices[..0] } else { &slices[..] };
            // Busy: then it is lost, as on any bad wire.
            if self.inner.transmit(&TxFrame { header, payload, payload_len, offload }).is_ok() {
                self.sending.push(bytes);
            }
        }
    }
}

impl TxPort<SoftSlice> for LossyTx {
    fn caps(&self) -> PortCaps {
        self.inner.caps()
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        let fate = self.dice.fate();
        if matches!(fate, Fate::Pass | Fate::Twice) {
            self.inner.transmit(frame)?;
        }
        self.late.tick();
        match fate {
            Fate::Pass | Fate::Lose => {}
            // Busy for the copy: one is enough.
            Fate::Twice => drop(self.inner.transmit(frame)),
            Fate::Late(frames) => self.late.hold(frames, Copied::new(frame)),
            // Goes on at once, as a copy.
            Fate::Marked => {
                let mut copy = Copied::new(frame);
                toe_wire::congestion::mark(&mut copy.bytes);
                self.late.hold(0, copy);
            }
        }
        self.dice.count(fate);
        self.sent = true;
        self.send_late();
        Ok(())
    }

    fn flush(&mut self) -> usize {
        if !std::mem::take(&mut self.sent) {
            self.late.tick();
        }
        self.send_late();
        let lost = self.inner.flush();
        self.sending.clear();
        lost
    }

    fn holding(&self) -> bool {
        !self.late.is_empty() || self.inner.holding()
    }
}
