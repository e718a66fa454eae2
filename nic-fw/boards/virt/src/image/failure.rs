//! The card's last words: into the window, to toed by its vector 0, and into the log. The console has them already.
//!
//! ```text
//!   toe-arch: panic, fault, refused start ─► failed ─► window: text, FAILED ─► doorbell ─► log ─► the machine ends
//! ```
//!
//! Called by whoever fails first, whatever it held: takes no lock but the log's, which is given up in time, and allocates nothing.

use super::board::Doorbell;
use super::log::log;
use spin::Once;
use toe_abi::CtxId;
use toe_abi::window::CONTROL_VECTOR;
use toe_arch::Failure;
use toe_hal::Kick;
use toe_virt::window::{self, Window};

/// Who is told, once there is somebody.
struct Witness {
    window: Window,
    doorbell: Doorbell,
}

static WITNESS: Once<Witness> = Once::new();

/// The host is told of failures from now on.
pub fn tell(window: Window, doorbell: Doorbell) {
    WITNESS.call_once(|| Witness { window, doorbell });
}

/// For `toe_arch::board!`.
pub fn failed(failure: &Failure<'_>) {
    let Failure { core, doing, what } = *failure;
    if let Some(Witness { window, doorbell }) = WITNESS.get() {
        window::fail(window, core as u32, format_args!("{what}; it was {doing}"));
        doorbell.clone().interrupt(CtxId(CONTROL_VECTOR));
    }
    log!(error, "failed, {}: {}", doing, what);
}
