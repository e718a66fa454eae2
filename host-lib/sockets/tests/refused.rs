//! A child that toed has no place for. Alone in its process, which is that child in the end.

mod world;

use std::time::Duration;
use toe_sockets::{Errno, IoSpan, Sock, close, epoll, poll};

/// Its calls fail at once, and nobody else's do: what its parent holds is as good as ever.
#[test]
fn a_child_that_is_refused_leaves_its_parents_sockets_alone() {
    let (client, server) = world::pair();
    let number = |sock| (0..64).find(|&fd| Sock::find(fd) == Some(sock)).unwrap();
    let set = std::os::fd::IntoRawFd::into_raw_fd(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap());
    epoll::created(set);
    epoll::ctl(set, libc::EPOLL_CTL_ADD, number(client), 0, 7).unwrap();
    // From here on as in a child. The world takes nobody else.
    close::fork_prepare();
    close::fork_child();
    let mut byte = [0];
    // SAFETY: the buffer outlives the call.
    let span = unsafe { IoSpan::new(byte.as_mut_ptr(), 1) };
    assert_eq!(client.recv(&[span], 0), Err(Errno::NETDOWN));
    let mut fds = [libc::pollfd { fd: number(server), events: libc::POLLIN, revents: 0 }];
    assert_eq!(poll::poll(&mut fds, Some(Duration::from_secs(5)), None), Ok(1));
    assert_eq!(fds[0].revents, libc::POLLIN | libc::POLLERR | libc::POLLHUP);
    let mut events = [libc::epoll_event { events: 0, u64: 0 }];
    assert_eq!(epoll::wait(set, &mut events, Some(Duration::from_secs(5)), None), Ok(1));
    assert_eq!({ events[0].events }, (libc::EPOLLERR | libc::EPOLLHUP) as u32);
    // What everybody sees of the sockets.
    assert_eq!((client.peer_name().is_ok(), server.peer_name().is_ok()), (true, true));
}
