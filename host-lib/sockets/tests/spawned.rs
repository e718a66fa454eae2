//! A program that was started by vfork() and exec(), with a socket of ours. Alone in its process, which knows that from then on.

mod world;

use toe::link::slot::Addr;
use toe_sockets::names::{Family, SockName, encode};
use toe_sockets::open::{Outcome, socket};
use toe_sockets::{IoSpan, Sock, close};

fn fresh() -> Sock {
    Sock::find(socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap().unwrap()).unwrap()
}

fn port_of(name: &SockName) -> u16 {
    u16::from_be_bytes([name[2], name[3]])
}

fn span(bytes: &mut [u8]) -> [IoSpan; 1] {
    // SAFETY: used up before the bytes go.
    [unsafe { IoSpan::new(bytes.as_mut_ptr(), bytes.len()) }]
}

/// The child of a vfork(): it has its parent's memory, and a stack of its own.
extern "C" fn child(_: *mut libc::c_void) -> libc::c_int {
    close::exec();
    0
}

/// What the other program has used is its parent's again once it is needed there.
#[test]
fn the_parent_has_its_connection_back() {
    world::start();
    let (listener, client) = (fresh(), fresh());
    assert_eq!(listener.listen(8), Ok(Outcome::Done));
    let to = encode(Addr::v4(world::CARD, port_of(&listener.local_name().unwrap())), Family::Inet);
    assert_eq!(client.connect(&to), Ok(Outcome::Done));
    let server = Sock::find(listener.accept(0).unwrap().0).unwrap();
    let mut stack = vec![0u8; 1 << 20];
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: this thread waits while the child runs on a stack of its own, and the child does nothing that lasts.
    let pid = unsafe { libc::clone(child, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, std::ptr::null_mut()) };
    assert!(pid > 0);
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    world::take_away(port_of(&client.local_name().unwrap()));
    let (mut sent, mut got) = (*b"x", [0]);
    assert_eq!(server.send(&span(&mut sent), 0), Ok(1));
    assert_eq!((client.recv(&span(&mut got), 0), got), (Ok(1), sent));
}
