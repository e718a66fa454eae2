//! Bytes of the card's log to lines.
//!
//! ```text
//!   ...|frame 0|frame 0|fra     parts end anywhere; after a gap, all up to the next 0 is void
//! ```
//!
//! What the card writes may be anything: a frame that makes no sense is said to be so, whatever the decoder makes of it.

use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};

use defmt_decoder::Table;
use toed::admin::Logs;

use super::image::Image;

/// A frame of the card has 512 bytes at most; the log itself 64 KiB.
const FRAME_MAX: usize = 4096;

pub struct Decoder<'a> {
    table: &'a Table,
    /// The beginning of a frame whose end has not come.
    rest: Vec<u8>,
    /// The frame that comes began in bytes that are lost.
    torn: bool,
    dropped: u32,
}

impl<'a> Decoder<'a> {
    pub fn new(image: &'a Image) -> Self {
        Self { table: &image.table, rest: Vec::new(), torn: false, dropped: 0 }
    }

    /// The lines of the next part.
    pub fn feed(&mut self, part: &Logs) -> String {
        let mut text = String::new();
        let mut lost = part.missed as usize;
        if lost > 0 {
            lost += self.rest.len();
            self.rest.clear();
            self.torn = true;
        }
        let Some(bytes) = bytes(&part.bytes) else { return "... toed's answer makes no sense\n".into() };
        let mut bytes = bytes.as_slice();
        if self.torn {
            let end = bytes.iter().position(|&byte| byte == 0).map_or(bytes.len(), |zero| zero + 1);
            self.torn = !bytes[..end].ends_with(&[0]);
            lost += end;
            bytes = &bytes[end..];
        }
        // Writing to a String does not fail.
        if lost > 0 {
            let _ = writeln!(text, "... {lost} bytes lost");
        }
        for piece in bytes.split_inclusive(|&byte| byte == 0) {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(&[0]) {
                self.line(&mut text);
                self.rest.clear();
            } else if self.rest.len() > FRAME_MAX {
                let _ = writeln!(text, "... {} bytes that are no message", self.rest.len());
                self.rest.clear();
                self.torn = true;
            }
        }
        if part.dropped != self.dropped {
            let _ = writeln!(text, "... {} messages dropped by the card", part.dropped.wrapping_sub(self.dropped));
            self.dropped = part.dropped;
        }
        text
    }

    /// The frame that is complete.
    fn line(&self, text: &mut String) {
        // Frames begin with a 0 of their own, so that one that was cut off spoils no other.
        if self.rest == [0] {
            return;
        }
        let line = match quietly(|| decode(self.table, &self.rest)) {
            Some(line) => line,
            None => format!("... a message that makes no sense ({} bytes)", self.rest.len()),
        };
        // It ends up on terminals: nothing in it may steer them.
        text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
        text.push('\n');
    }
}

fn decode(table: &Table, frame: &[u8]) -> Option<String> {
    let mut stream = table.new_stream_decoder();
    stream.received(frame);
    let frame = stream.decode().ok()?;
    let time = frame.display_timestamp().map_or_else(String::new, |time| time.to_string());
    let level = frame.level().map_or("", |level| level.as_str());
    Some(format!("{time:>18}  {:<5}  {}", level.to_uppercase(), frame.display_message()))
}

/// The decoder trusts who encoded: what it panics at is no message.
fn quietly(decode: impl FnOnce() -> Option<String>) -> Option<String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode)).ok().flatten();
    panic::set_hook(hook);
    decoded
}

/// Hexadecimal digits to bytes.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, HELLO, hex};
    use super::*;

    const HELLO_LINE: &str = "                    INFO   hello 7\n";

    fn part(bytes: &[u8], missed: u32) -> Logs {
        Logs { bytes: hex(bytes), missed, ..Logs::default() }
    }

    #[test]
    fn frames_become_lines_wherever_parts_are_cut() {
        let image = testing::image("lines");
        let log = HELLO.repeat(3);
        for cut in 0..log.len() {
            let mut decoder = Decoder::new(&image);
            let lines = decoder.feed(&part(&log[..cut], 0)) + &decoder.feed(&part(&log[cut..], 0));
            assert_eq!(lines, HELLO_LINE.repeat(3), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_lost_is_said_and_the_torn_frame_is_not_shown() {
        let image = testing::image("lost");
        let log = HELLO.repeat(2);
        let mut decoder = Decoder::new(&image);
        assert_eq!(decoder.feed(&part(&log[3..], 300)), format!("... 302 bytes lost\n{HELLO_LINE}"));
        // The end of a frame whose beginning was there.
        assert_eq!(decoder.feed(&part(&log[..2], 0)), "");
        assert_eq!(decoder.feed(&part(&log[4..], 7)), format!("... 9 bytes lost\n{HELLO_LINE}"));
        assert_eq!(decoder.feed(&Logs { dropped: 2, ..Logs::default() }), "... 2 messages dropped by the card\n");
        assert_eq!(decoder.feed(&Logs { dropped: 2, ..Logs::default() }), "");
    }

    #[test]
    fn what_makes_no_sense_is_no_message_and_does_no_harm() {
        let image = testing::image("sense");
        let mut decoder = Decoder::new(&image);
        // A number that no message has; a text whose length is beyond its end; no rzCOBS.
        for frame in [&[9, 0x7e, 0][..], &[2, 0xff, 0xff, 0xff, 0xff, 0x7d, 0], &[0xff, 0]] {
            let lines = decoder.feed(&part(frame, 0));
            assert!(lines.starts_with("... a message that makes no sense ("), "{frame:?}: {lines}");
        }
        assert_eq!(decoder.feed(&part(HELLO, 0)), HELLO_LINE);
        assert!(decoder.feed(&part(&[1; FRAME_MAX + 1], 0)).contains("bytes that are no message"));
        assert!(decoder.feed(&Logs { bytes: "0x".into(), ..Logs::default() }).contains("makes no sense"));
        // Any bytes at all.
        let mut noise = 1u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8 & 0x83
        })
        .take(20_000)
        .collect();
        decoder.feed(&part(&bytes, 0));
        assert!(decoder.feed(&part(&[0], 0)).len() < 100);
        assert_eq!(decoder.feed(&part(HELLO, 0)), HELLO_LINE);
    }

    #[test]
    fn a_text_cannot_steer_a_terminal() {
        let image = testing::image("steer");
        // Number 2, length 3, and an escape sequence: 02 00 03 00 00 00 1b 5b 6d.
        let frame = [0, 2, 3, 0x1b, 0b011_1010, b'[', b'm', 0x7c, 0];
        assert_eq!(Decoder::new(&image).feed(&part(&frame, 0)), "                    WARN   careful,  [m\n");
    }
}
