//! The ring of the window: its writer. Rules and picture: [`LogHeader`].

use crate::window::Window;
use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};
use toe_abi::window::{LOG_HEADER_OFF, LOG_LEN, LogHeader};

/// Offset of a word of the header.
macro_rules! header {
    ($field:ident) => {{ LOG_HEADER_OFF as usize + offset_of!(LogHeader, $field) }};
}

const LEN: u32 = LOG_LEN as u32;

/// The writer: one for each window.
#[derive(Debug)]
pub struct Ring {
    window: Window,
    /// Bytes written since the start, mod 2^32.
    at: u32,
}

impl Ring {
    /// An empty log, whatever an earlier card has written.
    pub fn new(window: Window) -> Self {
        // A reader that sees the one and not yet the other takes the old log for lost.
        window.word::<{ header!(written) }>().store(0, Ordering::Release);
        window.word::<{ header!(begun) }>().store(0, Ordering::Release);
        Self { window, at: 0 }
    }

    /// Appends; readers see all of it at once. Of more than the ring holds, the end stays.
    pub fn write(&mut self, bytes: &[u8]) {
        bytes.chunks(LOG_LEN as usize).for_each(|part| self.write_part(part));
    }

    fn write_part(&mut self, bytes: &[u8]) {
        let end = self.at.wrapping_add(bytes.len() as u32);
        self.window.word::<{ header!(begun) }>().store(end, Ordering::Relaxed);
        // Release: with the reader's acquire fence. Who has copied one of these bytes then sees that it was being overwritten.
        fence(Ordering::Release);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, offset) = (self.at % LEN / 4, (self.at % 4) as usize);
            let (now, later) = rest.split_at(rest.len().min(4 - offset));
            let word = self.window.log_word(index);
            // Ours alone to write, so this needs no exchange. What the host may have put there is the host's own trouble.
            let mut value = word.load(Ordering::Relaxed).to_ne_bytes();
            value[offset..offset + now.len()].copy_from_slice(now);
            word.store(u32::from_ne_bytes(value), Ordering::Relaxed);
            self.at = self.at.wrapping_add(now.len() as u32);
            rest = later;
        }
        // Release: with the reader's acquire. Who sees the count sees the bytes.
        self.window.word::<{ header!(written) }>().store(end, Ordering::Release);
    }

    /// Says how many frames were dropped so far.
    pub fn tell_dropped(&self, dropped: u32) {
        self.window.word::<{ header!(dropped) }>().store(dropped, Ordering::Relaxed);
    }
}
