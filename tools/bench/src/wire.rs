//! What client and server say: the client begins each connection with eight bytes.

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The server sends back what it gets.
    Echo,
    /// The server reads and discards, and answers the end of the stream with its byte count.
    Sink,
    /// The server writes until the connection ends.
    Source,
}

pub const HELLO_LEN: usize = 8;

/// Bytes per read and write of bulk transfers.
pub const BULK_BLOCK: usize = 256 * 1024;

impl Mode {
    pub fn hello(self) -> [u8; HELLO_LEN] {
        let kind = match self {
            Mode::Echo => b'e',
            Mode::Sink => b's',
            Mode::Source => b'S',
        };
        [b't', b'o', b'e', b'-', b'r', b'p', b'c', kind]
    }

    pub fn parse(hello: &[u8]) -> Option<Mode> {
        [Mode::Echo, Mode::Sink, Mode::Source].into_iter().find(|mode| mode.hello() == hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_told_apart() {
        for mode in [Mode::Echo, Mode::Sink, Mode::Source] {
            assert_eq!(Mode::parse(&mode.hello()), Some(mode));
        }
        assert_eq!(Mode::parse(b"GET / HT"), None);
        assert_eq!(Mode::parse(b""), None);
    }
}
