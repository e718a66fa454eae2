//! Calls by their names in libc, which are this library's in the test's program as well.

#[path = "../../sockets/tests/world/mod.rs"]
mod world;

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Once;
use toe_sockets::Sock;

fn fresh() -> libc::c_int {
    world::start();
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(Sock::find(fd).is_some());
    fd
}

/// Before a test that shares sockets by other means.
fn spawn_first() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (client, server) = world::pair();
        let (mut pid, argv) = (0, [c"true".as_ptr().cast_mut(), null_mut()]);
        // SAFETY: all arguments are as in the manual page.
        let error = unsafe { libc::posix_spawnp(&raw mut pid, c"true".as_ptr(), null(), null(), argv.as_ptr(), null()) };
        assert_eq!(error, 0);
        // SAFETY: no status is asked for.
        assert_eq!(unsafe { libc::waitpid(pid, null_mut(), 0) }, pid);
        world::assert_has_it_back(client, server);
    });
}

/// What the other program has used is its parent's again once it is needed there.
#[test]
fn who_spawns_a_program_has_its_connection_back() {
    spawn_first();
}

/// Programs ask about interfaces through any socket that they have.
#[test]
fn interfaces_are_asked_about_through_a_socket() {
    // SAFETY: zeroes are an ifreq.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    asked.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    // SAFETY: the request takes an ifreq.
    let result = unsafe { libc::ioctl(fresh(), libc::SIOCGIFADDR, &raw mut asked) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the answer is an address.
    assert_eq!(unsafe { asked.ifr_ifru.ifru_addr.sa_family }, libc::AF_INET as libc::sa_family_t);
}

/// As with recvmsg(), a socket of ours that comes in one of several messages is one.
#[test]
fn sockets_come_in_several_messages() {
    spawn_first();
    let fd = fresh();
    // Tokens are known by who made them.
    std::fs::write("/proc/self/comm", "toed").unwrap();
    let mut ends = [0; 2];
    // SAFETY: room for two numbers.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, ends.as_mut_ptr()) }, 0);
    let (mut byte, mut control) = (0u8, [0u64; 3]);
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: zeroes are a message; what it points to outlives the calls, and its control data is one header with room for a number.
    let got = unsafe {
        let mut message: libc::mmsghdr = std::mem::zeroed();
        let head = &mut message.msg_hdr;
        (head.msg_iov, head.msg_iovlen) = (&raw mut iov, 1);
        (head.msg_control, head.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        let cmsg = libc::CMSG_FIRSTHDR(head);
        ((*cmsg).cmsg_level, (*cmsg).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*cmsg).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
        libc::CMSG_DATA(cmsg).cast::<libc::c_int>().write_unaligned(fd);
        assert_eq!(libc::sendmmsg(ends[0], &raw mut message, 1, 0), 1);
        assert_eq!(libc::recvmmsg(ends[1], &raw mut message, 1, 0, null_mut()), 1);
        libc::CMSG_DATA(cmsg).cast::<libc::c_int>().read_unaligned()
    };
    assert!(got != fd && Sock::find(got).is_some());
}

unsafe extern "C-unwind" {
    fn pthread_create(thread: &mut libc::pthread_t, attributes: *const c_void, run: Run, argument: *mut c_void) -> libc::c_int;
    fn pthread_setcanceltype(kind: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
    fn send(fd: libc::c_int, buf: *const c_void, len: usize, flags: libc::c_int) -> isize;
    fn recv(fd: libc::c_int, buf: *mut c_void, len: usize, flags: libc::c_int) -> isize;
    fn epoll_wait(epfd: libc::c_int, events: *mut libc::epoll_event, max: libc::c_int, timeout: libc::c_int) -> libc::c_int;
}

type Run = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

unsafe extern "C-unwind" fn receives(fd: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    // SAFETY: room for a byte.
    unsafe { recv(fd.addr() as libc::c_int, (&raw mut byte).cast(), 1, 0) };
    null_mut()
}

unsafe extern "C-unwind" fn waits(set: *mut c_void) -> *mut c_void {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one.
    unsafe { epoll_wait(set.addr() as libc::c_int, &raw mut event, 1, -1) };
    null_mut()
}

/// A thread that waits ends when it is told to.
#[test]
fn threads_that_wait_can_be_cancelled() {
    spawn_first();
    let (client, _server) = world::pair();
    let fd = (0..1000).find(|&fd| Sock::find(fd) == Some(client)).unwrap();
    // SAFETY: numbers only.
    let set = unsafe { libc::epoll_create1(0) };
    for (run, fd) in [(receives as Run, fd), (waits, set)] {
        let (mut thread, mut result) = (0, null_mut());
        // SAFETY: the thread is waited for, and holds nothing when it ends.
        unsafe {
            assert_eq!(pthread_create(&mut thread, null(), run, std::ptr::without_provenance_mut(fd as usize)), 0);
            // It sleeps by then, or ends before it does.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(libc::pthread_cancel(thread), 0);
            assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
        }
        // PTHREAD_CANCELED
        assert_eq!(result.addr(), usize::MAX);
    }
}

const PTHREAD_CANCEL_ASYNCHRONOUS: libc::c_int = 1;

/// Sends and receives until it is cancelled, at any time, as iperf3's workers.
unsafe extern "C-unwind" fn moves(fd: *mut c_void) -> *mut c_void {
    let mut before = -1;
    // SAFETY: room for a number.
    unsafe {
        assert_eq!(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &raw mut before), 0);
        assert_eq!(before, 0);
        assert_eq!(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &raw mut before), 0);
        assert_eq!(before, PTHREAD_CANCEL_ASYNCHRONOUS);
    }
    let fd = fd.addr() as libc::c_int;
    let mut byte = 0u8;
    loop {
        // SAFETY: room for a byte.
        unsafe {
            send(fd, (&raw const byte).cast(), 1, libc::MSG_DONTWAIT);
            recv(fd, (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT);
        }
    }
}

/// Calls nothing.
unsafe extern "C-unwind" fn computes(_: *mut c_void) -> *mut c_void {
    // SAFETY: nothing is asked.
    unsafe { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, null_mut()) };
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thread_that_only_computes_can_be_cancelled_at_any_time() {
    let (mut thread, mut result) = (0, null_mut());
    // SAFETY: the thread is waited for, and holds nothing.
    unsafe {
        assert_eq!(pthread_create(&mut thread, null(), computes, null_mut()), 0);
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(libc::pthread_cancel(thread), 0);
        assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
    }
    assert_eq!(result.addr(), usize::MAX);
}

/// A thread that may be cancelled at any time takes no lock of the library's with it.
#[test]
fn threads_that_can_be_cancelled_at_any_time_leave_nothing_locked() {
    spawn_first();
    let number = |sock| (0..1000).find(|&fd| Sock::find(fd) == Some(sock)).unwrap();
    let ((moved, _far), (client, server)) = (world::pair(), world::pair());
    let (moved, client, server) = (number(moved), number(client), number(server));
    for _ in 0..100 {
        let (mut thread, mut result) = (0, null_mut());
        let mut byte = 0u8;
        // SAFETY: the thread is waited for, and holds nothing when it ends; room for a byte.
        unsafe {
            assert_eq!(pthread_create(&mut thread, null(), moves, std::ptr::without_provenance_mut(moved as usize)), 0);
            // Whatever it does just then.
            std::thread::sleep(std::time::Duration::from_micros(300));
            assert_eq!(libc::pthread_cancel(thread), 0);
            assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
            assert_eq!(send(client, (&raw const byte).cast(), 1, 0), 1);
            assert_eq!(recv(server, (&raw mut byte).cast(), 1, 0), 1);
        }
        assert_eq!(result.addr(), usize::MAX);
    }
}

/// The kernel does not know our sockets: who would use a ring for them is to use epoll instead.
#[test]
fn there_is_no_io_uring() {
    let mut parameters = [0u8; 120];
    // SAFETY: the size of an io_uring_params.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    assert_eq!((ring, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
}

/// A file that is opened at the number of a socket that stdio has closed is not taken for that.
#[test]
fn a_socket_that_stdio_has_closed_is_gone() {
    let close: [fn(*mut libc::FILE); 2] = [
        // SAFETY: the stream is not used afterwards.
        |stream| unsafe { assert_eq!(libc::fclose(stream), 0) },
        // SAFETY: a stream, and C strings.
        |stream| unsafe { assert!(!libc::freopen(c"/dev/null".as_ptr(), c"r".as_ptr(), stream).is_null()) },
    ];
    for close in close {
        let fd = fresh();
        let socket = Sock::find(fd);
        // SAFETY: the descriptor is the stream's from here on.
        close(unsafe { libc::fdopen(fd, c"r".as_ptr()) });
        assert_ne!(Sock::find(fd), socket);
    }
}

/// As many as do not fit into registers.
#[test]
fn arguments_go_on_to_execl() {
    // SAFETY: the child has its parent's memory, and does nothing but to call a function that takes C strings up to a null.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let n = c"n".as_ptr();
        // SAFETY: as above.
        unsafe {
            libc::execl(c"/bin/sh".as_ptr(), n, c"-c".as_ptr(), c"exit $#".as_ptr(), n, n, n, n, n, n, n, n, null::<libc::c_char>());
            libc::_exit(100);
        }
    }
    let mut status = 0;
    // SAFETY: room for a status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
}
