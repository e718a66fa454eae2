//! A socket that was passed to another process. Alone in its process, which knows that from then on.

mod world;

use toe_sockets::{Sock, close};

/// What the other process has used is the sender's again once it is needed there.
#[test]
fn the_sender_has_its_connection_back() {
    let (client, server) = world::pair();
    let number = (0..64).find(|&fd| Sock::find(fd) == Some(client)).unwrap();
    close::sent(number);
    world::assert_has_it_back(client, server);
}
