//! The card's log: whole frames of a logger, kept until the window is there, then written to the window's ring.
//!
//! ```text
//!   logger ─put─► frame ─end─► Early ──attach──► Ring ─► window            a core that has no Turn says nothing
//! ```
//!
//! Nothing waits for a reader. A frame reaches the ring as a whole or not at all; how many did not, the ring's header says.

mod early;
mod frame;
mod ring;
mod turn;

pub use frame::FRAME_MAX;
pub use ring::Ring;
pub use turn::Turn;

use crate::window::Window;
use early::Early;
use frame::Frame;

/// The log of a card; whoever writes to it has the turn.
#[derive(Debug)]
pub struct Log {
    frame: Frame,
    early: Early,
    ring: Option<Ring>,
    /// Frames that did not get through.
    dropped: u32,
}

impl Log {
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { frame: Frame::new(), early: Early::new(), ring: None, dropped: 0 }
    }

    /// Begins a frame. One that was begun before and not ended is void: who wrote it has died on the way.
    pub fn begin(&mut self) {
        self.frame.clear();
    }

    /// Adds to the frame.
    pub fn put(&mut self, bytes: &[u8]) {
        self.frame.put(bytes);
    }

    /// The frame is complete.
    pub fn end(&mut self) {
        let written = match (self.frame.get(), &mut self.ring) {
            (None, _) => false,
            (Some(frame), None) => self.early.keep(frame),
            (Some(frame), Some(ring)) => {
                ring.write(frame);
                true
            }
        };
        self.frame.clear();
        self.drop_frames(u32::from(!written));
    }

    /// Frames that somebody could not even begin.
    pub fn drop_frames(&mut self, n: u32) {
        self.dropped = self.dropped.wrapping_add(n);
        if n > 0 {
            self.tell_dropped();
        }
    }

    fn tell_dropped(&self) {
        self.ring.iter().for_each(|ring| ring.tell_dropped(self.dropped));
    }

    /// The window is there: what was kept goes into its ring first. Before the card says that it is there.
    pub fn attach(&mut self, window: Window) {
        let mut ring = Ring::new(window);
        ring.write(self.early.get());
        self.ring = Some(ring);
        self.tell_dropped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::testing::TestWindow;
    use core::sync::atomic::Ordering;
    use toe_abi::window::{LOG_HEADER_OFF, LOG_OFF};

    fn say(log: &mut Log, parts: &[&[u8]]) {
        log.begin();
        parts.iter().for_each(|part| log.put(part));
        log.end();
    }

    /// What is in the ring, and how many frames were dropped.
    fn read(w: &TestWindow) -> (Vec<u8>, u32) {
        let header = |at: u64| w.word(LOG_HEADER_OFF + at).load(Ordering::Relaxed);
        assert_eq!(header(0), header(4));
        let bytes = (0..u64::from(header(4).div_ceil(4))).flat_map(|i| w.word(LOG_OFF + 4 * i).load(Ordering::Relaxed).to_ne_bytes());
        (bytes.take(header(4) as usize).collect(), header(8))
    }

    #[test]
    fn what_was_said_before_the_window_was_there_comes_first() {
        let (w, mut log) = (TestWindow::new(), Log::new());
        say(&mut log, &[b"one", b"\0"]);
        say(&mut log, &[b"two\0"]);
        log.attach(w.0);
        assert_eq!(read(&w), (b"one\0two\0".to_vec(), 0));
        say(&mut log, &[b"th", b"ree\0"]);
        assert_eq!(read(&w), (b"one\0two\0three\0".to_vec(), 0));
    }

    #[test]
    fn frames_get_through_whole_or_are_counted() {
        let (w, mut log) = (TestWindow::new(), Log::new());
        log.attach(w.0);
        say(&mut log, &[&[1; FRAME_MAX], b"\0"]);
        say(&mut log, &[b"short\0"]);
        log.begin();
        log.put(b"its writer died");
        say(&mut log, &[&[2; FRAME_MAX]]);
        let wanted: Vec<u8> = b"short\0".iter().copied().chain([2; FRAME_MAX]).collect();
        assert_eq!(read(&w), (wanted, 1));
        log.drop_frames(3);
        assert_eq!(read(&w).1, 4);
    }

    #[test]
    fn too_much_before_the_window_is_counted_too() {
        let (w, mut log) = (TestWindow::new(), Log::new());
        let frames = 100;
        (0..frames).for_each(|i| say(&mut log, &[&[i as u8; FRAME_MAX]]));
        log.attach(w.0);
        let (bytes, dropped) = read(&w);
        assert!(dropped > 0 && bytes.len() == (frames - dropped) as usize * FRAME_MAX);
        assert_eq!(bytes.first(), Some(&0), "the first ones are kept: they say what was found");
    }
}
