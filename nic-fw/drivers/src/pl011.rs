//! PL011, the UART of most Arm machines: a console that can't block the card (Arm DDI 0183G).
//!
//! ```text
//!   write_str ──► byte ──transmit FIFO has room within SPINS_MAX looks──► DR ──► wire
//!                   └──else──► counted as lost
//! ```

use crate::Registers;
use bitflags::bitflags;
use core::fmt;

/// Bytes of its window.
pub const WINDOW_LEN: usize = 0x1000;

const DR: usize = 0x000;
const FR: usize = 0x018;
const IBRD: usize = 0x024;
const FBRD: usize = 0x028;
const LCR_H: usize = 0x02c;
const CR: usize = 0x030;
const IMSC: usize = 0x038;
const ICR: usize = 0x044;

/// Eight bits, no parity, one stop bit, FIFOs on.
const LCR_8N1_FIFO: u32 = 0b11 << 5 | 1 << 4;
/// Overrun, break, parity and framing error, beside the byte in DR.
const DR_ERRORS: u32 = 0xf00;

/// Looks at the flags for one byte: some milliseconds on any core, far more than a byte takes at 9600 baud.
const SPINS_MAX: u32 = 100_000;

bitflags! {
    /// The flag register.
    #[derive(Clone, Copy)]
    struct Flags: u32 {
        const BUSY = 1 << 3;
        const RX_EMPTY = 1 << 4;
        const TX_FULL = 1 << 5;
    }

    /// The control register.
    #[derive(Clone, Copy)]
    struct Control: u32 {
        const UART_ENABLE = 1 << 0;
        const TX_ENABLE = 1 << 8;
        const RX_ENABLE = 1 << 9;
    }
}

/// The speed can't be made from this clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadSpeed;

/// One UART. It works as the firmware before us has left it (QEMU, UEFI), or after [`configure`](Self::configure).
#[derive(Debug)]
pub struct Pl011<R> {
    registers: R,
    /// The last byte could not be written: until one can, nothing waits again.
    is_stuck: bool,
    lost: u64,
}

impl<R: Registers> Pl011<R> {
    /// `registers`: a window of [`WINDOW_LEN`] bytes.
    pub fn new(registers: R) -> Self {
        Self { registers, is_stuck: false, lost: 0 }
    }

    /// Sets the speed from the UART's own clock, 8N1, FIFOs on, interrupts off, and enables both directions.
    pub fn configure(&mut self, clock_hz: u32, baud: u32) -> Result<(), BadSpeed> {
        // 3.3.6: the divisor is clock / (16 * baud), six bits behind the point.
        let divisor = (u64::from(clock_hz) * 4).checked_div(u64::from(baud)).ok_or(BadSpeed)?;
        let (whole, parts) = (u32::try_from(divisor >> 6).map_err(|_| BadSpeed)?, divisor as u32 & 0x3f);
        if whole == 0 || whole > 0xffff || (whole == 0xffff && parts != 0) {
            return Err(BadSpeed);
        }
        self.registers.write32(CR, 0);
        self.registers.write32(IMSC, 0);
        self.registers.write32(ICR, 0x7ff);
        self.registers.write32(IBRD, whole);
        self.registers.write32(FBRD, parts);
        // After the divisor: a write of LCR_H is what takes it over (3.3.7).
        self.registers.write32(LCR_H, LCR_8N1_FIFO);
        self.registers.write32(CR, (Control::UART_ENABLE | Control::TX_ENABLE | Control::RX_ENABLE).bits());
        Ok(())
    }

    /// Sends one byte. `false`: there was no room in time, and the byte is lost.
    pub fn write_byte(&mut self, byte: u8) -> bool {
        let looks = if self.is_stuck { 1 } else { SPINS_MAX };
        self.is_stuck = !(0..looks).any(|_| !self.flags().contains(Flags::TX_FULL));
        if self.is_stuck {
            self.lost += 1;
        } else {
            self.registers.write32(DR, u32::from(byte));
        }
        !self.is_stuck
    }

    /// A byte that has come in, if one has. What came with an error is thrown away.
    pub fn read_byte(&mut self) -> Option<u8> {
        if self.flags().contains(Flags::RX_EMPTY) {
            return None;
        }
        let data = self.registers.read32(DR);
        (data & DR_ERRORS == 0).then_some(data as u8)
    }

    /// Waits until all bytes are on the wire, before the machine is switched off say. `false`: not in time.
    pub fn drain(&mut self) -> bool {
        (0..SPINS_MAX).any(|_| !self.flags().contains(Flags::BUSY))
    }

    /// Bytes that could not be sent.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.registers.read32(FR))
    }
}

impl<R: Registers> fmt::Write for Pl011<R> {
    /// Never fails: a console that is stuck must not take its writer along.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.write_byte(b'\r');
            }
            self.write_byte(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Default)]
    struct Uart {
        sent: Vec<u8>,
        received: Vec<u32>,
        /// Looks at the flags until there is room; `u32::MAX`: never.
        full_for: u32,
        looks: u32,
        written: Vec<(usize, u32)>,
    }

    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<Uart>>);

    impl Registers for Fake {
        fn window_len(&self) -> usize {
            WINDOW_LEN
        }
        fn part(&self, _: usize, _: usize) -> Option<Self> {
            None
        }
        fn read32(&self, at: usize) -> u32 {
            let uart = &mut *self.0.borrow_mut();
            match at {
                FR => {
                    uart.looks += 1;
                    let is_full = uart.full_for > 0;
                    uart.full_for -= u32::from(is_full && uart.full_for != u32::MAX);
                    u32::from(is_full) << 5 | u32::from(is_full) << 3 | u32::from(uart.received.is_empty()) << 4
                }
                DR => uart.received.remove(0),
                _ => 0,
            }
        }
        fn write32(&self, at: usize, value: u32) {
            let uart = &mut *self.0.borrow_mut();
            if at == DR { uart.sent.push(value as u8) } else { uart.written.push((at, value)) }
        }
        fn read8(&self, _: usize) -> u8 {
            unreachable!("words only")
        }
        fn read16(&self, _: usize) -> u16 {
            unreachable!("words only")
        }
        fn write8(&self, _: usize, _: u8) {
            unreachable!("words only")
        }
        fn write16(&self, _: usize, _: u16) {
            unreachable!("words only")
        }
    }

    #[test]
    fn text_goes_out_when_there_is_room() {
        let fake = Fake::default();
        let mut uart = Pl011::new(fake.clone());
        fake.0.borrow_mut().full_for = 50;
        write!(uart, "a{}\nb", 1).unwrap();
        assert_eq!(fake.0.borrow().sent, b"a1\r\nb");
        assert_eq!(uart.lost(), 0);
    }

    #[test]
    fn a_stuck_uart_holds_nobody_up() {
        let fake = Fake::default();
        let mut uart = Pl011::new(fake.clone());
        fake.0.borrow_mut().full_for = u32::MAX;
        write!(uart, "{:1000}", 1).unwrap();
        assert_eq!(uart.lost(), 1000);
        assert!(fake.0.borrow().looks <= SPINS_MAX + 1000, "it waited once, not for each byte");
        assert!(!uart.drain());
        fake.0.borrow_mut().full_for = 0;
        assert!(uart.write_byte(b'x') && uart.drain());
        assert_eq!(fake.0.borrow().sent, b"x");
    }

    #[test]
    fn bytes_with_errors_are_not_read() {
        let fake = Fake::default();
        let mut uart = Pl011::new(fake.clone());
        fake.0.borrow_mut().received = vec![0x41, 0x141, 0xf42, 0x43];
        assert_eq!([(); 5].map(|()| uart.read_byte()), [Some(0x41), None, None, Some(0x43), None]);
    }

    #[test]
    fn the_divisor_is_taken_over_last() {
        let fake = Fake::default();
        let mut uart = Pl011::new(fake.clone());
        uart.configure(24_000_000, 115_200).unwrap();
        // 24 MHz / (16 * 115200) = 13.02: 13 and 1/64.
        assert_eq!(fake.0.borrow().written[3..], [(IBRD, 13), (FBRD, 1), (LCR_H, 0x70), (CR, 0x301)]);
        assert_eq!(uart.configure(24_000_000, 0), Err(BadSpeed));
        assert_eq!(uart.configure(1000, 115_200), Err(BadSpeed));
        assert_eq!(uart.configure(u32::MAX, 1), Err(BadSpeed));
    }
}
