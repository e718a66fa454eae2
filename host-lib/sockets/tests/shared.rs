//! Sockets that another process of the family uses as well. Alone in its process, which knows that from then on.

mod world;

use std::thread;
use std::time::Duration;
use toe_sockets::{IoSpan, Sock, close, poll};

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

/// As after exec: whoever has started this program may use its sockets, too. A call that sleeps has its events back before long.
#[test]
fn a_call_that_sleeps_takes_its_connection_back() {
    let (client, server) = world::pair();
    // Tokens are known by who made them.
    std::fs::write("/proc/self/comm", "toed").unwrap();
    close::start();
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
    let number = (0..64).find(|&fd| Sock::find(fd) == Some(client)).unwrap();
    taken_while(|client, _| recv(client), number);
    taken_while(
        |client, fd| {
            let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            assert_eq!(poll::poll(&mut fds, Some(Duration::from_secs(10)), None), Ok(1));
            recv(client)
        },
        number,
    );
}
