//! poll(2) and select(2) over sockets of ours, epoll instances and kernel descriptors.

use crate::Errno;
use crate::fdtable::{self, Kind};
use crate::hub::{self, Hub, Interest};
use crate::process::{self, ALWAYS};
use crate::waiting::{Step, Wait};
use std::cell::Cell;
use std::time::Duration;
use toe::link::sys::{SigMask, ppoll};
use toe::socket::ready;

/// Whether a set contains anything that the kernel alone cannot answer for.
pub fn concerns_us(mut fds: impl Iterator<Item = i32>) -> bool {
    fds.any(|fd| fdtable::kind(fd) != Kind::Other)
}

/// The numbers of a call, by what they mean.
#[derive(Default)]
struct Watched {
    kinds: Vec<Kind>,
    /// The same list for the kernel, with holes where ours are. An instance of epoll is both.
    kernel: Vec<libc::pollfd>,
    interest: Interest,
}

impl Watched {
    /// What the numbers mean now. Slots that they meant before stay watched: who closes a socket says so twice, and the second time the number
    /// is free, or another file's.
    fn look(&mut self, fds: &[libc::pollfd]) {
        let again = !self.kinds.is_empty();
        self.kinds = fds.iter().map(|fd| fdtable::kind(fd.fd)).collect();
        self.kernel = fds.to_vec();
        for (theirs, kind) in self.kernel.iter_mut().zip(&self.kinds) {
            theirs.revents = 0;
            match *kind {
                Kind::Socket(slot) => {
                    theirs.fd = -1;
                    // A socket that cannot be used any more is reported as such.
                    let _ = process::touch(slot);
                    self.interest.slots.push(slot);
                }
                Kind::Epoll(index) => self.interest.epolls.push(index),
                // Hidden: the kernel is asked about a number that is never open.
                Kind::Internal => theirs.fd = i32::MAX,
                Kind::Other => {}
            }
        }
        if again {
            for list in [&mut self.interest.slots, &mut self.interest.epolls] {
                list.sort_unstable();
                list.dedup();
            }
        }
    }

    fn is_stale(&self, fds: &[libc::pollfd]) -> bool {
        fds.iter().zip(&self.kinds).any(|(fd, kind)| fdtable::kind(fd.fd) != *kind)
    }
}

/// The kernel's list, if there is anything in it.
fn filled(kernel: &mut [libc::pollfd]) -> &mut [libc::pollfd] {
    if kernel.iter().any(|fd| fd.fd >= 0) { kernel } else { &mut [] }
}

/// poll(2) and ppoll(2). `timeout`: `None` waits for ever.
pub fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>, mask: Option<SigMask>) -> Result<usize, Errno> {
    poll_until(fds, timeout, mask).map(|(n, _)| n)
}

/// The same. Says besides whether it had to wait.
fn poll_until(fds: &mut [libc::pollfd], timeout: Option<Duration>, mask: Option<SigMask>) -> Result<(usize, bool), Errno> {
    let mut watched = Watched::default();
    watched.look(fds);
    let mut waiting = None;
    loop {
        let kernel = filled(&mut watched.kernel);
        if !kernel.is_empty() {
            ppoll(kernel, Some(Duration::ZERO), None)?;
        }
        let mut hub = hub::lock();
        hub.drain();
        // Under the lock under which numbers change their meaning, and who watches a socket is told of it.
        if watched.is_stale(fds) {
            drop(hub);
            watched.look(fds);
            continue;
        }
        let n = report(&mut hub, fds, &watched);
        if n > 0 {
            return Ok((n, waiting.is_some()));
        }
        let waiting = waiting.get_or_insert_with(|| Wait::new(timeout, mask));
        if watched.interest.slots.is_empty() {
            waiting.no_spin();
        }
        if waiting.step(hub, &watched.interest, filled(&mut watched.kernel))? == Step::Timeout {
            return Ok((0, true));
        }
    }
}

/// Fills in `revents`; answers how many are not 0.
fn report(hub: &mut Hub, fds: &mut [libc::pollfd], watched: &Watched) -> usize {
    let mut n = 0;
    for ((fd, theirs), kind) in fds.iter_mut().zip(&watched.kernel).zip(&watched.kinds) {
        let asked = u32::from(fd.events.cast_unsigned());
        let now = match *kind {
            Kind::Socket(slot) => {
                let now = process::readiness(slot);
                if asked & (ready::OUT | ready::WRNORM) != 0 && now & ready::OUT == 0 {
                    hub.note_unwritable(slot);
                }
                now & (asked | ALWAYS)
            }
            Kind::Epoll(index) => {
                let ours = if hub.epoll_is_ready(index) { ready::IN | ready::RDNORM } else { 0 };
                ours & asked | u32::from(theirs.revents.cast_unsigned())
            }
            Kind::Internal | Kind::Other => u32::from(theirs.revents.cast_unsigned()),
        };
        fd.revents = (now as u16).cast_signed();
        n += usize::from(now != 0);
    }
    n
}

/// The three sets of select(2): a bit per descriptor, in words of 64.
pub type Sets<'a> = [Option<&'a [Cell<u64>]>; 3];

/// What each set of select(2) asks for, and what counts for it (as Linux has it; a number that is closed meanwhile for all of them).
const ASKED: [u32; 3] = [ready::IN | ready::RDNORM, ready::OUT | ready::WRNORM, ready::PRI];
const COUNTS: [u32; 3] =
    [ready::IN | ready::RDNORM | ready::HUP | ready::ERR | NVAL, ready::OUT | ready::WRNORM | ready::ERR | NVAL, ready::PRI | NVAL];
const NVAL: u32 = libc::POLLNVAL as u32;

/// The descriptors named in the sets, below `nfds`.
pub fn members(sets: Sets<'_>, nfds: usize) -> impl Iterator<Item = i32> {
    (0..nfds).filter(move |&fd| sets.iter().flatten().any(|set| has(set, fd))).map(|fd| fd as i32)
}

fn has(set: &[Cell<u64>], fd: usize) -> bool {
    set.get(fd / 64).is_some_and(|word| word.get() >> (fd % 64) & 1 != 0)
}

/// How many bits of its sets select(2) looks at, of `n` that the program says: programs say getdtablesize(), which may be millions, of sets with
/// room for 1024. The kernel looks at those that its table has, which the library's own descriptors make large.
pub fn bits(n: usize) -> usize {
    if n <= libc::FD_SETSIZE { n } else { n.min(numbers().map_or(n, |numbers| numbers.max(libc::FD_SETSIZE))) }
}

/// The program's largest descriptor now, and one. None: it cannot be known.
fn numbers() -> Option<usize> {
    let files = std::fs::read_dir("/proc/self/fd").ok()?;
    let numbers = files.flatten().filter_map(|file| file.file_name().to_str()?.parse().ok());
    numbers.filter(|&fd| fdtable::kind(fd) != Kind::Internal).max().map(|fd| fd.unsigned_abs() as usize + 1)
}

/// select(2) and pselect(2). Answers the number of bits left set. Of a set that is named twice, what is written last stays, as on Linux.
pub fn select(nfds: usize, sets: Sets<'_>, timeout: Option<Duration>, mask: Option<SigMask>) -> Result<usize, Errno> {
    let mut fds: Vec<libc::pollfd> = members(sets, nfds)
        .map(|fd| {
            let named = |i: usize| sets[i].is_some_and(|set| has(set, fd.unsigned_abs() as usize));
            let events = (0..3).filter(|&i| named(i)).fold(0, |bits, i| bits | ASKED[i]);
            libc::pollfd { fd, events: (events as u16).cast_signed(), revents: 0 }
        })
        .collect();
    let (_, waited) = poll_until(&mut fds, timeout, mask)?;
    if !waited && fds.iter().any(|fd| fd.revents & libc::POLLNVAL != 0) {
        return Err(Errno::BADF);
    }
    let mut n = 0;
    for (i, set) in sets.iter().enumerate() {
        let Some(set) = set else { continue };
        set.iter().take(nfds.div_ceil(64)).for_each(|word| word.set(0));
        let asked = ASKED[i] as u16;
        for fd in fds.iter().filter(|fd| fd.events.cast_unsigned() & asked == asked) {
            if u32::from(fd.revents.cast_unsigned()) & COUNTS[i] != 0 {
                let number = fd.fd.unsigned_abs() as usize;
                let word = &set[number / 64];
                word.set(word.get() | 1 << (number % 64));
                n += 1;
            }
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fd::AsRawFd;

    #[test]
    fn kernel_descriptors_are_polled_as_ever() {
        let event = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let mut fds = [libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        assert_eq!(poll(&mut fds, None, None), Ok(1));
        assert_eq!(fds[0].revents, libc::POLLIN);
    }

    #[test]
    fn the_time_runs_out() {
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let mut fds = [libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 7 }];
        assert_eq!(poll(&mut fds, Some(Duration::from_millis(2)), None), Ok(0));
        assert_eq!(fds[0].revents, 0);
    }

    #[test]
    fn select_keeps_only_the_bits_that_are_ready() {
        let (quiet, loud) = (eventfd(0, EventfdFlags::CLOEXEC).unwrap(), eventfd(1, EventfdFlags::CLOEXEC).unwrap());
        let numbers = [quiet.as_raw_fd() as usize, loud.as_raw_fd() as usize];
        let words = numbers.iter().max().unwrap() / 64 + 1;
        let read = vec![Cell::new(0u64); words];
        for n in numbers {
            let word = &read[n / 64];
            word.set(word.get() | 1 << (n % 64));
        }
        let sets: Sets<'_> = [Some(&read), None, None];
        assert_eq!(select(words * 64, sets, Some(Duration::ZERO), None), Ok(1));
        assert!(!has(&read, numbers[0]) && has(&read, numbers[1]));
    }

    #[test]
    fn select_on_a_closed_number_is_an_error() {
        let read = vec![Cell::new(0u64); 1024];
        read[900].set(1);
        let sets: Sets<'_> = [Some(&read), None, None];
        assert_eq!(select(65536, sets, Some(Duration::ZERO), None), Err(Errno::BADF));
    }
}
