//! Calls by their names in libc, which are this library's in the test's program as well.

#[path = "../../sockets/tests/world/mod.rs"]
mod world;

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

/// The kernel does not know our sockets: who would use a ring for them is to use epoll instead.
#[test]
fn there_is_no_io_uring() {
    let mut parameters = [0u8; 120];
    // SAFETY: the size of an io_uring_params.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    assert_eq!((ring, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
}
