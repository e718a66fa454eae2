//! The fixed pages of a window, as toed reads and writes them. What the card has written is a claim.

use super::super::{CardError, CardInfo, LogPart, PortLink, SharedMemory, read_info};
use super::log::{Log, Missed};
use core::mem::offset_of;
use toe_abi::{
    regs,
    window::{CARD_PAGE_OFF, CardPage, FAILURE_MAX, HOST_PAGE_OFF, HostPage, stage},
};

/// Offset of a field of the card's page.
macro_rules! card {
    ($field:ident) => {
        CARD_PAGE_OFF + offset_of!(CardPage, $field) as u64
    };
}
/// Offset of a field of the host's page.
macro_rules! host {
    ($field:ident) => {
        HOST_PAGE_OFF + offset_of!(HostPage, $field) as u64
    };
}

/// What a card that is ready says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ready {
    pub instance: u32,
    pub peer: u32,
    /// Bytes of the window as the card found them.
    pub window: u64,
    pub info: CardInfo,
}

/// What toed asks for.
pub(super) struct Request {
    /// [`regs::enable`].
    pub what: u32,
    pub control: u64,
}

/// The pages at the front of a window.
pub(super) struct Pages(SharedMemory);

impl Pages {
    pub fn new(memory: SharedMemory) -> Self {
        Self(memory)
    }

    fn load_u64(&self, at: u64) -> u64 {
        u64::from(self.0.load(at)) | u64::from(self.0.load(at + 4)) << 32
    }

    fn store_u64(&self, at: u64, value: u64) {
        self.0.store(at, value as u32);
        self.0.store(at + 4, (value >> 32) as u32);
    }

    /// The card's peer id, if a card is ready, or was before it went away.
    pub fn peer(&self) -> Option<u32> {
        (self.0.load(card!(magic)) != 0).then(|| self.0.load(card!(peer)))
    }

    /// What the card says, read as a whole. `None`: it is not ready, or was started anew just now.
    pub fn ready(&self, name: &str) -> Result<Option<Ready>, CardError> {
        let instance = self.instance();
        if self.0.load(card!(magic)) == 0 {
            return Ok(None);
        }
        let info = read_info(name, |at| Ok(self.0.load(CARD_PAGE_OFF + at)))?;
        let ready = Ready { instance, peer: self.0.load(card!(peer)), window: self.load_u64(card!(window_lo)), info };
        self.0.fence();
        Ok((self.0.load(card!(magic)) != 0 && self.instance() == instance).then_some(ready))
    }

    pub fn instance(&self) -> u32 {
        self.0.load(card!(instance))
    }

    pub fn status(&self) -> u32 {
        self.0.load(card!(status))
    }

    pub fn port_link(&self) -> PortLink {
        PortLink::of(self.0.load(card!(link)))
    }

    /// Number and outcome of the last request that the card has carried out.
    pub fn done(&self) -> (u32, u32) {
        // In this order: `done` is written after the outcome.
        let done = self.0.load(card!(done));
        (done, self.0.load(card!(outcome)))
    }

    /// Says who toed is: whom a card that starts from now on signals.
    pub fn introduce(&self, peer: u16, window: u64) {
        self.0.store(host!(version), toe_abi::ABI_VERSION);
        self.0.store(host!(peer), peer.into());
        self.store_u64(host!(window_lo), window);
    }

    /// Where an earlier toed has handed out memory last. A claim.
    pub fn last_memory(&self) -> u64 {
        self.load_u64(host!(memory_lo))
    }

    /// Notes it for the next one.
    pub fn note_memory(&self, end: u64) {
        self.store_u64(host!(memory_lo), end);
    }

    /// Asks for something; the card's vector 0 is to be signalled. Returns the request's number.
    pub fn ask(&self, request: &Request) -> u32 {
        let number = self.0.load(host!(number)).wrapping_add(1);
        self.0.store(host!(request), request.what);
        self.store_u64(host!(control_lo), request.control);
        self.0.store(host!(number), number);
        self.0.fence();
        number
    }

    /// The card's log from byte `from` on, if `instance` is still the card that there is; else from its beginning.
    pub fn log(&self, instance: u32, from: u32) -> LogPart {
        let mut part = LogPart { instance: self.instance(), ..LogPart::default() };
        let mut log = Log::new(&self.0, if part.instance == instance { from } else { 0 });
        Missed(part.missed) = log.read(&mut part.bytes);
        part.next = log.tail();
        part.dropped = log.dropped();
        part.build = std::array::from_fn(|i| self.0.load(card!(build) + 4 * i as u64));
        part
    }

    /// Why the card failed, if it has.
    pub fn failure(&self) -> Option<String> {
        if self.status() != regs::status::FAILED {
            return None;
        }
        let mut text = [0; FAILURE_MAX];
        let len = (self.0.load(card!(failure_len)) as usize).min(FAILURE_MAX);
        self.0.read(card!(failure), &mut text);
        let text = String::from_utf8_lossy(&text[..len]);
        // It ends up on terminals: nothing in it may steer them.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let core = match self.0.load(card!(failed_core)) {
            u32::MAX => String::new(),
            core => format!(" (core {core})"),
        };
        Some(if text.trim().is_empty() { format!("it does not say why{core}") } else { format!("{}{core}", text.trim()) })
    }

    /// How far the card has come, in words.
    pub fn stage(&self) -> &'static str {
        match self.0.load(card!(stage)) {
            stage::NONE => "nothing",
            stage::BOOT => "it boots",
            stage::DEVICES => "it starts its devices",
            stage::READY => "it is ready",
            stage::REQUEST => "it carries out a request",
            stage::RUNNING => "it is attached",
            _ => "something that makes no sense",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::MemoryOptions;
    use super::super::log::{BEGUN, WRITTEN};
    use super::*;
    use toe_abi::window::{LOG_OFF, MEMORY_OFF};

    fn pages() -> (Pages, SharedMemory) {
        let memory = SharedMemory::create("test", MEMORY_OFF, MemoryOptions::default()).expect("memfd");
        let card =
            SharedMemory::map(memory.memfd().expect("a memfd").try_clone_to_owned().expect("a copy"), 0, MEMORY_OFF).expect("inside");
        (Pages::new(memory), card)
    }

    fn be_ready(card: &SharedMemory, instance: u32) {
        card.store(card!(instance), instance);
        card.store(card!(version), toe_abi::ABI_VERSION);
        card.store(card!(peer), 3);
        card.store(card!(window_hi), 1);
        card.store(card!(magic), regs::MAGIC_VALUE);
    }

    #[test]
    fn a_card_is_ready_when_its_magic_is_there() {
        let (pages, card) = pages();
        assert_eq!((pages.ready("x").unwrap(), pages.peer()), (None, None));
        be_ready(&card, 77);
        let ready = pages.ready("x").unwrap().expect("ready");
        assert_eq!((ready.instance, ready.peer, ready.window), (77, 3, 1 << 32));
        assert_eq!(pages.port_link(), PortLink::Unknown, "a card that says nothing of it");
        card.store(card!(link), regs::link::DOWN);
        assert_eq!(pages.port_link(), PortLink::Down);
        card.store(card!(magic), 1);
        assert!(matches!(pages.ready("x"), Err(CardError::NotACard { magic: 1, .. })));
        card.store(card!(magic), regs::MAGIC_VALUE);
        card.store(card!(version), 9 << 16);
        assert!(matches!(pages.ready("x"), Err(CardError::Version { major: 9, .. })));
    }

    #[test]
    fn requests_are_numbered_on_from_what_an_earlier_toed_left() {
        let (pages, card) = pages();
        card.store(host!(number), u32::MAX);
        assert_eq!(pages.ask(&Request { what: regs::enable::ATTACH, control: 0x1_0002_0000 }), 0);
        assert_eq!((card.load(host!(request)), card.load(host!(control_lo)), card.load(host!(control_hi))), (1, 0x20000, 1));
        assert_eq!(pages.ask(&Request { what: regs::enable::RESET, control: 0 }), 1);
        assert_eq!(card.load(host!(number)), 1);
    }

    #[test]
    fn the_log_goes_on_where_it_was_read_or_begins_with_another_card() {
        let (pages, card) = pages();
        let say = |at: u32, text: &[u8]| {
            card.write(LOG_OFF + u64::from(at), text);
            let end = at + text.len() as u32;
            [BEGUN, WRITTEN].into_iter().for_each(|word| card.store(word, end));
        };
        be_ready(&card, 77);
        card.store(card!(build) + 16, 5);
        say(0, b"one.");
        let part = pages.log(0, 999);
        assert_eq!((part.instance, part.bytes.as_slice(), part.next, part.missed), (77, &b"one."[..], 4, 0));
        assert_eq!(part.build, [0, 0, 0, 0, 5]);
        say(4, b"two.");
        assert_eq!(pages.log(77, 4).bytes, b"two.");
        card.store(card!(instance), 78);
        say(0, b"new.");
        let part = pages.log(77, 8);
        assert_eq!((part.instance, part.bytes.as_slice(), part.next), (78, &b"new."[..], 4));
    }

    #[test]
    fn a_failure_is_told_whatever_is_in_its_text() {
        let (pages, card) = pages();
        assert_eq!(pages.failure(), None);
        card.store(card!(status), regs::status::FAILED);
        card.store(card!(failed_core), u32::MAX);
        assert_eq!(pages.failure().as_deref(), Some("it does not say why"));
        card.write(card!(failure), b"panic:\x1b[31m no\xff room\n\0\0\0");
        card.store(card!(failure_len), 21);
        card.store(card!(failed_core), 2);
        assert_eq!(pages.failure().as_deref(), Some("panic: [31m no\u{fffd} room (core 2)"));
        card.write(card!(failure), &[0xff; FAILURE_MAX]);
        card.store(card!(failure_len), u32::MAX);
        assert!(pages.failure().is_some_and(|text| text.chars().filter(|&c| c == '\u{fffd}').count() == FAILURE_MAX));
    }
}
