//! Nobody sees the end of a stream before its last bytes.

use super::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use toe_sync::ending::{look, mark};

const FIN: u32 = 1;
const OTHER: u32 = 2;

struct Side {
    flags: AtomicU32,
    head: AtomicU32,
}

#[test]
fn who_sees_the_end_sees_all_before_it() {
    model(|| {
        let side = Arc::new(Side { flags: AtomicU32::new(0), head: AtomicU32::new(0) });
        let sender = thread::spawn({
            let side = side.clone();
            move || {
                side.head.store(100, Ordering::Release);
                mark(&side.flags, FIN, true);
            }
        });
        // Somebody else's option: it must not come between the two that belong together.
        let other = thread::spawn({
            let side = side.clone();
            move || _ = mark(&side.flags, OTHER, true)
        });
        let (flags, head) = look(&side.flags, &side.head);
        assert!(flags & FIN == 0 || head == 100, "flags {flags}, head {head}");
        sender.join().unwrap();
        other.join().unwrap();
        assert_eq!(look(&side.flags, &side.head), (FIN | OTHER, 100));
    });
}
