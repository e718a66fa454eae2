//! What each descriptor number of this process is to us: nothing, a socket, an epoll instance, or one of our own files.
//!
//! A flat array of atomics, usable before constructors, in signal handlers and inside malloc. Numbers beyond it are never
//! ours: a socket, or a copy of one, that would get one is refused (EMFILE; EBADF by dup2).

use std::sync::atomic::{AtomicU32, Ordering};

/// Descriptor numbers that can be ours.
const NUMBERS: usize = 1 << 18;
const KIND_SHIFT: u32 = 30;
const INDEX_MASK: u32 = (1 << KIND_SHIFT) - 1;

static TABLE: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
/// One more than the highest number that ever was ours.
static TOP: AtomicU32 = AtomicU32::new(0);

/// What a descriptor number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The kernel's business.
    Other,
    /// A socket on the card: its slot.
    Socket(u32),
    /// An epoll instance: its place in the hub. It is a kernel epoll instance as well.
    Epoll(u32),
    /// The library's own: hidden from the application.
    Internal,
}

fn decode(word: u32) -> Kind {
    match word >> KIND_SHIFT {
        1 => Kind::Socket(word & INDEX_MASK),
        2 => Kind::Epoll(word & INDEX_MASK),
        3 => Kind::Internal,
        _ => Kind::Other,
    }
}

fn encode(kind: Kind) -> u32 {
    match kind {
        Kind::Other => 0,
        Kind::Socket(slot) => 1 << KIND_SHIFT | slot & INDEX_MASK,
        Kind::Epoll(index) => 2 << KIND_SHIFT | index & INDEX_MASK,
        Kind::Internal => 3 << KIND_SHIFT,
    }
}

fn entry(fd: i32) -> Option<&'static AtomicU32> {
    TABLE.get(usize::try_from(fd).ok()?)
}

/// What `fd` is.
#[inline]
pub fn kind(fd: i32) -> Kind {
    // Acquire: with the release in `set`; what the index leads to is there.
    entry(fd).map_or(Kind::Other, |e| decode(e.load(Ordering::Acquire)))
}

/// Whether `fd` may be given a meaning.
pub(crate) fn fits(fd: i32) -> bool {
    entry(fd).is_some()
}

/// Gives `fd` a meaning; `false`: the number is too large for that.
pub(crate) fn set(fd: i32, kind: Kind) -> bool {
    let Some(e) = entry(fd) else { return false };
    TOP.fetch_max(fd.unsigned_abs() + 1, Ordering::Relaxed);
    e.store(encode(kind), Ordering::Release);
    true
}

/// Forgets `fd`; answers what it was.
pub(crate) fn clear(fd: i32) -> Kind {
    entry(fd).map_or(Kind::Other, |e| decode(e.swap(0, Ordering::AcqRel)))
}

/// All numbers from `first` to `last` that are ours, ascending.
pub(crate) fn ours(first: u32, last: u32) -> impl Iterator<Item = (i32, Kind)> {
    let end = TOP.load(Ordering::Relaxed).min(last.saturating_add(1));
    (first..end).map(|fd| (fd as i32, kind(fd as i32))).filter(|(_, kind)| *kind != Kind::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_it_was_set_to() {
        assert_eq!(kind(100_001), Kind::Other);
        for k in [Kind::Socket(0), Kind::Socket(77), Kind::Epoll(3), Kind::Internal] {
            assert!(set(100_001, k));
            assert_eq!(kind(100_001), k);
        }
        assert_eq!(clear(100_001), Kind::Internal);
        assert_eq!(clear(100_001), Kind::Other);
    }

    #[test]
    fn strange_numbers_are_nobodys() {
        for fd in [-1, i32::MIN, i32::MAX, NUMBERS as i32] {
            assert_eq!(kind(fd), Kind::Other);
            assert!(!set(fd, Kind::Internal) && !fits(fd));
        }
    }

    #[test]
    fn a_range_lists_ours_only() {
        set(100_100, Kind::Socket(1));
        set(100_105, Kind::Internal);
        set(100_110, Kind::Epoll(0));
        let found: Vec<_> = ours(100_100, 100_109).collect();
        assert_eq!(found, [(100_100, Kind::Socket(1)), (100_105, Kind::Internal)]);
        for fd in [100_100, 100_105, 100_110] {
            clear(fd);
        }
    }
}
