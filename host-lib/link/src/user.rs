//! An application's buffers, as it passed them to read, writev or recvmsg.
//!
//! Their bytes may be uninitialised, shared with other threads or wrong: so they are never turned into Rust slices, but
//! copied raw. Iterating keeps its place, so that a blocking call can go on where it stopped.

use crate::ring::Span;
use std::marker::PhantomData;

/// One run of an application's memory; the same as `struct iovec`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct IoSpan(libc::iovec);

impl IoSpan {
    /// A single run.
    ///
    /// # Safety
    /// `len` bytes at `ptr` stay readable (for [`Source`]) or writable (for [`Sink`]) while the span is used: what the caller
    /// of read() or write() promises to the kernel.
    pub unsafe fn new(ptr: *mut u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: ptr.cast(), iov_len: len })
    }

    /// The spans of an iovec array.
    ///
    /// # Safety
    /// `ptr` points to `n` iovecs, each of which keeps the promise of [`IoSpan::new`], during `'a`.
    pub unsafe fn from_iovec<'a>(ptr: *const libc::iovec, n: usize) -> &'a [IoSpan] {
        if n == 0 || ptr.is_null() {
            return &[];
        }
        // SAFETY: same layout (transparent); the caller vouches for the array.
        unsafe { std::slice::from_raw_parts(ptr.cast(), n) }
    }
}

/// The first page is never mapped.
const PAGE: usize = 4096;

/// Whether no span is where no program's memory can be: null and what is near it, and the kernel's half of the address space.
/// (Other pointers that lead nowhere end in SIGSEGV, as in any function of a library.)
pub fn plausible(spans: &[IoSpan]) -> bool {
    spans.iter().all(|s| s.0.iov_len == 0 || (PAGE..=isize::MAX as usize).contains(&s.0.iov_base.addr()))
}

/// Bytes of all spans; `None`: more than a call may move (SSIZE_MAX).
pub fn total(spans: &[IoSpan]) -> Option<usize> {
    let sum = spans.iter().try_fold(0usize, |sum, s| sum.checked_add(s.0.iov_len))?;
    (sum <= isize::MAX as usize).then_some(sum)
}

/// A place in a list of spans.
#[derive(Clone)]
struct Cursor<'a> {
    spans: &'a [IoSpan],
    /// A lone span, used when `spans` is empty.
    single: IoSpan,
    /// Bytes of the present span that are done.
    offset: usize,
}

impl Cursor<'_> {
    /// The rest of the present span, skipping finished ones.
    fn current(&mut self) -> Option<(*mut u8, usize)> {
        loop {
            let span = self.spans.first().unwrap_or(&self.single).0;
            if self.offset < span.iov_len {
                return Some((span.iov_base.cast::<u8>().wrapping_add(self.offset), span.iov_len - self.offset));
            }
            let (_, rest) = self.spans.split_first()?;
            self.spans = rest;
            self.offset = 0;
            self.single = IoSpan(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        }
    }

    fn left(&self) -> usize {
        let all = if self.spans.is_empty() { self.single.0.iov_len } else { total(self.spans).unwrap_or(usize::MAX) };
        all.saturating_sub(self.offset)
    }

    /// Pairs the cursor's bytes with those of `span`, run by run.
    fn for_each_run(&mut self, span: Span, mut copy: impl FnMut(*mut u8, *mut u8, usize)) -> usize {
        let mut done = 0;
        while done < span.len {
            let Some((ptr, len)) = self.current() else { break };
            let n = len.min(span.len - done);
            copy(ptr, span.ptr.as_ptr().wrapping_add(done), n);
            self.offset += n;
            done += n;
        }
        done
    }
}

fn cursor<'a>(spans: &'a [IoSpan]) -> Cursor<'a> {
    Cursor { spans, single: IoSpan(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }), offset: 0 }
}

/// Bytes to be sent.
#[derive(Clone)]
pub struct Source<'a>(Cursor<'a>, PhantomData<&'a [u8]>);

impl<'a> Source<'a> {
    pub fn new(spans: &'a [IoSpan]) -> Self {
        Self(cursor(spans), PhantomData)
    }

    pub fn from_slice(bytes: &'a [u8]) -> Self {
        let mut cursor = cursor(&[]);
        cursor.single = IoSpan(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        Self(cursor, PhantomData)
    }

    /// Bytes not taken yet.
    pub fn left(&self) -> usize {
        self.0.left()
    }

    /// Copies the next bytes into `to`; returns how many there were.
    pub fn take(&mut self, to: Span) -> usize {
        self.0.for_each_run(to, |user, ring, n| {
            // SAFETY: `n` bytes are inside an application's span (promised at its construction) and inside `to`, which is a
            // region's memory: the two never overlap unless the application passed a pointer into its region; then the
            // bytes come out garbled, as `copy` allows overlap.
            unsafe { std::ptr::copy(user, ring, n) }
        })
    }
}

/// Room for received bytes.
pub struct Sink<'a>(Cursor<'a>, PhantomData<&'a mut [u8]>);

impl<'a> Sink<'a> {
    pub fn new(spans: &'a [IoSpan]) -> Self {
        Self(cursor(spans), PhantomData)
    }

    pub fn from_slice(bytes: &'a mut [u8]) -> Self {
        let mut cursor = cursor(&[]);
        cursor.single = IoSpan(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        Self(cursor, PhantomData)
    }

    /// Bytes of room left.
    pub fn left(&self) -> usize {
        self.0.left()
    }

    /// Copies `from` into the next room; returns how many bytes found place.
    pub fn put(&mut self, from: Span) -> usize {
        self.0.for_each_run(from, |user, ring, n| {
            // SAFETY: as in `Source::take`, the other way.
            unsafe { std::ptr::copy(ring, user, n) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;

    fn spans(parts: &mut [Vec<u8>]) -> Vec<IoSpan> {
        // SAFETY: the vectors outlive the spans in each test.
        parts.iter_mut().map(|p| unsafe { IoSpan::new(p.as_mut_ptr(), p.len()) }).collect()
    }

    fn span(bytes: &mut [u8]) -> Span {
        Span { len: bytes.len(), ptr: NonNull::from(bytes).cast() }
    }

    #[test]
    fn a_gather_goes_on_where_it_stopped() {
        let mut parts = [b"abc".to_vec(), vec![], b"defgh".to_vec()];
        let spans = spans(&mut parts);
        let mut source = Source::new(&spans);
        let mut out = [0; 4];
        assert_eq!(source.left(), 8);
        assert_eq!(source.take(span(&mut out)), 4);
        assert_eq!(&out, b"abcd");
        assert_eq!(source.left(), 4);
        let mut out = [0; 9];
        assert_eq!(source.take(span(&mut out)), 4);
        assert_eq!(&out[..4], b"efgh");
        assert_eq!((source.left(), source.take(span(&mut out))), (0, 0));
    }

    #[test]
    fn a_scatter_fills_its_parts_in_order() {
        let mut parts = [vec![0; 2], vec![0; 5]];
        let spans = spans(&mut parts);
        let mut sink = Sink::new(&spans);
        assert_eq!(sink.put(span(&mut b"wxyz".to_vec())), 4);
        assert_eq!(sink.left(), 3);
        assert_eq!((&parts[0][..], &parts[1][..2]), (&b"wx"[..], &b"yz"[..]));
    }

    #[test]
    fn a_single_slice_is_a_gather_of_one() {
        let mut source = Source::from_slice(b"hello");
        let mut out = [0; 3];
        assert_eq!((source.take(span(&mut out)), source.left()), (3, 2));
        assert_eq!((source.take(span(&mut out)), source.left()), (2, 0));
        assert_eq!(&out[..2], b"lo");
    }

    #[test]
    fn null_and_the_kernels_half_are_no_memory_of_a_program() {
        // SAFETY: never dereferenced.
        let at = |addr: usize, len| unsafe { IoSpan::new(std::ptr::without_provenance_mut(addr), len) };
        assert!(plausible(&[at(0, 0), at(4096, 1), at(0x7fff_ffff_f000, 9)]));
        for wrong in [0, 1, 4095, usize::MAX, 0xffff_8000_0000_0000] {
            assert!(!plausible(&[at(4096, 1), at(wrong, 1)]), "{wrong:#x}");
        }
    }

    #[test]
    fn sizes_that_overflow_are_noticed() {
        // SAFETY: never dereferenced.
        let huge = unsafe { IoSpan::new(NonNull::dangling().as_ptr(), usize::MAX) };
        assert_eq!(total(&[huge, huge]), None);
        assert_eq!(total(&[huge]), None);
        assert_eq!(total(&[]), Some(0));
    }
}
