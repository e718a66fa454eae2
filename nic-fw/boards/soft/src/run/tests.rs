//! The run loop over a port that is told what to do.

use super::*;
use crate::mailbox::{Command, Dispatch, Signal};
use crate::memory::SoftSlice;
use crate::ports::{SoftFrames, SoftRx};
use rustix::event::EventfdFlags;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use toe_hal::{Lease, PortCaps, RxBurst, RxPort, TxBusy, TxFrame, TxPort};

/// What the port does when it is asked for frames.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Quiet,
    Panics,
    /// Until the test says [`HANGS_NO_LONGER`]: then it panics.
    Hangs,
}

/// Instead of a number of rounds.
const HANGS_NO_LONGER: u32 = u32::MAX;

struct Moody {
    mood: Mood,
    rounds: Arc<AtomicU32>,
    fd: OwnedFd,
}

impl RxPort for Moody {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        SoftFrames::none().unwrap()
    }
    fn receive(&mut self, _burst: &mut RxBurst) -> usize {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        assert!(self.mood != Mood::Panics, "told to");
        if self.mood == Mood::Hangs {
            while self.rounds.load(Ordering::Relaxed) != HANGS_NO_LONGER {
                std::thread::yield_now();
            }
            panic!("it hung");
        }
        0
    }
    fn any(&mut self) -> bool {
        false
    }
    fn release(&mut self, _lease: Lease) {}
}

impl SoftRx for Moody {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn check(&mut self) -> Result<(), PortError> {
        Err(PortError::Gone("moody0".to_owned()))
    }
}

struct Silent;

impl TxPort<SoftSlice> for Silent {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: [2; 6], mtu: 1500, tx_csum: true, tso_max: 0 }
    }
    fn transmit(&mut self, _frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        Ok(())
    }
    fn flush(&mut self) -> usize {
        0
    }
}

struct Bench {
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
    rounds: Arc<AtomicU32>,
    stop: UnixStream,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

/// A card on threads of its own, as `main` has it.
fn bench(mood: Mood, port_fd: OwnedFd, placement: Option<Placement>) -> Bench {
    bench_with(mood, port_fd, placement, None)
}

fn bench_with(mood: Mood, port_fd: OwnedFd, placement: Option<Placement>, disturb: Option<Disturb>) -> Bench {
    let (mailbox, status, rounds) = (Arc::new(Mailbox::new().unwrap()), Arc::<Status>::default(), Arc::<AtomicU32>::default());
    let (stopped, stop) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn({
        let (mailbox, status, rounds) = (mailbox.clone(), status.clone(), rounds.clone());
        move || {
            let port = Port { rx: Box::new(Moody { mood, rounds, fd: port_fd }), tx: Box::new(Silent) };
            let card = CardConfig { max_flows: 64, spin_us: 0, ..CardConfig::default() };
            let config = RunConfig { card, placement, cpu: None, disturb };
            let mut runner = Runner::new(config, port, mailbox, status, stopped.as_fd()).unwrap();
            let ended = runner.run().map_err(|e| format!("{:#}", anyhow::Error::from(e)));
            if ended.is_err() {
                runner.fail(Duration::ZERO);
            }
            if mood == Mood::Hangs {
                // As long as the test looks, the runner stays, as in `main`.
                let _ = rustix::io::read(&stopped, &mut [0; 1]);
            }
            ended
        }
    });
    Bench { mailbox, status, rounds, stop, thread }
}

/// The fused card, and one with each stage on a thread of its own.
fn each_way() -> [Option<Placement>; 2] {
    [None, Some(Placement::spread(2, 2, 2, 2))]
}

fn quiet_fd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::empty()).unwrap()
}

#[test]
fn letters_wake_a_sleeping_card_and_stop_ends_it() {
    for placement in each_way() {
        let b = bench(Mood::Quiet, quiet_fd(), placement);
        b.mailbox.call(Command::Reset).unwrap();
        let refused = b.mailbox.call(Command::Attach { iova: 0x1000 }).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EFAULT), "nothing is mapped");
        assert_eq!(b.status.get(), regs::status::DETACHED);
        b.mailbox.call(Command::Reset).unwrap();
        let unmapped = b.mailbox.call(Command::Unmap { iova: 0, len: u64::MAX }).unwrap();
        assert!(unmapped.is_empty());
        rustix::io::write(&b.stop, &[1]).unwrap();
        assert_eq!(b.thread.join().unwrap(), Ok(()));
    }
}

#[test]
fn memory_is_given_back_when_every_core_has_passed() {
    for placement in each_way() {
        let b = bench(Mood::Quiet, quiet_fd(), placement);
        let fd = rustix::fs::memfd_create("region", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::SHRINK).unwrap();
        let mapping = crate::memory::Mapping::new(&fd, 0, 0x1000, 4096).unwrap();
        b.mailbox.call(Command::Map(mapping)).unwrap();
        assert_eq!(b.mailbox.call(Command::Unmap { iova: 0x1000, len: 4096 }).unwrap().len(), 1);
        rustix::io::write(&b.stop, &[1]).unwrap();
        assert_eq!(b.thread.join().unwrap(), Ok(()));
    }
}

#[test]
fn a_parked_card_does_no_rounds() {
    for placement in each_way() {
        let b = bench(Mood::Quiet, quiet_fd(), placement);
        b.mailbox.call(Command::Detach).unwrap();
        // Each letter costs a few rounds, and nothing else does: the count hardly depends on time.
        let before = b.rounds.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        let rounds = b.rounds.load(Ordering::Relaxed) - before;
        assert!(rounds < 50, "{rounds} rounds while idle");
        rustix::io::write(&b.stop, &[1]).unwrap();
        b.thread.join().unwrap().unwrap();
    }
}

#[test]
fn a_kick_wakes_the_card_again_and_again_without_being_read() {
    let b = bench(Mood::Quiet, quiet_fd(), None);
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
    for placement in each_way() {
        let b = bench(Mood::Panics, quiet_fd(), placement);
        let error = b.thread.join().unwrap().unwrap_err();
        assert!(error.contains("core 0") && error.contains("has panicked: told to"), "{error}");
        assert_eq!(b.status.get(), regs::status::FAILED);
        assert!(b.mailbox.call(Command::Reset).is_err(), "calls fail instead of waiting");
    }
}

#[test]
fn a_card_that_fails_answers_who_waits_for_its_cores() {
    let b = bench(Mood::Hangs, quiet_fd(), Some(Placement::spread(1, 1, 1, 1)));
    let fd = rustix::fs::memfd_create("region", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, 4096).unwrap();
    rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::SHRINK).unwrap();
    b.mailbox.call(Command::Map(crate::memory::Mapping::new(&fd, 0, 0x1000, 4096).unwrap())).unwrap();
    let unmapped = std::thread::scope(|scope| {
        let asker = scope.spawn(|| b.mailbox.call(Command::Unmap { iova: 0x1000, len: 4096 }));
        // Until the letter has been read: its answer waits for the core that hangs.
        std::thread::sleep(Duration::from_millis(100));
        b.rounds.store(HANGS_NO_LONGER, Ordering::Relaxed);
        asker.join().unwrap()
    });
    let late = unmapped.is_err_and(|e| e.raw_os_error() == Some(libc::ETIMEDOUT));
    assert!(!late, "toed asks nothing else meanwhile, so it does not read that the card has failed");
    drop(b.stop);
    assert!(b.thread.join().unwrap().unwrap_err().contains("has panicked: it hung"));
}

#[test]
fn the_death_of_any_stage_is_the_cards() {
    for stage in ["ingress", "pre.1", "protocol.0", "post.1", "dma.0", "egress", "ctxq"] {
        let disturb = format!("die={stage},after=2").parse().unwrap();
        let b = bench_with(Mood::Quiet, quiet_fd(), Some(Placement::spread(2, 2, 2, 2)), Some(disturb));
        // Whoever sleeps does no steps: after a reset each does one, if it gets that far before the next. A slow machine gets more time.
        let has_ended = (0..1000).any(|round| {
            let ended = b.thread.is_finished() || b.mailbox.call(Command::Reset).is_err();
            std::thread::sleep(Duration::from_millis(if ended { 0 } else { 1 + round / 10 }));
            ended
        });
        assert!(has_ended, "{stage} lives on");
        let error = b.thread.join().unwrap().unwrap_err();
        assert!(error.contains(&format!("({stage})")), "{error}");
        assert_eq!(b.status.get(), regs::status::FAILED);
    }
}

#[test]
fn a_port_that_has_gone_ends_the_card() {
    for placement in each_way() {
        // A socket whose other end is closed reports a hang-up.
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let b = bench(Mood::Quiet, ours.into(), placement);
        assert!(b.thread.join().unwrap().unwrap_err().contains("moody0"));
        assert_eq!(b.status.get(), regs::status::FAILED);
    }
}

#[test]
fn a_cpu_that_is_not_there_is_an_error() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let ours = (0u32..1000).find(|cpu| allowed.is_set(*cpu as usize)).unwrap();
    let mut placement = Placement::auto(2);
    placement.bind(&[ours, 1000]);
    let b = bench(Mood::Quiet, quiet_fd(), Some(placement));
    let error = b.thread.join().unwrap().unwrap_err();
    assert!(error.contains("core 1 can't run on CPU 1000"), "{error}");
}
