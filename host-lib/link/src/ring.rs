//! A payload buffer in a region: bytes by position, copied raw.
//!
//! ```text
//!        0                       p mod len                       len
//!        ├────────────────────────┼──────────────────────────────┤
//!          second part (wrapped)    first part of a run at p
//! ```
//! Who may touch which positions is agreed elsewhere (`toe_abi::desc`): the library writes free bytes of a transmit buffer
//! and reads filled bytes of a receive buffer. A hostile process of the same family can break that agreement, which garbles
//! its own family's bytes and nothing else: every access here stays inside the buffer.

use crate::user::{Sink, Source};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// A run of bytes in a ring.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub ptr: NonNull<u8>,
    pub len: usize,
}

/// A buffer of a power of two bytes.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    base: NonNull<u8>,
    len: u32,
    _region: PhantomData<&'a ()>,
}

impl<'a> Ring<'a> {
    /// # Safety
    /// `len` bytes (a power of two) at `base` are readable and writable during `'a`.
    pub unsafe fn new(base: NonNull<u8>, len: u32) -> Self {
        Self { base, len, _region: PhantomData }
    }

    /// Where the `len` bytes from position `pos` on lie: one run, or two if they wrap. At most the whole buffer.
    pub fn spans(&self, pos: u32, len: u32) -> [Span; 2] {
        let len = len.min(self.len);
        let start = pos & (self.len - 1);
        let first = len.min(self.len - start);
        // SAFETY: `start` is below `self.len`.
        let ptr = unsafe { self.base.add(start as usize) };
        [Span { ptr, len: first as usize }, Span { ptr: self.base, len: (len - first) as usize }]
    }

    /// Copies up to `max` bytes from an application's buffers to position `pos`; returns how many there were.
    pub fn fill(&self, pos: u32, max: u32, from: &mut Source<'_>) -> u32 {
        self.spans(pos, max).into_iter().map(|span| from.take(span)).sum::<usize>() as u32
    }

    /// Copies up to `max` bytes at position `pos` to an application's buffers; returns how many found room.
    pub fn drain(&self, pos: u32, max: u32, to: &mut Sink<'_>) -> u32 {
        self.spans(pos, max).into_iter().map(|span| to.put(span)).sum::<usize>() as u32
    }

    /// Reads up to `max` bytes of a file straight into the buffer at `pos`: from `offset`, or from where the file stands.
    pub fn fill_from_file(&self, pos: u32, max: u32, file: impl AsFd, offset: Option<u64>) -> Result<u32, Errno> {
        let mut done = 0;
        for span in self.spans(pos, max) {
            if span.len == 0 {
                continue;
            }
            // SAFETY: inside the buffer, valid during `'a`. It goes to the kernel only, as uninitialised bytes that are
            // written and never read through this reference.
            let bytes = unsafe { std::slice::from_raw_parts_mut(span.ptr.as_ptr().cast::<MaybeUninit<u8>>(), span.len) };
            let n = match offset {
                Some(at) => rustix::io::pread(&file, bytes, at + u64::from(done)).map(|(filled, _)| filled.len()),
                None => rustix::io::read(&file, bytes).map(|(filled, _)| filled.len()),
            };
            match n {
                Ok(n) => {
                    done += n as u32;
                    if n < span.len {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(memory: &mut [u8]) -> Ring<'_> {
        let len = memory.len() as u32;
        // SAFETY: the slice is borrowed as long as the ring lives.
        unsafe { Ring::new(NonNull::from(memory).cast(), len) }
    }

    proptest::proptest! {
        /// A model of the ring as a function from position to byte.
        #[test]
        fn bytes_come_back_by_position(start: u32, chunks in proptest::collection::vec((0usize..70, 0usize..70), 1..50)) {
            let mut memory = vec![0u8; 64];
            let ring = ring(&mut memory);
            let byte = |p: u32| (p.wrapping_mul(31) >> 3) as u8;
            let (mut head, mut tail) = (start, start);
            for (put, get) in chunks {
                let data: Vec<u8> = (0..put as u32).map(|i| byte(head.wrapping_add(i))).collect();
                let free = 64 - head.wrapping_sub(tail);
                let n = ring.fill(head, free, &mut Source::from_slice(&data));
                proptest::prop_assert_eq!(n, free.min(put as u32));
                head = head.wrapping_add(n);
                let mut out = vec![0u8; get];
                let n = ring.drain(tail, head.wrapping_sub(tail), &mut Sink::from_slice(&mut out));
                proptest::prop_assert_eq!(n, head.wrapping_sub(tail).min(get as u32));
                for (i, b) in out[..n as usize].iter().enumerate() {
                    proptest::prop_assert_eq!(*b, byte(tail.wrapping_add(i as u32)));
                }
                tail = tail.wrapping_add(n);
            }
        }
    }

    #[test]
    fn a_run_never_leaves_the_buffer() {
        let mut memory = vec![0u8; 16];
        let ring = ring(&mut memory);
        let [a, b] = ring.spans(u32::MAX, u32::MAX);
        assert_eq!((a.len, b.len), (1, 15));
    }

    #[test]
    fn a_file_is_read_across_the_wrap() {
        use rustix::fs::{MemfdFlags, memfd_create};
        let fd = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, b"0123456789").unwrap();
        let mut memory = vec![0u8; 8];
        let ring = ring(&mut memory);
        assert_eq!(ring.fill_from_file(6, 6, &fd, Some(2)), Ok(6));
        let mut out = [0; 6];
        ring.drain(6, 6, &mut Sink::from_slice(&mut out));
        assert_eq!(&out, b"234567");
        assert_eq!(ring.fill_from_file(0, 8, &fd, Some(8)), Ok(2), "short at the end of the file");
        assert_eq!(ring.fill_from_file(0, 8, &fd, None), Ok(0), "the file stands at its end");
    }
}
