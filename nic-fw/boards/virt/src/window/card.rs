//! What the card says of itself in the window, and what toed asks of it there.
//!
//! ```text
//!   CardEnd::new ──► ready ──► request ──► (image carries it out) ──► answer ──► vector 0 of toed
//! ```

use super::Window;
use core::fmt::{self, Write};
use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::regs::{self, enable};
use toe_abi::window::{BUILD_WORDS, CARD_PAGE_OFF, CardPage, FAILURE_MAX, HOST_PAGE_OFF, HostPage, outcome, stage};

/// Offset of a word of the card's page, of the host's page.
macro_rules! card {
    ($field:ident) => {{ CARD_PAGE_OFF as usize + offset_of!(CardPage, $field) }};
}
macro_rules! host {
    ($field:ident) => {{ HOST_PAGE_OFF as usize + offset_of!(HostPage, $field) }};
}

/// What the registers say about the card; fixed at start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// [`regs::caps`].
    pub caps: u32,
    pub max_flows: u32,
    pub max_contexts: u16,
    pub max_regions: u16,
    pub max_next_hops: u16,
    pub mtu: u16,
    pub mac: [u8; 6],
}

/// What toed asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Reset,
    /// Use the control region at this offset, which lies in the window's memory.
    Attach {
        control: u64,
    },
    Detach,
}

/// A request made no sense; it has been answered, and toed is to be signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// The card's end of the two pages.
#[derive(Debug)]
pub struct CardEnd {
    window: Window,
    /// Number of the last request that was dealt with.
    done: u32,
}

impl CardEnd {
    /// The card has started: whatever its pages said before is void. `instance` is random; `peer`: our number among the peers; `build`:
    /// what its image says it is.
    pub fn new(window: Window, instance: u32, peer: u16, build: &[u32; BUILD_WORDS]) -> Self {
        // See `toe_abi::window`, "Start of a card": the host must not take the old registers for those of the new instance.
        window.word::<{ card!(magic) }>().store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        let last = window.word::<{ card!(instance) }>().load(Ordering::Relaxed);
        let instance = if instance.max(1) == last { last.wrapping_add(1) } else { instance };
        window.word::<{ card!(instance) }>().store(instance.max(1), Ordering::Release);
        window.word::<{ card!(peer) }>().store(peer.into(), Ordering::Relaxed);
        let len = window.len();
        window.word::<{ card!(window_lo) }>().store(len as u32, Ordering::Relaxed);
        window.word::<{ card!(window_hi) }>().store((len >> 32) as u32, Ordering::Relaxed);
        window.word::<{ card!(status) }>().store(regs::status::DETACHED, Ordering::Relaxed);
        window.word::<{ card!(link) }>().store(regs::link::UNKNOWN, Ordering::Relaxed);
        put_build(&window, build);
        window.word::<{ card!(failed_core) }>().store(u32::MAX, Ordering::Relaxed);
        window.word::<{ card!(failure_len) }>().store(0, Ordering::Relaxed);
        window.word::<{ card!(outcome) }>().store(outcome::NONE, Ordering::Relaxed);
        // Acquire: with the release of toed. A request that an earlier card left undone is not carried out by this one.
        let done = window.word::<{ host!(number) }>().load(Ordering::Acquire);
        window.word::<{ card!(done) }>().store(done, Ordering::Release);
        let this = Self { window, done };
        this.at(stage::DEVICES);
        this
    }

    /// How far the card has come, for messages to people.
    pub fn at(&self, stage: u32) {
        self.window.word::<{ card!(stage) }>().store(stage, Ordering::Relaxed);
    }

    /// How the port's link is ([`regs::link`]); toed is to be signalled when that has changed.
    pub fn link(&self, link: u32) {
        self.window.word::<{ card!(link) }>().store(link, Ordering::Relaxed);
    }

    /// The card works: toed may ask.
    pub fn ready(&self, facts: &Facts) {
        let w = &self.window;
        let [a, b, c, d, e, f] = facts.mac;
        w.word::<{ card!(version) }>().store(toe_abi::ABI_VERSION, Ordering::Relaxed);
        w.word::<{ card!(caps) }>().store(facts.caps, Ordering::Relaxed);
        w.word::<{ card!(status) }>().store(regs::status::DETACHED, Ordering::Relaxed);
        w.word::<{ card!(max_flows) }>().store(facts.max_flows, Ordering::Relaxed);
        w.word::<{ card!(max_contexts) }>().store(facts.max_contexts.into(), Ordering::Relaxed);
        w.word::<{ card!(max_regions) }>().store(facts.max_regions.into(), Ordering::Relaxed);
        w.word::<{ card!(max_next_hops) }>().store(facts.max_next_hops.into(), Ordering::Relaxed);
        w.word::<{ card!(mtu) }>().store(facts.mtu.into(), Ordering::Relaxed);
        w.word::<{ card!(mac_lo) }>().store(u32::from_le_bytes([a, b, c, d]), Ordering::Relaxed);
        w.word::<{ card!(mac_hi) }>().store(u32::from_le_bytes([e, f, 0, 0]), Ordering::Relaxed);
        self.at(stage::READY);
        // Release: who sees the magic sees the registers.
        w.word::<{ card!(magic) }>().store(regs::MAGIC_VALUE, Ordering::Release);
    }

    /// Whether there is a request: the second look before sleep.
    pub fn is_asked(&self) -> bool {
        self.window.word::<{ host!(number) }>().load(Ordering::Acquire) != self.done
    }

    /// The next request, to be [`answer`](Self::answer)ed.
    pub fn request(&mut self) -> Result<Option<Request>, Refused> {
        // Acquire: with the release of toed, which has written the arguments before.
        let number = self.window.word::<{ host!(number) }>().load(Ordering::Acquire);
        if number == self.done {
            return Ok(None);
        }
        self.done = number;
        self.read().map(Some).map_err(|outcome| {
            self.answer(outcome, None);
            Refused
        })
    }

    fn read(&self) -> Result<Request, u32> {
        let w = &self.window;
        let wide = |lo: u32, hi: u32| u64::from(hi) << 32 | u64::from(lo);
        let len = wide(w.word::<{ host!(window_lo) }>().load(Ordering::Relaxed), w.word::<{ host!(window_hi) }>().load(Ordering::Relaxed));
        let version = w.word::<{ host!(version) }>().load(Ordering::Relaxed);
        if len != w.len() || version >> 16 != toe_abi::ABI_VERSION >> 16 {
            return Err(outcome::MISMATCH);
        }
        let control =
            wide(w.word::<{ host!(control_lo) }>().load(Ordering::Relaxed), w.word::<{ host!(control_hi) }>().load(Ordering::Relaxed));
        match w.word::<{ host!(request) }>().load(Ordering::Relaxed) {
            enable::RESET => Ok(Request::Reset),
            enable::DETACH => Ok(Request::Detach),
            enable::ATTACH if w.memory(control, CONTROL_REGION_LEN).is_some() => Ok(Request::Attach { control }),
            _ => Err(outcome::INVALID),
        }
    }

    /// What came of the request: [`outcome`]; `status`: the card's from now on, if it has changed. toed is to be signalled.
    pub fn answer(&self, outcome: u32, status: Option<u32>) {
        let w = &self.window;
        w.word::<{ card!(outcome) }>().store(outcome, Ordering::Relaxed);
        status.into_iter().for_each(|status| w.word::<{ card!(status) }>().store(status, Ordering::Relaxed));
        // Release: who sees the number sees outcome and status.
        w.word::<{ card!(done) }>().store(self.done, Ordering::Release);
    }
}

fn put_build(window: &Window, build: &[u32; BUILD_WORDS]) {
    let [a, b, c, d, e] = *build;
    window.word::<{ card!(build) }>().store(a, Ordering::Relaxed);
    window.word::<{ card!(build) + 4 }>().store(b, Ordering::Relaxed);
    window.word::<{ card!(build) + 8 }>().store(c, Ordering::Relaxed);
    window.word::<{ card!(build) + 12 }>().store(d, Ordering::Relaxed);
    window.word::<{ card!(build) + 16 }>().store(e, Ordering::Relaxed);
}

/// toed's number among the peers, if there has been one since the window was made: a claim.
pub fn host_of(window: &Window) -> Option<u16> {
    let version = window.word::<{ host!(version) }>().load(Ordering::Acquire);
    let peer = window.word::<{ host!(peer) }>().load(Ordering::Relaxed);
    u16::try_from(peer).ok().filter(|_| version != 0)
}

/// Writes text into the window, as far as there is room.
struct Text<'a> {
    window: &'a Window,
    len: usize,
    /// Bytes of the word being filled.
    word: [u8; 4],
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == FAILURE_MAX {
                return Err(fmt::Error);
            }
            self.word[self.len % 4] = byte;
            self.len += 1;
            if self.len.is_multiple_of(4) {
                self.put();
            }
        }
        Ok(())
    }
}

impl Text<'_> {
    /// Stores the word in which the last byte lies.
    fn put(&mut self) {
        let at = CARD_PAGE_OFF as usize + offset_of!(CardPage, failure) + (self.len - 1) / 4 * 4;
        // SAFETY: inside the page's text, aligned; others use it as an atomic or not at all.
        let word = unsafe { core::sync::atomic::AtomicU32::from_ptr(self.window.base.as_ptr().add(at).cast()) };
        word.store(u32::from_le_bytes(core::mem::take(&mut self.word)), Ordering::Relaxed);
    }
}

/// The card has failed, and why: what is said of `core` (all ones: none). Gives the peer to be signalled. For whoever panics: takes no lock,
/// allocates nothing.
pub fn fail(window: &Window, core: u32, why: fmt::Arguments<'_>) -> Option<u16> {
    let mut text = Text { window, len: 0, word: [0; 4] };
    // An error: cut off.
    let _ = text.write_fmt(why);
    if !text.len.is_multiple_of(4) {
        text.put();
    }
    window.word::<{ card!(failed_core) }>().store(core, Ordering::Relaxed);
    // Release: who sees the length sees the text; who sees the status sees both.
    window.word::<{ card!(failure_len) }>().store(text.len as u32, Ordering::Release);
    window.word::<{ card!(status) }>().store(regs::status::FAILED, Ordering::Release);
    host_of(window)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestWindow;
    use super::*;
    use toe_abi::window::MEMORY_OFF;

    fn word(w: &TestWindow, at: usize) -> u32 {
        w.word(at as u64).load(Ordering::Relaxed)
    }

    /// toed asks.
    fn ask(w: &TestWindow, number: u32, request: u32, control: u64) {
        let put = |at: usize, value: u32| w.word(at as u64).store(value, Ordering::Relaxed);
        put(host!(request), request);
        put(host!(control_lo), control as u32);
        put(host!(control_hi), (control >> 32) as u32);
        put(host!(peer), 5);
        put(host!(window_lo), w.0.len() as u32);
        put(host!(version), toe_abi::ABI_VERSION);
        put(host!(number), number);
    }

    #[test]
    fn a_card_is_there_when_all_it_says_is() {
        let w = TestWindow::new();
        ask(&w, 9, enable::RESET, 0);
        let mut card = CardEnd::new(w.0, 0, 3, &[1, 2, 3, 4, 5]);
        assert_eq!((word(&w, card!(magic)), word(&w, card!(instance)), word(&w, card!(done))), (0, 1, 9));
        assert_eq!(card.request(), Ok(None), "what an earlier card was asked");
        assert_eq!([0, 16].map(|at| word(&w, card!(build) + at)), [1, 5]);
        card.ready(&Facts { mac: [1, 2, 3, 4, 5, 6], mtu: 1500, ..Facts::default() });
        assert_eq!(word(&w, card!(magic)), regs::MAGIC_VALUE);
        assert_eq!(
            [word(&w, card!(mac_lo)), word(&w, card!(mac_hi)), word(&w, card!(mtu)), word(&w, card!(peer))],
            [0x0403_0201, 0x0605, 1500, 3]
        );
        assert_eq!(host_of(&w.0), Some(5));
        card.link(regs::link::DOWN);
        assert_eq!(word(&w, card!(link)), regs::link::DOWN);
        CardEnd::new(w.0, 0, 3, &[0; BUILD_WORDS]);
        assert_eq!(word(&w, card!(link)), regs::link::UNKNOWN, "the next card has not said yet");
        CardEnd::new(w.0, 7, 3, &[0; BUILD_WORDS]);
        CardEnd::new(w.0, 7, 3, &[0; BUILD_WORDS]);
        assert_eq!(word(&w, card!(instance)), 8, "another than the last one");
    }

    #[test]
    fn requests_come_once_and_are_answered() {
        let w = TestWindow::new();
        let mut card = CardEnd::new(w.0, 7, 3, &[0; BUILD_WORDS]);
        assert_eq!(host_of(&w.0), None);
        ask(&w, 1, enable::ATTACH, MEMORY_OFF);
        assert!(card.is_asked());
        assert_eq!(card.request(), Ok(Some(Request::Attach { control: MEMORY_OFF })));
        assert_eq!((word(&w, card!(done)), card.is_asked()), (0, false), "not answered yet");
        card.answer(outcome::OK, Some(regs::status::ATTACHED));
        assert_eq!([word(&w, card!(done)), word(&w, card!(outcome)), word(&w, card!(status))], [1, outcome::OK, regs::status::ATTACHED]);
        assert_eq!(card.request(), Ok(None));
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let w = TestWindow::new();
        let mut card = CardEnd::new(w.0, 7, 3, &[0; BUILD_WORDS]);
        let cases =
            [(enable::ATTACH, 0), (enable::ATTACH, MEMORY_OFF + 4), (enable::ATTACH, w.0.len()), (enable::ATTACH, u64::MAX), (77, 0)];
        for (number, (request, control)) in (1..).zip(cases) {
            ask(&w, number, request, control);
            assert_eq!(card.request(), Err(Refused));
            assert_eq!((word(&w, card!(done)), word(&w, card!(outcome))), (number, outcome::INVALID));
        }
        ask(&w, 50, enable::RESET, 0);
        w.word(host!(window_lo) as u64).store(4096, Ordering::Relaxed);
        assert_eq!((card.request(), word(&w, card!(outcome))), (Err(Refused), outcome::MISMATCH));
        ask(&w, 51, enable::RESET, 0);
        w.word(host!(version) as u64).store(toe_abi::ABI_VERSION + (1 << 16), Ordering::Relaxed);
        assert_eq!((card.request(), word(&w, card!(outcome))), (Err(Refused), outcome::MISMATCH));
    }

    #[test]
    fn a_failure_leaves_its_text() {
        let w = TestWindow::new();
        let text = |w: &TestWindow| {
            let len = word(w, card!(failure_len)) as usize;
            let bytes: Vec<u8> = (0..len.div_ceil(4)).flat_map(|i| word(w, card!(failure) + 4 * i).to_le_bytes()).collect();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        };
        assert_eq!(fail(&w.0, 2, format_args!("out of {}", "luck")), None);
        assert_eq!((text(&w).as_str(), word(&w, card!(failed_core)), word(&w, card!(status))), ("out of luck", 2, regs::status::FAILED));
        CardEnd::new(w.0, 8, 3, &[0; BUILD_WORDS]);
        assert_eq!((word(&w, card!(failure_len)), word(&w, card!(status))), (0, regs::status::DETACHED), "the next card is well");
        let long = "x".repeat(2 * FAILURE_MAX);
        fail(&w.0, 0, format_args!("{long}"));
        assert_eq!(text(&w), long[..FAILURE_MAX]);
    }
}
