//! Sockets that another process of the family uses as well. Alone in its process, which knows that from then on.

mod world;

use rustix::event::epoll::{CreateFlags, create};
use rustix::fd::IntoRawFd;
use std::sync::Once;
use std::thread;
use std::time::Duration;
use toe_sockets::{IoSpan, Sock, close, epoll, poll};

fn send(sock: Sock, bytes: &[u8]) {
    // SAFETY: the slice outlives the call and is only read.
    let span = unsafe { IoSpan::new(bytes.as_ptr().cast_mut(), bytes.len()) };
    assert_eq!(sock.send(&[span], 0), Ok(bytes.len()));
}

fn recv(sock: Sock) -> u8 {
    let mut byte = 0;
    // SAFETY: the byte outlives the call.
    let span = unsafe { IoSpan::new(&raw mut byte, 1) };
    assert_eq!(sock.recv(&[span], 0), Ok(1));
    byte
}

fn recv_polled(sock: Sock, fd: i32) -> u8 {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    assert_eq!(poll::poll(&mut fds, Some(Duration::from_secs(10)), None), Ok(1));
    recv(sock)
}

fn recv_by_epoll(sock: Sock, fd: i32) -> u8 {
    let instance = create(CreateFlags::CLOEXEC).unwrap().into_raw_fd();
    epoll::created(instance);
    assert_eq!(epoll::ctl(instance, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, 7), Ok(Some(())));
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
    assert_eq!(epoll::wait(instance, &mut events, Some(Duration::from_secs(10)), None), Ok(1));
    close::close(instance).unwrap();
    recv(sock)
}

fn number_of(sock: Sock) -> i32 {
    (0..64).find(|&fd| Sock::find(fd) == Some(sock)).unwrap()
}

/// Both ends of a connection, as after exec: whoever has started this program may use its sockets, too.
fn shared_pair() -> (Sock, Sock) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        world::pair();
        // Tokens are known by who made them.
        std::fs::write("/proc/self/comm", "toed").unwrap();
        close::start();
    });
    world::pair()
}

/// A call that sleeps has its events back before long.
#[test]
fn a_call_that_sleeps_takes_its_connection_back() {
    let (client, server) = shared_pair();
    let port = world::port_of(client);
    let taken_while = |sleep: fn(Sock, i32) -> u8, fd| {
        thread::scope(|scope| {
            let sleeper = scope.spawn(move || sleep(client, fd));
            thread::sleep(Duration::from_millis(20));
            world::take_away(port);
            send(server, b"x");
            assert_eq!(sleeper.join().unwrap(), b'x');
        });
    };
    taken_while(|client, _| recv(client), number_of(client));
    taken_while(recv_polled, number_of(client));
}

/// The card reads queues by turns: it may have bound the connection to this process first, and then to the other that wanted it before, and is no more.
/// The slot says that events come here, and none does.
#[test]
fn a_connection_whose_events_come_nowhere_is_bound_again() {
    let (client, server) = shared_pair();
    let ten_seconds = [10u64.to_ne_bytes(), [0; 8]].concat();
    client.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &ten_seconds).unwrap();
    let port = world::port_of(client);
    world::take_away(port);
    send(server, b"x");
    assert_eq!(recv(client), b'x');
    for receive in [|client, _| recv(client), recv_polled, recv_by_epoll] {
        world::lose_binding(port);
        send(server, b"y");
        assert_eq!(receive(client, number_of(client)), b'y');
    }
}

/// Asking anew is no news.
#[test]
fn an_edge_is_not_told_again_because_another_process_had_the_events() {
    let (client, server) = shared_pair();
    world::take_away(world::port_of(client));
    send(server, b"x");
    assert_eq!(recv(client), b'x');
    let instance = create(CreateFlags::CLOEXEC).unwrap().into_raw_fd();
    epoll::created(instance);
    let asked = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;
    assert_eq!(epoll::ctl(instance, libc::EPOLL_CTL_ADD, number_of(client), asked, 7), Ok(Some(())));
    let wait = |ms| epoll::wait(instance, &mut [libc::epoll_event { events: 0, u64: 0 }; 4], Some(Duration::from_millis(ms)), None);
    assert_eq!(wait(10_000), Ok(1), "there is room to send");
    assert_eq!(wait(1200), Ok(0));
    close::close(instance).unwrap();
}
