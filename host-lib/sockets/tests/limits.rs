//! At the limits of descriptors: the process's, and the library's. Alone in its process, which has one limit.

mod world;

use rustix::fd::{AsRawFd, IntoRawFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Mutex;
use toe::link::slot::Addr;
use toe::link::sys::AppFd;
use toe_sockets::names::{Family, encode};
use toe_sockets::open::{Outcome, socket};
use toe_sockets::{Errno, IoSpan, Sock, close};

/// The world has a table of its own with room below it.
const LAST: i32 = 400;
/// The first number that the library has no place for.
const BEYOND: i32 = 1 << 18;
/// Held by a test: there is one limit.
static ALONE: Mutex<()> = Mutex::new(());

fn limit(current: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) }).unwrap();
}

fn fresh() -> Result<i32, Errno> {
    Ok(socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?.unwrap())
}

fn sock(fd: i32) -> Sock {
    Sock::find(fd).unwrap()
}

/// Runs `f` while the process has no descriptor to spare.
fn without_numbers<T>(f: impl FnOnce() -> T) -> T {
    let fill = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let _all: Vec<_> = std::iter::repeat_with(fill).take_while(|fd| fd.as_raw_fd() < LAST).collect();
    let before = getrlimit(Resource::Nofile).current.unwrap();
    limit(LAST as u64);
    let result = f();
    limit(before);
    result
}

#[test]
fn what_fails_at_the_limit_works_again_below_it() {
    let _alone = ALONE.lock();
    world::start();
    limit(1000);
    // The library takes its own descriptors from below its limit.
    let listener = fresh().unwrap();
    assert_eq!(sock(listener).listen(8), Ok(Outcome::Done));
    let client = fresh().unwrap();
    let name = sock(listener).local_name().unwrap();
    let to = encode(Addr::v4(world::CARD, u16::from_be_bytes([name[2], name[3]])), Family::Inet);
    assert_eq!(sock(client).connect(&to), Ok(Outcome::Done));

    // As on Linux: the connection waits for somebody who has a number for it.
    assert_eq!(without_numbers(|| sock(listener).accept(0)), Err(Errno::MFILE));
    let (server, _) = sock(listener).accept(0).unwrap();

    // A thread that sleeps for the first time.
    let mut byte = [0];
    without_numbers(|| {
        let reader = std::thread::spawn(move || {
            // SAFETY: the buffer outlives the call.
            let span = unsafe { IoSpan::new(byte.as_mut_ptr(), 1) };
            (sock(server).recv(&[span], 0), byte)
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        // SAFETY: the slice outlives the call and is only read.
        let span = unsafe { IoSpan::new(b"x".as_ptr().cast_mut(), 1) };
        assert_eq!(sock(client).send(&[span], 0), Ok(1));
        assert_eq!(reader.join().unwrap(), (Ok(1), *b"x"));
    });

    // Tokens that have no numbers are not taken, and the daemon is asked again.
    without_numbers(|| (0..20).for_each(|_| assert_eq!(fresh(), Err(Errno::MFILE))));
    (0..20).for_each(|_| close::close(fresh().unwrap()).unwrap());
}

/// What is written to a copy that the library does not know would go to the token, and be lost.
#[test]
fn a_copy_that_the_library_has_no_place_for_is_refused() {
    let _alone = ALONE.lock();
    world::start();
    let fd = fresh().unwrap();
    assert_eq!(close::duplicated(fd, BEYOND), Err(Errno::MFILE));
    assert_eq!(close::dup3(fd, BEYOND, 0), Err(Errno::BADF));

    // The same with such numbers, where they may be had.
    let before = getrlimit(Resource::Nofile);
    let enough = BEYOND as u64 + 2;
    let above = Rlimit { current: Some(enough), maximum: before.maximum.map(|most| most.max(enough)) };
    if setrlimit(Resource::Nofile, above).is_ok() {
        let copy = rustix::io::fcntl_dupfd_cloexec(AppFd(fd), BEYOND).unwrap().into_raw_fd();
        assert_eq!(close::duplicated(fd, copy), Err(Errno::MFILE));
        assert_eq!(rustix::io::fcntl_getfd(AppFd(copy)), Err(Errno::BADF), "closed again");
        let pipe = rustix::pipe::pipe().unwrap();
        let file = rustix::io::fcntl_dupfd_cloexec(&pipe.0, BEYOND).unwrap();
        assert_eq!(close::dup3(fd, file.as_raw_fd(), 0), Err(Errno::BADF));
        assert!(rustix::io::fcntl_getfd(&file).is_ok() && rustix::net::sockopt::socket_type(&file).is_err(), "left as it was");
        let current = before.current.map(|most| most.min(BEYOND as u64));
        setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    }
    assert_eq!(sock(fd).listen(1), Ok(Outcome::Done));
}
