//! Reading and writing big-endian fields without ever indexing out of range.

/// `N` bytes at `at`.
#[inline]
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[inline]
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

#[inline]
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// Appends to a buffer; remembers when it did not fit instead of panicking.
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    overflow: bool,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, overflow: false }
    }

    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.out.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.overflow = true,
        }
    }

    #[inline]
    pub fn put16(&mut self, v: u16) {
        self.put(&v.to_be_bytes());
    }

    #[inline]
    pub fn put32(&mut self, v: u32) {
        self.put(&v.to_be_bytes());
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes written from `from` on.
    pub fn written(&self, from: usize) -> &[u8] {
        self.out.get(from..self.len).unwrap_or_default()
    }

    /// Overwrites a 16-bit field written before.
    pub fn patch16(&mut self, at: usize, v: u16) {
        if let Some(field) = self.out.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
            *field = v.to_be_bytes();
        }
    }

    /// How many bytes were written; `None` if something did not fit.
    pub fn finish(self) -> Option<usize> {
        (!self.overflow).then_some(self.len)
    }
}
