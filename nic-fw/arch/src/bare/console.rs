//! The console of start-up and of what goes wrong: a PL011 that the firmware has set up, written byte by byte.
//!
//! Nothing of the data path prints. A byte that the UART does not take in time is dropped: no wait without an end.

use super::mmio::Registers;
use crate::machine::UART_LEN;
use crate::range::Range;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;

/// PL011 TRM, 3.3: data, and flags.
const UARTDR: usize = 0x00;
const UARTFR: usize = 0x18;
/// The transmit FIFO is full.
const TXFF: u32 = 1 << 5;

/// Looks at the flags for one byte. At 115,200 baud a byte takes 87 us.
const PATIENCE: u32 = 1_000_000;
/// Looks at the lock before one who reports a fault goes on without: its holder may be the one who has died.
const LOCK_PATIENCE: u32 = 10_000_000;

/// Base of the registers; 0: there is no console.
static BASE: AtomicU64 = AtomicU64::new(0);
static LOCK: Mutex<()> = Mutex::new(());

/// Prints from now on.
///
/// # Safety
/// There are a PL011's registers at `range`, mapped as a device for ever.
pub(crate) unsafe fn set(range: Range) {
    BASE.store(range.base(), Ordering::Release);
}

struct Uart(Registers);

impl Uart {
    fn find() -> Option<Self> {
        let base = BASE.load(Ordering::Acquire);
        let range = Range::new(base, UART_LEN).filter(|_| base != 0)?;
        // SAFETY: `set` was promised it.
        Some(Self(unsafe { Registers::new(range) }))
    }

    fn put(&self, byte: u8) {
        if (0..PATIENCE).any(|_| self.0.read32(UARTFR) & TXFF == 0) {
            self.0.write32(UARTDR, u32::from(byte));
        }
    }
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// Prints a line, not mixed with those of other cores.
pub fn line(what: fmt::Arguments<'_>) {
    let _lock = LOCK.lock();
    write_line(what);
}

/// The same for one who reports a fault, perhaps the holder's own.
pub(crate) fn line_by_force(what: fmt::Arguments<'_>) {
    let _lock = (0..LOCK_PATIENCE).find_map(|_| LOCK.try_lock());
    write_line(what);
}

fn write_line(what: fmt::Arguments<'_>) {
    if let Some(mut uart) = Uart::find() {
        let _ = uart.write_fmt(what);
        let _ = uart.write_str("\n");
    }
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($what:tt)*) => { $crate::console::line(format_args!($($what)*)) };
}
