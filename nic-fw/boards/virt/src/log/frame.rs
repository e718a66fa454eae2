//! A frame being written.

/// Most bytes of a frame, its end included. A longer one is dropped.
pub const FRAME_MAX: usize = 512;

#[derive(Debug)]
pub struct Frame {
    bytes: [u8; FRAME_MAX],
    len: usize,
    /// There was no room for part of it.
    cut: bool,
}

impl Frame {
    pub const fn new() -> Self {
        Self { bytes: [0; FRAME_MAX], len: 0, cut: false }
    }

    pub fn clear(&mut self) {
        (self.len, self.cut) = (0, false);
    }

    pub fn put(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(place) if !self.cut => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.cut = true,
        }
    }

    /// The frame, if all of it is here.
    pub fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|_| !self.cut)
    }
}
