//! The library's own descriptors are protected. Alone in its process, as every thread of a test has some of its own.

mod world;

use toe_sockets::open::{Outcome, socket};
use toe_sockets::{Errno, Kind, Sock, close, kind};

#[test]
fn the_librarys_own_descriptors_are_out_of_reach() {
    world::start();
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap().unwrap();
    let listener = Sock::find(fd).unwrap();
    assert_eq!(listener.listen(1), Ok(Outcome::Done));
    let own: Vec<i32> = (0..5000).filter(|&fd| kind(fd) == Kind::Internal).collect();
    assert!(own.len() >= 4, "{own:?}");
    for fd in &own {
        assert_eq!(close::close(*fd), Err(Errno::BADF));
        assert_eq!(close::dup3(0, *fd, 0), Err(Errno::BUSY));
    }
    let (first, last) = (own[0].unsigned_abs(), own[own.len() - 1].unsigned_abs());
    let mut gaps = Vec::new();
    // Nothing is closed here: the world's descriptors are in this process. The stretches must leave ours out.
    close::close_range(first, last, |from, to| {
        gaps.push(from..=to);
        0
    });
    assert!(own.iter().all(|fd| gaps.iter().all(|gap| !gap.contains(&fd.unsigned_abs()))), "{gaps:?}");
    assert!(own.iter().all(|fd| kind(*fd) == Kind::Internal));
}
