//! A byte stream whose every byte is known by its position, to be sent and checked by whoever runs in a simulation.

use toe_hal::fake::Chance;

/// Byte `pos` of the stream in direction `dir`.
pub fn byte(dir: u8, pos: u64) -> u8 {
    ((pos ^ u64::from(dir) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// One end of a connection that sends `total` bytes and expects as many: what is left to send, what has come.
#[derive(Clone, Debug)]
pub struct Duplex {
    send_dir: u8,
    sent: u64,
    send_total: u64,
    received: u64,
    receive_total: u64,
    chance: Chance,
    /// The peer's end was seen.
    pub ended: bool,
}

impl Duplex {
    /// `first`: whether this is the end that opened the connection.
    pub fn new(first: bool, send_total: u64, receive_total: u64, seed: u64) -> Self {
        Self { send_dir: u8::from(first), sent: 0, send_total, received: 0, receive_total, chance: Chance::new(seed), ended: false }
    }

    /// The next bytes to send, in pieces of all sizes; empty when all is sent.
    pub fn next_piece(&mut self) -> Vec<u8> {
        let most = [1, 100, 1460, 9000, 70_000][self.chance.below(5) as usize];
        let n = (1 + self.chance.below(most)).min(self.send_total - self.sent);
        (self.sent..self.sent + n).map(|p| byte(self.send_dir, p)).collect()
    }

    /// `n` bytes of the piece were taken.
    pub fn sent(&mut self, n: usize) {
        self.sent += n as u64;
    }

    pub fn all_sent(&self) -> bool {
        self.sent == self.send_total
    }

    /// Checks bytes that came.
    pub fn received(&mut self, bytes: &[u8]) {
        for (i, &got) in bytes.iter().enumerate() {
            let pos = self.received + i as u64;
            let want = byte(1 - self.send_dir, pos);
            assert_eq!(got, want, "byte {pos} of {} came wrong", self.receive_total);
        }
        self.received += bytes.len() as u64;
        assert!(self.received <= self.receive_total, "{} bytes more than were sent", self.received - self.receive_total);
    }

    /// All was sent, all has come, and the end of it.
    pub fn done(&self) -> bool {
        self.all_sent() && self.received == self.receive_total && self.ended
    }

    pub fn progress(&self) -> (u64, u64) {
        (self.sent, self.received)
    }
}
