//! What the image has to say, as defmt frames: [`toe_virt::log`] keeps them and brings them to the host (`toectl logs`).
//!
//! ```text
//!   info!, warn!, error! ─► defmt ─► Turn ─► Log ─► window          boot!: the same, and a line on the console
//! ```
//!
//! *The data path does not log.* What stages meet is counted, and recorded as typed records. Logged is what happens once: start, what the host
//! asks, the link, the end.
//!
//! defmt's strings are numbered by the linker script, which only the ELF image has: as a UEFI application, logs are lines on the console.

#[cfg(target_os = "none")]
mod logger;

#[cfg(all(target_os = "none", not(feature = "tests")))]
pub use logger::attach;

/// There is no log but the console.
#[cfg(all(target_os = "uefi", not(feature = "tests")))]
pub fn attach(_: toe_virt::window::Window) {}

/// A line of the log at a level of defmt's. Arguments are `Display`; they are formatted on the spot.
#[cfg(target_os = "none")]
macro_rules! log {
    ($level:ident, $format:literal $(, $value:expr)* $(,)?) => { defmt::$level!($format $(, defmt::Display2Format(&($value)))*) };
}
#[cfg(target_os = "uefi")]
macro_rules! log {
    ($level:ident, $format:literal $(, $value:expr)* $(,)?) => { toe_arch::println!($format $(, $value)*) };
}

/// What was found and done at start: in the log, and on the console.
macro_rules! boot {
    ($format:literal $(, $value:expr)* $(,)?) => {{
        #[cfg(target_os = "none")]
        toe_arch::println!($format $(, $value)*);
        $crate::image::log::log!(info, $format $(, $value)*);
    }};
}

pub(crate) use {boot, log};
