//! POSIX rules, against a daemon and a card that connect the process to itself. One test per rule.

mod world;

use std::os::fd::{AsRawFd, IntoRawFd};
use std::thread;
use std::time::Duration;
use toe::link::slot::Addr;
use toe::link::sys::AppFd;
use toe_abi::desc::hc;
use toe_sockets::epoll;
use toe_sockets::names::{Family, SockName, encode};
use toe_sockets::open::{Outcome, socket};
use toe_sockets::{Errno, IoSpan, Kind, Sock, close, kind, poll};

/// A descriptor that closes itself.
struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = close::close(self.0);
    }
}

impl Fd {
    fn sock(&self) -> Sock {
        Sock::find(self.0).unwrap()
    }

    fn send(&self, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
        // SAFETY: the slice outlives the call and is only read.
        let span = unsafe { IoSpan::new(bytes.as_ptr().cast_mut(), bytes.len()) };
        self.sock().send(&[span], flags)
    }

    fn recv(&self, max: usize, flags: i32) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; max];
        // SAFETY: the buffer outlives the call.
        let span = unsafe { IoSpan::new(buf.as_mut_ptr(), max) };
        let n = self.sock().recv(&[span], flags)?;
        buf.truncate(n);
        Ok(buf)
    }

    fn poll(&self, events: i16, ms: u64) -> i16 {
        let mut fds = [libc::pollfd { fd: self.0, events, revents: 0 }];
        poll::poll(&mut fds, Some(Duration::from_millis(ms)), None).unwrap();
        fds[0].revents
    }
}

fn name(ip: [u8; 4], port: u16) -> SockName {
    encode(Addr::v4(ip, port), Family::Inet)
}

fn port_of(name: &[u8]) -> u16 {
    u16::from_be_bytes([name[2], name[3]])
}

fn fresh(flags: i32) -> Fd {
    world::start();
    Fd(socket(libc::AF_INET, libc::SOCK_STREAM | flags, 0).unwrap().unwrap())
}

fn listener() -> (Fd, u16) {
    let fd = fresh(0);
    assert_eq!(fd.sock().bind(&name([0; 4], 0)), Ok(Outcome::Done));
    assert_eq!(fd.sock().listen(8), Ok(Outcome::Done));
    let port = port_of(&fd.sock().local_name().unwrap());
    (fd, port)
}

/// Both ends of a connection, and its listener.
fn pair() -> (Fd, Fd, Fd) {
    let (listener, port) = listener();
    let client = fresh(0);
    assert_eq!(client.sock().connect(&name(world::CARD, port)), Ok(Outcome::Done));
    let (fd, _) = listener.sock().accept(0).unwrap();
    (client, Fd(fd), listener)
}

const IN: i16 = libc::POLLIN;
const OUT: i16 = libc::POLLOUT;

/// RFC 9293 3.10.2-4, 3.10.3-3.
#[test]
fn bytes_go_both_ways_and_end() {
    let (a, b, _l) = pair();
    assert_eq!(a.send(b"hello", 0), Ok(5));
    assert_eq!(b.recv(100, 0).unwrap(), b"hello");
    assert_eq!(b.send(b"world", 0), Ok(5));
    a.sock().shutdown(libc::SHUT_WR).unwrap();
    assert_eq!(a.recv(5, libc::MSG_WAITALL | libc::MSG_PEEK).unwrap(), b"world");
    assert_eq!(b.recv(10, 0).unwrap(), b"");
    assert_eq!(a.send(b"x", 0), Err(Errno::PIPE));
    assert_eq!(a.recv(100, 0).unwrap(), b"world");
}

#[test]
fn names_are_those_of_both_ends() {
    let (a, b, _l) = pair();
    assert_eq!(a.sock().local_name(), b.sock().peer_name());
    assert_eq!(a.sock().peer_name(), b.sock().local_name());
    assert_eq!(fresh(0).sock().peer_name(), Err(Errno::NOTCONN));
    assert_eq!(fresh(0).sock().local_name(), Ok(name([0; 4], 0)));
}

#[test]
fn more_than_the_buffers_hold_arrives_whole() {
    let (a, b, _l) = pair();
    let data: Vec<u8> = (0..200_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let sent = data.clone();
    let sender = thread::spawn(move || (a.send(&sent, 0), a));
    let got = b.recv(data.len(), libc::MSG_WAITALL).unwrap();
    assert!(got == data, "every byte in its place");
    assert_eq!(sender.join().unwrap().0, Ok(data.len()));
}

#[test]
fn a_nonblocking_socket_never_waits() {
    let (a, b, _l) = pair();
    a.sock().set_nonblocking(true).unwrap();
    assert_eq!(a.sock().status_flags().unwrap() & libc::O_NONBLOCK, libc::O_NONBLOCK);
    assert_eq!(a.recv(1, 0), Err(Errno::AGAIN));
    assert_eq!(b.recv(1, libc::MSG_DONTWAIT), Err(Errno::AGAIN));
    let mut sent = 0;
    // Until both buffers are full and the card has moved what it can: less room than a third does not count as writable.
    loop {
        match a.send(&[1; 4096], 0) {
            Ok(n) => sent += n,
            Err(e) if sent == 2 * world::BUFFER as usize => break assert_eq!(e, Errno::AGAIN),
            Err(e) => assert!(e == Errno::AGAIN && a.poll(OUT, 20) & !OUT == 0),
        }
    }
    assert_eq!(a.poll(OUT, 0), 0);
    assert_eq!(sent, 2 * world::BUFFER as usize);
    assert_eq!(b.recv(sent, libc::MSG_WAITALL).unwrap().len(), sent);
    assert_eq!(a.poll(OUT, 5000), OUT);
}

#[test]
fn timeouts_end_a_wait() {
    let (a, _b, listener) = pair();
    let mut tenth = [0; 16];
    tenth[8..].copy_from_slice(&10_000i64.to_ne_bytes());
    a.sock().set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &tenth).unwrap();
    assert_eq!(a.recv(1, 0), Err(Errno::AGAIN));
    listener.sock().set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &tenth).unwrap();
    assert_eq!(listener.sock().accept(0).map(|(fd, _)| Fd(fd).0), Err(Errno::AGAIN));
    let mute = fresh(0);
    mute.sock().set_option(libc::SOL_SOCKET, libc::SO_SNDTIMEO, &tenth).unwrap();
    assert_eq!(mute.sock().connect(&name([10, 77, 0, 9], 1)), Err(Errno::INPROGRESS));
}

/// As on Linux: a call waits for so many bytes, unless it has asked for fewer, or its time is over.
#[test]
fn a_low_water_mark_holds_for_calls_that_wait() {
    let (a, b, _l) = pair();
    let timeout = |ms: i64| {
        let mut time = [0; 16];
        time[..8].copy_from_slice(&(ms / 1000).to_ne_bytes());
        time[8..].copy_from_slice(&(ms % 1000 * 1000).to_ne_bytes());
        b.sock().set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time).unwrap();
    };
    b.sock().set_option(libc::SOL_SOCKET, libc::SO_RCVLOWAT, &5i32.to_ne_bytes()).unwrap();
    timeout(5000);
    thread::scope(|scope| {
        let reader = scope.spawn(|| b.recv(2, 0));
        thread::sleep(Duration::from_millis(20));
        a.send(b"ab", 0).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"ab");
        let reader = scope.spawn(|| b.recv(3, libc::MSG_WAITALL));
        a.send(b"cde", 0).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"cde");
        a.send(b"fgh", 0).unwrap();
        let reader = scope.spawn(|| b.recv(9, 0));
        thread::sleep(Duration::from_millis(50));
        a.send(b"ij", 0).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"fghij");
    });
    a.send(b"kl", 0).unwrap();
    assert_eq!(b.recv(2, libc::MSG_PEEK).unwrap(), b"kl");
    timeout(20);
    assert_eq!(b.recv(9, 0).unwrap(), b"kl");
}

/// RFC 9293 3.10.3-1.
#[test]
fn a_thread_that_sleeps_is_woken_by_another_threads_bytes() {
    let (a, b, _l) = pair();
    let reader = thread::spawn(move || b.recv(5, 0));
    thread::sleep(Duration::from_millis(20));
    assert_eq!(a.send(b"wake!", 0), Ok(5));
    assert_eq!(reader.join().unwrap().unwrap(), b"wake!");
}

#[test]
fn many_sleeping_threads_each_get_their_own() {
    let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
    thread::scope(|scope| {
        for (i, (a, b, _)) in pairs.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..50u8 {
                    assert_eq!(b.recv(2, libc::MSG_WAITALL).unwrap(), [i as u8, turn]);
                    b.send(&[turn], 0).unwrap();
                }
            });
            scope.spawn(move || {
                for turn in 0..50u8 {
                    a.send(&[i as u8, turn], 0).unwrap();
                    assert_eq!(a.recv(1, 0).unwrap(), [turn]);
                }
            });
        }
    });
}

/// RFC 9293 3.10.1-5.
#[test]
fn connecting_to_nobody_is_refused() {
    let fd = fresh(0);
    assert_eq!(fd.sock().connect(&name([10, 77, 0, 9], 99)), Err(Errno::CONNREFUSED));
    // And the socket can try again.
    let (_l, port) = listener();
    assert_eq!(fd.sock().connect(&name(world::CARD, port)), Ok(Outcome::Done));
    assert_eq!(fd.sock().connect(&name(world::CARD, port)), Err(Errno::ISCONN));
}

#[test]
fn a_nonblocking_connect_reports_by_poll_and_so_error() {
    let fd = fresh(libc::SOCK_NONBLOCK);
    assert_eq!(fd.sock().connect(&name([10, 77, 0, 9], 99)), Err(Errno::INPROGRESS));
    assert_ne!(fd.poll(OUT, 5000) & libc::POLLERR, 0);
    let mut value = [0; 4];
    fd.sock().option(libc::SOL_SOCKET, libc::SO_ERROR, &mut value).unwrap();
    assert_eq!(i32::from_ne_bytes(value), libc::ECONNREFUSED);
    fd.sock().option(libc::SOL_SOCKET, libc::SO_ERROR, &mut value).unwrap();
    assert_eq!(i32::from_ne_bytes(value), 0, "once");
    let mute = fresh(libc::SOCK_NONBLOCK);
    assert_eq!(mute.sock().connect(&name([10, 77, 0, 9], 1)), Err(Errno::INPROGRESS));
    assert_eq!(mute.sock().connect(&name([10, 77, 0, 9], 1)), Err(Errno::ALREADY));
    assert_eq!(mute.poll(OUT, 0), 0);
}

#[test]
fn shutdown_calls_a_connect_off() {
    for how in [libc::SHUT_RD, libc::SHUT_WR, libc::SHUT_RDWR] {
        let fd = fresh(0);
        let ten_seconds = [10u64.to_ne_bytes(), [0; 8]].concat();
        fd.sock().set_option(libc::SOL_SOCKET, libc::SO_SNDTIMEO, &ten_seconds).unwrap();
        thread::scope(|scope| {
            let connecting = scope.spawn(|| fd.sock().connect(&name([10, 77, 0, 9], 1)));
            while fd.poll(OUT, 0) != 0 {
                thread::yield_now();
            }
            assert_eq!(fd.sock().shutdown(how), Ok(()));
            assert_eq!(connecting.join().unwrap(), Err(Errno::CONNRESET));
        });
        // As good as new, but for the error that nobody has heard of.
        fd.sock().set_nonblocking(true).unwrap();
        assert_eq!(fd.sock().connect(&name([10, 77, 0, 9], 1)), Err(Errno::INPROGRESS));
        assert_eq!(fd.sock().shutdown(how), Ok(()));
        assert_eq!(fd.poll(-1, 0), OUT | libc::POLLWRNORM | libc::POLLERR | libc::POLLHUP);
        assert_eq!(fd.recv(1, 0), Err(Errno::CONNRESET));
        assert_eq!(fd.recv(1, 0), Err(Errno::NOTCONN));
        assert_eq!(fd.poll(-1, 0), OUT | libc::POLLWRNORM | libc::POLLHUP);
        assert_eq!(fd.sock().connect(&name([10, 77, 0, 9], 1)), Err(Errno::INPROGRESS));
        assert_eq!(fd.poll(-1, 0), 0);
    }
}

#[test]
fn loopback_becomes_a_kernel_socket_at_the_same_number() {
    let fd = fresh(libc::SOCK_NONBLOCK);
    fd.sock().set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes()).unwrap();
    assert_eq!(fd.sock().bind(&name([127, 0, 0, 1], 0)), Ok(Outcome::Kernel));
    assert_eq!(kind(fd.0), Kind::Other);
    let kernel = toe::link::sys::AppFd(fd.0);
    assert_eq!(rustix::net::sockopt::socket_domain(kernel), Ok(rustix::net::AddressFamily::INET));
    assert_eq!(rustix::net::sockopt::tcp_nodelay(kernel), Ok(true));
    assert!(rustix::fs::fcntl_getfl(kernel).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

/// Whatever a program has set before it knows where it will connect to.
#[test]
fn options_go_with_a_socket_to_the_kernel() {
    go_to_the_kernel(&[
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::SOL_SOCKET, libc::SO_OOBINLINE, 1),
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 77),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 33),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 7),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 12_345),
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT, 3),
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384),
        (libc::IPPROTO_IP, libc::IP_TOS, 0x10),
        (libc::IPPROTO_IP, libc::IP_TTL, 9),
        // IP_TOS sets this one as well.
        (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
    ]);
}

#[test]
fn a_rate_and_a_late_port_go_with_a_socket_to_the_kernel() {
    go_to_the_kernel(&[(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, 500_000), (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)]);
}

/// The kernel's own buffers are as large as was asked for (and twice that, as it says).
#[test]
fn sizes_of_buffers_go_with_a_socket_to_the_kernel() {
    let fd = fresh(0);
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        fd.sock().set_option(libc::SOL_SOCKET, name, &10_000i32.to_ne_bytes()).unwrap();
    }
    assert_eq!(fd.sock().bind(&name([127, 0, 0, 1], 0)), Ok(Outcome::Kernel));
    let kernel = AppFd(fd.0);
    assert_eq!(rustix::net::sockopt::socket_send_buffer_size(kernel), Ok(20_000));
    assert_eq!(rustix::net::sockopt::socket_recv_buffer_size(kernel), Ok(20_000));
}

#[test]
fn congestion_control_goes_with_a_socket_to_the_kernel() {
    let fd = fresh(0);
    // The one that every kernel has.
    fd.sock().set_option(libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno").unwrap();
    assert_eq!(fd.sock().bind(&name([127, 0, 0, 1], 0)), Ok(Outcome::Kernel));
    assert_eq!(rustix::net::sockopt::tcp_congestion(AppFd(fd.0)).as_deref(), Ok("reno"));
}

fn go_to_the_kernel(numbers: &[(i32, i32, i32)]) {
    let fd = fresh(0);
    for &(level, name, value) in numbers {
        fd.sock().set_option(level, name, &i32::to_ne_bytes(value)).unwrap();
    }
    assert_eq!(fd.sock().bind(&name([127, 0, 0, 1], 0)), Ok(Outcome::Kernel));
    for &(level, name, value) in numbers {
        let (mut got, mut len) = (0i32, 4);
        // SAFETY: room for a number, and for its length.
        let result = unsafe { libc::getsockopt(fd.0, level, name, (&raw mut got).cast(), &raw mut len) };
        assert_eq!((result, got), (0, value), "level {level}, option {name}");
    }
}

/// As by a kernel whose TCP Fast Open is switched off: programs connect first, then.
#[test]
fn a_send_that_is_to_connect_is_refused() {
    assert_eq!(fresh(0).send(b"x", libc::MSG_FASTOPEN), Err(Errno::OPNOTSUPP));
    let (client, _server, _listener) = pair();
    assert_eq!(client.send(b"x", libc::MSG_FASTOPEN), Err(Errno::OPNOTSUPP));
}

#[test]
fn a_port_in_use_is_refused() {
    let (_l, port) = listener();
    assert_eq!(fresh(0).sock().bind(&name([0; 4], port)), Err(Errno::ADDRINUSE));
}

#[test]
fn what_is_not_tcp_is_the_kernels() {
    world::start();
    for (domain, kind) in [(libc::AF_INET, libc::SOCK_DGRAM), (libc::AF_UNIX, libc::SOCK_STREAM), (libc::AF_INET6, libc::SOCK_DGRAM)] {
        assert_eq!(socket(domain, kind, 0), Ok(None));
    }
}

fn fresh6() -> Fd {
    world::start();
    Fd(socket(libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap().unwrap())
}

fn name6(ip: &str, port: u16) -> SockName {
    encode(Addr::v6(ip.parse::<std::net::Ipv6Addr>().unwrap().octets(), port), Family::Inet6)
}

#[test]
fn a_socket_of_ipv6_speaks_ipv4_by_mapped_names() {
    let listener = fresh6();
    assert_eq!(&listener.sock().local_name().unwrap()[..], &name6("::", 0)[..]);
    assert_eq!(listener.sock().bind(&name6("::", 0)), Ok(Outcome::Done));
    assert_eq!(listener.sock().listen(8), Ok(Outcome::Done));
    let port = port_of(&listener.sock().local_name().unwrap());
    let [a, b, c, d] = world::CARD;
    let card = format!("::ffff:{a}.{b}.{c}.{d}");
    let client = fresh6();
    assert_eq!(client.sock().connect(&name6(&card, port)), Ok(Outcome::Done));
    assert_eq!(client.sock().peer_name(), Ok(name6(&card, port)));
    let (fd, peer) = listener.sock().accept(0).unwrap();
    assert_eq!((Ok(peer), Fd(fd).sock().local_name()), (client.sock().local_name(), client.sock().peer_name()));
    // The accepted one is of its listener's family.
    let plain = fresh(0);
    assert_eq!(plain.sock().connect(&name(world::CARD, port)), Ok(Outcome::Done));
    assert_eq!(listener.sock().accept(0).map(|(fd, peer)| (Fd(fd).0 >= 0, peer.len())), Ok((true, 28)));
}

#[test]
fn names_of_another_family_are_refused() {
    assert_eq!(fresh6().sock().connect(&name(world::CARD, 80)), Err(Errno::INVAL), "too short");
    assert_eq!(fresh(0).sock().connect(&name6("fd00::1", 80)), Err(Errno::AFNOSUPPORT));
    assert_eq!(fresh(0).sock().bind(&name6("::", 0)), Err(Errno::AFNOSUPPORT));
}

#[test]
fn what_the_card_has_no_address_for_is_the_kernels() {
    for (ip, v6only) in [("::1", 0i32), ("::", 1)] {
        let fd = fresh6();
        fd.sock().set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &v6only.to_ne_bytes()).unwrap();
        assert_eq!(fd.sock().bind(&name6(ip, 0)), Ok(Outcome::Kernel), "{ip}");
        let kernel = toe::link::sys::AppFd(fd.0);
        assert_eq!(rustix::net::sockopt::socket_domain(kernel), Ok(rustix::net::AddressFamily::INET6));
        assert_eq!(rustix::net::sockopt::ipv6_v6only(kernel), Ok(v6only != 0));
    }
    // No route of the kernel's leads there: what it says is what the program is to hear.
    assert_eq!(fresh6().sock().connect(&name6("2001:db8::1", 80)), Ok(Outcome::Kernel));
    assert_eq!(fresh6().sock().bind(&name6("2001:db8::1", 80)), Err(Errno::ADDRNOTAVAIL));
}

#[test]
fn ipv6_only_is_settled_before_there_is_a_name() {
    let only = |fd: &Fd, on: i32| fd.sock().set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on.to_ne_bytes());
    let fd = fresh6();
    assert_eq!(only(&fd, 1), Ok(()));
    let mut value = [0; 4];
    assert_eq!((fd.sock().option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &mut value), value), (Ok(4), 1i32.to_ne_bytes()));
    assert_eq!(fd.sock().bind(&name6("::ffff:0.0.0.0", 0)), Err(Errno::INVAL));
    assert_eq!(fd.sock().connect(&name6("::ffff:10.9.9.9", 80)), Err(Errno::NETUNREACH));
    assert_eq!(only(&fd, 0), Ok(()));
    assert_eq!(fd.sock().bind(&name6("::", 0)), Ok(Outcome::Done));
    assert_eq!(only(&fd, 1), Err(Errno::INVAL));
    assert_eq!(only(&fresh(0), 1), Err(Errno::NOPROTOOPT));
    let set = |name, value: i32| fd.sock().set_option(libc::IPPROTO_IPV6, name, &value.to_ne_bytes());
    assert_eq!(
        (set(libc::IPV6_TCLASS, 0xb9), set(libc::IPV6_TCLASS, 256), set(libc::IPV6_UNICAST_HOPS, 256)),
        (Ok(()), Err(Errno::INVAL), Err(Errno::INVAL))
    );
    assert_eq!((fd.sock().option(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mut value), value), (Ok(4), 0xb8i32.to_ne_bytes()));
    assert_eq!((fd.sock().option(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &mut value), value), (Ok(4), 64i32.to_ne_bytes()));
}

#[test]
fn a_copy_keeps_the_connection_until_the_last_close() {
    let (a, b, _l) = pair();
    let copy = Fd(toe_sockets::close::dup3(a.0, 200, 0).unwrap());
    drop(a);
    assert_eq!(copy.send(b"still", 0), Ok(5));
    assert_eq!(b.recv(5, 0).unwrap(), b"still");
    assert_eq!(b.poll(IN, 20), 0, "no end yet");
    drop(copy);
    assert_eq!(b.recv(5, 0).unwrap(), b"");
}

#[test]
fn what_was_sent_before_close_arrives() {
    let (a, b, _l) = pair();
    a.send(&[9; 1000], 0).unwrap();
    drop(a);
    assert_eq!(b.recv(2000, libc::MSG_WAITALL).unwrap().len(), 1000);
}

#[test]
fn lingering_for_zero_seconds_resets() {
    let (a, b, _l) = pair();
    let mut linger = [0; 8];
    linger[..4].copy_from_slice(&1i32.to_ne_bytes());
    a.sock().set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    drop(a);
    assert_eq!(b.recv(1, 0), Err(Errno::CONNRESET));
    assert_eq!(b.recv(1, 0).unwrap(), b"", "then the end");
    assert_eq!(b.send(b"x", 0), Err(Errno::PIPE));
}

#[test]
fn bytes_left_unread_reset() {
    let (a, b, _l) = pair();
    b.send(b"never read", 0).unwrap();
    assert_eq!(a.poll(IN, LONG), IN);
    drop(a);
    assert_eq!(b.recv(1, 0), Err(Errno::CONNRESET));
}

/// toed, which also sees descriptors go, may be stopped.
#[test]
fn the_card_is_told_of_the_last_close_however_it_comes() {
    let plain = |fd: i32| close::close(fd).unwrap();
    let range = |fd: i32| {
        let number = fd.unsigned_abs();
        let closed = close::close_range(number, number, |_, _| panic!("then the card would not be told"));
        assert_eq!(closed, 0);
    };
    let over = |fd: i32| {
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert_eq!(close::dup3(pipe.as_raw_fd(), fd, 0), Ok(fd));
        close::close(fd).unwrap();
    };
    for end in [&plain as &dyn Fn(i32), &range, &over] {
        let (a, b, _l) = pair();
        let port = port_of(&a.sock().local_name().unwrap());
        let copy = rustix::io::dup(AppFd(a.0)).unwrap().into_raw_fd();
        assert_eq!(close::duplicated(a.0, copy), Ok(copy));
        end(copy);
        assert_eq!((b.poll(IN, 20), world::farewells(port)), (0, vec![]), "there is another");
        end(a.0);
        std::mem::forget(a);
        assert_eq!(b.recv(1, 0).unwrap(), b"");
        // It may have heard of the end before it is told that nobody is there any more.
        let told = (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            !world::farewells(port).is_empty()
        });
        assert!(told, "the card is not told");
        assert_eq!(world::farewells(port), [hc::CLOSE]);
    }
}

// --- epoll

struct Epoll(Fd);

impl Epoll {
    fn new() -> Self {
        let fd = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap().into_raw_fd();
        epoll::created(fd);
        Self(Fd(fd))
    }

    fn ctl(&self, op: i32, fd: &Fd, events: i32) -> Result<(), Errno> {
        epoll::ctl(self.0.0, op, fd.0, events as u32, fd.0 as u64).map(|done| assert!(done.is_some()))
    }

    /// What is ready within `ms`: descriptor and events.
    fn wait(&self, ms: u64) -> Vec<(i32, u32)> {
        let mut out = [libc::epoll_event { events: 0, u64: 0 }; 4];
        let n = epoll::wait(self.0.0, &mut out, Some(Duration::from_millis(ms)), None).unwrap();
        out[..n].iter().map(|e| ({ e.u64 } as i32, { e.events })).collect()
    }
}

const ADD: i32 = libc::EPOLL_CTL_ADD;
const MOD: i32 = libc::EPOLL_CTL_MOD;
const DEL: i32 = libc::EPOLL_CTL_DEL;
/// Long enough for what is coming; only a failing test waits it out.
const LONG: u64 = 10_000;

#[test]
fn level_triggered_reports_as_long_as_there_is_something() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, libc::EPOLLIN).unwrap();
    assert_eq!(ep.wait(0), []);
    a.send(b"xy", 0).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
    b.recv(1, 0).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
    b.recv(1, 0).unwrap();
    assert_eq!(ep.wait(0), []);
}

#[test]
fn edge_triggered_reports_once_per_event() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, libc::EPOLLIN | libc::EPOLLET).unwrap();
    a.send(b"x", 0).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
    assert_eq!(ep.wait(5), []);
    a.send(b"y", 0).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
    // MOD looks again, as on Linux.
    ep.ctl(MOD, &b, libc::EPOLLIN | libc::EPOLLET).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
}

#[test]
fn edge_triggered_room_is_reported_after_it_ran_out() {
    let (a, b, _l) = pair();
    a.sock().set_nonblocking(true).unwrap();
    let ep = Epoll::new();
    ep.ctl(ADD, &a, libc::EPOLLOUT | libc::EPOLLET).unwrap();
    assert_eq!(ep.wait(LONG), [(a.0, 4)]);
    let mut sent = 0;
    while sent < 2 * world::BUFFER as usize {
        match a.send(&[0; 3000], 0) {
            Ok(n) => sent += n,
            // What is freed may be less than a third, and no news.
            Err(_) => assert!(ep.wait(20).len() <= 1),
        }
    }
    while !ep.wait(20).is_empty() {}
    assert_eq!(b.recv(sent, libc::MSG_WAITALL).unwrap().len(), sent);
    assert_eq!(ep.wait(LONG), [(a.0, 4)]);
}

/// POLLWRNORM alone is as good as POLLOUT.
#[test]
fn room_is_news_by_either_name() {
    let (a, b, _l) = pair();
    a.sock().set_nonblocking(true).unwrap();
    let ep = Epoll::new();
    ep.ctl(ADD, &a, libc::EPOLLWRNORM).unwrap();
    let mut sent = 0;
    while sent < 2 * world::BUFFER as usize {
        sent += a.send(&vec![0; 2 * world::BUFFER as usize - sent], 0).unwrap_or_else(|_| {
            thread::sleep(Duration::from_millis(1));
            0
        });
    }
    assert_eq!(ep.wait(20), []);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| a.poll(libc::POLLWRNORM, LONG));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(b.recv(sent, libc::MSG_WAITALL).unwrap().len(), sent);
        assert_eq!(sleeper.join().unwrap(), libc::POLLWRNORM);
    });
    assert_eq!(ep.wait(LONG), [(a.0, libc::EPOLLWRNORM as u32)]);
}

#[test]
fn oneshot_is_silent_until_modified() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, libc::EPOLLIN | libc::EPOLLONESHOT).unwrap();
    a.send(b"x", 0).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
    a.send(b"y", 0).unwrap();
    assert_eq!(ep.wait(5), []);
    ep.ctl(MOD, &b, libc::EPOLLIN | libc::EPOLLONESHOT).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, 1)]);
}

#[test]
fn the_end_is_reported_with_all_its_bits() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, libc::EPOLLIN | libc::EPOLLRDHUP).unwrap();
    drop(a);
    let both = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
    assert_eq!(ep.wait(LONG), [(b.0, both)]);
    b.sock().shutdown(libc::SHUT_WR).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, both | libc::EPOLLHUP as u32)]);
}

/// As with Linux, where nobody has to ask for EPOLLHUP.
#[test]
fn the_end_of_both_directions_is_reported_to_who_asked_for_nothing() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, 0).unwrap();
    b.sock().shutdown(libc::SHUT_WR).unwrap();
    assert_eq!(ep.wait(20), []);
    a.sock().shutdown(libc::SHUT_WR).unwrap();
    assert_eq!(ep.wait(LONG), [(b.0, libc::EPOLLHUP as u32)]);
}

#[test]
fn a_socket_added_while_a_thread_sleeps_wakes_it() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| ep.wait(LONG));
        thread::sleep(Duration::from_millis(20));
        a.send(b"x", 0).unwrap();
        ep.ctl(ADD, &b, libc::EPOLLIN).unwrap();
        assert_eq!(sleeper.join().unwrap(), [(b.0, 1)]);
    });
}

#[test]
fn kernel_descriptors_are_mixed_in() {
    use rustix::event::{EventfdFlags, epoll as kernel, eventfd};
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let number = world::raw(&event);
    let data = kernel::EventData::new_u64(number as u64);
    kernel::add(toe::link::sys::AppFd(ep.0.0), &event, data, kernel::EventFlags::IN).unwrap();
    ep.ctl(ADD, &b, libc::EPOLLIN).unwrap();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| ep.wait(LONG));
        thread::sleep(Duration::from_millis(20));
        rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(sleeper.join().unwrap(), [(number, 1)]);
    });
    a.send(b"x", 0).unwrap();
    assert_eq!(b.poll(IN, LONG), IN);
    // Neither starves the other.
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        seen.extend(ep.wait(LONG).into_iter().map(|(fd, _)| fd));
    }
    assert!(seen.contains(&number) && seen.contains(&b.0), "{seen:?}");
}

#[test]
fn epoll_ctl_refuses_what_linux_refuses() {
    let (_a, b, _l) = pair();
    let ep = Epoll::new();
    assert_eq!(ep.ctl(MOD, &b, 1), Err(Errno::NOENT));
    assert_eq!(ep.ctl(DEL, &b, 1), Err(Errno::NOENT));
    ep.ctl(ADD, &b, 1).unwrap();
    assert_eq!(ep.ctl(ADD, &b, 1), Err(Errno::EXIST));
    assert_eq!(ep.ctl(99, &b, 1), Err(Errno::INVAL));
    ep.ctl(DEL, &b, 1).unwrap();
    assert_eq!(ep.ctl(ADD, &b, libc::EPOLLEXCLUSIVE | libc::EPOLLONESHOT), Err(Errno::INVAL));
}

#[test]
fn a_closed_socket_leaves_its_epoll_instances() {
    let (a, b, _l) = pair();
    let ep = Epoll::new();
    ep.ctl(ADD, &b, libc::EPOLLIN).unwrap();
    a.send(b"x", 0).unwrap();
    assert_eq!(ep.wait(LONG).len(), 1);
    drop(b);
    assert_eq!(ep.wait(5), []);
}

#[test]
fn a_listener_is_ready_while_connections_wait() {
    let (listener, port) = listener();
    let ep = Epoll::new();
    ep.ctl(ADD, &listener, libc::EPOLLIN).unwrap();
    assert_eq!(ep.wait(0), []);
    let client = fresh(0);
    client.sock().connect(&name(world::CARD, port)).unwrap();
    assert_eq!(ep.wait(LONG), [(listener.0, 1)]);
    let (fd, peer) = listener.sock().accept(libc::SOCK_NONBLOCK).unwrap();
    let accepted = Fd(fd);
    assert_eq!(peer, client.sock().local_name().unwrap());
    assert_eq!(accepted.recv(1, 0), Err(Errno::AGAIN));
    assert_eq!(ep.wait(0), []);
}

#[test]
fn shutting_a_listener_down_ends_accept() {
    let (listener, _) = listener();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| listener.sock().accept(0).map(|(fd, _)| Fd(fd).0));
        thread::sleep(Duration::from_millis(20));
        listener.sock().shutdown(libc::SHUT_RDWR).unwrap();
        assert_eq!(sleeper.join().unwrap(), Err(Errno::INVAL));
    });
}

#[test]
fn a_file_is_sent_from_its_place() {
    let (a, b, _l) = pair();
    let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let data: Vec<u8> = (0..60_000u32).map(|i| (i >> 2) as u8).collect();
    rustix::io::pwrite(&file, &data, 0).unwrap();
    let expected = data[100..].to_vec();
    let reader = thread::spawn(move || b.recv(expected.len(), libc::MSG_WAITALL).unwrap() == expected);
    let mut offset = 100;
    assert_eq!(a.sock().sendfile(world::raw(&file), Some(&mut offset), usize::MAX), Ok(data.len() - 100));
    assert_eq!(offset, data.len() as i64);
    assert!(reader.join().unwrap());
    assert_eq!(a.sock().sendfile(a.0, None, 1), Err(Errno::INVAL));
}

/// What waits for more does so for 200 ms, unless it is let go.
#[test]
fn nodelay_lets_go_what_waits_for_more() {
    let (a, b, _l) = pair();
    let at_once = (0..10).filter(|_| {
        assert_eq!(a.send(b"held", libc::MSG_MORE), Ok(4));
        a.sock().set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes()).unwrap();
        let quick = b.poll(IN, 100) == IN;
        assert_eq!(b.recv(4, libc::MSG_WAITALL).unwrap(), b"held");
        quick
    });
    assert!(at_once.count() >= 3, "each time, but for a machine that has other things to do");
}

#[test]
fn options_read_back() {
    let (a, _b, _l) = pair();
    let mut value = [0; 4];
    for (level, option) in [(libc::IPPROTO_TCP, libc::TCP_NODELAY), (libc::SOL_SOCKET, libc::SO_KEEPALIVE)] {
        a.sock().set_option(level, option, &1i32.to_ne_bytes()).unwrap();
        assert_eq!(a.sock().option(level, option, &mut value), Ok(4));
        assert_eq!(i32::from_ne_bytes(value), 1);
    }
    let mut info = [0; 256];
    let n = a.sock().option(libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).unwrap();
    assert!(n >= 104);
    assert_eq!(info[0], 1, "established");
}

/// RFC 9293 MUST-21, MUST-27, MUST-48.
#[test]
fn options_with_a_number_are_checked_as_by_linux() {
    let fd = fresh(0);
    let set = |level, name, value: i32| fd.sock().set_option(level, name, &value.to_ne_bytes());
    let get = |level, name| {
        let mut value = [0; 4];
        fd.sock().option(level, name, &mut value).unwrap();
        i32::from_ne_bytes(value)
    };
    use libc::{IP_TOS, IP_TTL, IPPROTO_IP, IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_LINGER2};
    use libc::{TCP_MAXSEG, TCP_NOTSENT_LOWAT, TCP_QUICKACK, TCP_SYNCNT, TCP_USER_TIMEOUT, TCP_WINDOW_CLAMP};
    for (level, name, first, good, reads, bad) in [
        (IPPROTO_IP, IP_TOS, 0, 0xbb, 0xb8, None),
        (IPPROTO_IP, IP_TTL, 64, 9, 9, Some(256)),
        (IPPROTO_TCP, TCP_MAXSEG, 1448, 1000, 1000, Some(87)),
        (IPPROTO_TCP, TCP_SYNCNT, 6, 3, 3, Some(128)),
        (IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 2, 3, None),
        (IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 9, 9, Some(-1)),
        (IPPROTO_TCP, TCP_KEEPIDLE, 7200, 9, 9, Some(0)),
        (IPPROTO_TCP, TCP_KEEPINTVL, 75, 9, 9, Some(32_768)),
        (IPPROTO_TCP, TCP_KEEPCNT, 9, 1, 1, Some(128)),
        (IPPROTO_TCP, TCP_LINGER2, 60, 1000, 120, None),
        (IPPROTO_TCP, TCP_QUICKACK, 1, 0, 0, None),
        (IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, -1, -1, None),
        (IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 9, 1152, None),
    ] {
        assert_eq!((get(level, name), set(level, name, good), get(level, name)), (first, Ok(()), reads), "{level} {name}");
        if let Some(bad) = bad {
            assert_eq!((set(level, name, bad), get(level, name)), (Err(Errno::INVAL), reads), "{level} {name}");
        }
    }
    assert_eq!((set(IPPROTO_IP, IP_TTL, -1), get(IPPROTO_IP, IP_TTL)), (Ok(()), 64));
    assert_eq!((set(IPPROTO_TCP, TCP_WINDOW_CLAMP, 0), get(IPPROTO_TCP, TCP_WINDOW_CLAMP)), (Ok(()), 0));
    let (a, _b, _l) = pair();
    assert_eq!(a.sock().set_option(IPPROTO_TCP, TCP_WINDOW_CLAMP, &[0; 4]), Err(Errno::INVAL), "only before there is a connection");
}

#[test]
fn congestion_control_reads_as_it_was_set() {
    let (a, _b, _l) = pair();
    let name = |fd: &Fd, room: usize| {
        let mut out = vec![0x55; room];
        let n = fd.sock().option(libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut out).unwrap();
        out[..n].to_vec()
    };
    let set = |name: &[u8]| a.sock().set_option(libc::IPPROTO_TCP, libc::TCP_CONGESTION, name);
    assert_eq!(name(&a, 16), b"cubic\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!((set(b"dctcp"), set(b"bbr"), set(b"")), (Ok(()), Err(Errno::NOENT), Err(Errno::INVAL)));
    assert_eq!((name(&a, 16), name(&a, 3)), (b"dctcp\0\0\0\0\0\0\0\0\0\0\0".to_vec(), b"dct".to_vec()));
}

#[test]
fn a_pacing_rate_reads_as_it_was_set_in_both_widths() {
    let get = |fd: &Fd, room: usize| {
        let mut out = vec![0x55; room];
        let n = fd.sock().option(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &mut out).unwrap();
        out.truncate(n);
        out
    };
    let set = |fd: &Fd, value: &[u8]| fd.sock().set_option(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, value);
    let (listener, port) = listener();
    assert_eq!((get(&listener, 4), get(&listener, 8)), (vec![0xff; 4], vec![0xff; 8]), "unlimited");
    set(&listener, &(1u64 << 33).to_ne_bytes()).unwrap();
    assert_eq!((get(&listener, 4), get(&listener, 8)), (vec![0xff; 4], (1u64 << 33).to_ne_bytes().to_vec()));
    let client = fresh(0);
    set(&client, &125_000u32.to_ne_bytes()).unwrap();
    assert_eq!((get(&client, 7), get(&client, 8)), (125_000u32.to_ne_bytes().to_vec(), 125_000u64.to_ne_bytes().to_vec()));
    assert_eq!(set(&client, &1u32.to_ne_bytes()), Err(Errno::NOPROTOOPT), "a card that cannot");
    assert_eq!(get(&client, 4), 125_000u32.to_ne_bytes(), "as before");
    assert_eq!(client.sock().connect(&name(world::CARD, port)), Ok(Outcome::Done));
    let accepted = Fd(listener.sock().accept(0).unwrap().0);
    assert_eq!(get(&accepted, 8), (1u64 << 33).to_ne_bytes(), "its listener's");
    set(&accepted, &u32::MAX.to_ne_bytes()).unwrap();
    assert_eq!(get(&accepted, 8), [0xff; 8]);
}
