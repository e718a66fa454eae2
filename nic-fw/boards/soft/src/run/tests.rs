//! The run loop over a port that is told what to do.

use super::*;
use crate::memory::SoftSlice;
use crate::ports::PortStats;
use rustix::event::EventfdFlags;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use toe_hal::{EthPort, Lease, PortCaps, RxBurst, TxBusy, TxFrame};

/// What the port does when it is asked for frames.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Quiet,
    Panics,
}

struct Moody {
    mood: Mood,
    rounds: Arc<AtomicU32>,
    fd: OwnedFd,
}

impl EthPort<SoftSlice> for Moody {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: [2; 6], mtu: 1500, tx_csum: true, tso_max: 0 }
    }
    fn receive(&mut self, _burst: &mut RxBurst) -> usize {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        assert!(self.mood != Mood::Panics, "told to");
        0
    }
    fn frame(&self, _lease: Lease) -> &[u8] {
        &[]
    }
    fn release(&mut self, _lease: Lease) {}
    fn transmit(&mut self, _frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        Ok(())
    }
    fn flush(&mut self) -> usize {
        0
    }
}

impl SoftPort for Moody {
    fn fd(&self) -> BorrowedFd<'_> {
        use rustix::fd::AsFd;
        self.fd.as_fd()
    }
    fn check(&mut self) -> Result<(), PortError> {
        Err(PortError::Gone("moody0".to_owned()))
    }
    fn stats(&mut self) -> PortStats {
        PortStats::default()
    }
}

struct Bench {
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
    rounds: Arc<AtomicU32>,
    stop: UnixStream,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

/// A run loop on a thread of its own, as `main` has it.
fn bench(mood: Mood, port_fd: OwnedFd) -> Bench {
    let (mailbox, status, rounds) = (Arc::new(Mailbox::new().unwrap()), Arc::<Status>::default(), Arc::<AtomicU32>::default());
    let (stopped, stop) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn({
        let (mailbox, status, rounds) = (mailbox.clone(), status.clone(), rounds.clone());
        move || {
            use rustix::fd::AsFd;
            let port = Port::new(Box::new(Moody { mood, rounds, fd: port_fd }));
            let config = CardConfig { max_flows: 64, spin_us: 0, ..CardConfig::default() };
            let mut runner = Runner::new(config, port, mailbox, status, stopped.as_fd()).unwrap();
            let ended = catch_unwind(AssertUnwindSafe(|| runner.run()));
            let ended = ended.map_err(|_| "panic".to_owned()).and_then(|r| r.map_err(|e| e.to_string()));
            if ended.is_err() {
                runner.fail(Duration::ZERO);
            }
            ended
        }
    });
    Bench { mailbox, status, rounds, stop, thread }
}

fn quiet_fd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::empty()).unwrap()
}

#[test]
fn letters_wake_a_sleeping_card_and_stop_ends_it() {
    let b = bench(Mood::Quiet, quiet_fd());
    b.mailbox.call(Command::Reset).unwrap();
    let refused = b.mailbox.call(Command::Attach { iova: 0x1000 }).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EFAULT), "nothing is mapped");
    assert_eq!(b.status.get(), regs::status::DETACHED);
    let unmapped = b.mailbox.call(Command::Unmap { iova: 0, len: u64::MAX }).unwrap();
    assert!(unmapped.is_empty());
    rustix::io::write(&b.stop, &[1]).unwrap();
    assert_eq!(b.thread.join().unwrap(), Ok(()));
}

#[test]
fn a_parked_card_does_no_rounds() {
    let b = bench(Mood::Quiet, quiet_fd());
    b.mailbox.call(Command::Detach).unwrap();
    // Each letter costs a few rounds, and nothing else does: the count hardly depends on time.
    let before = b.rounds.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    let rounds = b.rounds.load(Ordering::Relaxed) - before;
    assert!(rounds < 50, "{rounds} rounds while idle");
    rustix::io::write(&b.stop, &[1]).unwrap();
    b.thread.join().unwrap().unwrap();
}

#[test]
fn a_kick_wakes_the_card_again_and_again_without_being_read() {
    let b = bench(Mood::Quiet, quiet_fd());
    let kick = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let theirs = kick.try_clone().unwrap();
    b.mailbox.call(Command::Signals { signal: Signal::Kick, first: CtxId(3), fds: vec![Some(theirs)] }).unwrap();
    for _ in 0..3 {
        let before = b.rounds.load(Ordering::Relaxed);
        rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
        while b.rounds.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
    }
    let mut count = [0; 8];
    rustix::io::read(&kick, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 3, "the card left the counter alone");
    let bad = b.mailbox.call(Command::Signals { signal: Signal::Kick, first: CtxId(u16::MAX), fds: vec![None] });
    assert_eq!(bad.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let bad = b.mailbox.call(Command::Signals { signal: Signal::Kick, first: CtxId(3), fds: vec![Some(file.into())] });
    assert_eq!(bad.unwrap_err().raw_os_error(), Some(libc::EPERM), "a file can't be waited on");
    rustix::io::write(&b.stop, &[1]).unwrap();
    b.thread.join().unwrap().unwrap();
}

#[test]
fn a_panic_in_the_data_path_shows_in_status() {
    let b = bench(Mood::Panics, quiet_fd());
    assert_eq!(b.thread.join().unwrap(), Err("panic".to_owned()));
    assert_eq!(b.status.get(), regs::status::FAILED);
    assert!(b.mailbox.call(Command::Reset).is_err(), "calls fail instead of waiting");
}

#[test]
fn a_port_that_has_gone_ends_the_card() {
    // A socket whose other end is closed reports a hang-up.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let b = bench(Mood::Quiet, ours.into());
    assert!(b.thread.join().unwrap().unwrap_err().contains("moody0"));
    assert_eq!(b.status.get(), regs::status::FAILED);
}
