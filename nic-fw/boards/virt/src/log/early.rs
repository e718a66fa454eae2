//! What was logged before the window was there.

use super::FRAME_MAX;

/// Bytes that are kept. What is found at start takes a few hundred.
const ROOM: usize = 16 * FRAME_MAX;

/// The first frames.
#[derive(Debug)]
pub struct Early {
    bytes: [u8; ROOM],
    len: usize,
}

impl Early {
    pub const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    /// Keeps a frame, if there is room.
    pub fn keep(&mut self, frame: &[u8]) -> bool {
        let Some(place) = self.bytes.get_mut(self.len..self.len + frame.len()) else { return false };
        place.copy_from_slice(frame);
        self.len += frame.len();
        true
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
