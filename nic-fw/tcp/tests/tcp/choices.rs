//! Where the choices of a hostile test come from: a seed here, the fuzzer's input in `tests/fuzz`.

pub trait Choices {
    fn next(&mut self) -> u64;

    /// Whether there are none left that mean anything.
    fn is_over(&self) -> bool {
        false
    }

    /// In `[low, high)`.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.range(0, N as u64) as usize]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.range(0, 100) < percent.into()
    }

    /// Up to `max` bytes.
    fn bytes(&mut self, max: u64) -> Vec<u8> {
        (0..self.range(0, max + 1)).map(|_| self.range(0, 256) as u8).collect()
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Choices for Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
