//! defmt's global logger: rzCOBS frames into the card's [`Log`], one core at a time.

use core::cell::UnsafeCell;
use toe_arch::{cores, time};
use toe_virt::log::{Log, Turn};
#[cfg(not(feature = "tests"))]
use toe_virt::window::Window;

defmt::timestamp!("{=u64:us} core {=u8}", time::now_ns() / 1000, cores::index() as u8);

static TURN: Turn = Turn::new();
static SHARED: Shared = Shared(UnsafeCell::new(Inner { encoder: defmt::Encoder::new(), log: Log::new() }));

struct Inner {
    encoder: defmt::Encoder,
    log: Log,
}

/// Used by the core whose [`TURN`] it is.
struct Shared(UnsafeCell<Inner>);

// SAFETY: only `with` reaches the inside, one core at a time.
unsafe impl Sync for Shared {}

/// Does something with the log, if it is this core's turn.
fn with(what: impl FnOnce(&mut Inner)) {
    if TURN.is(cores::index()) {
        // SAFETY: it is our turn, so no other core is here. Nor are we twice: what is done in here calls nobody back, and if it is torn
        // away by a fault or a panic it never goes on, as the machine ends.
        what(unsafe { &mut *SHARED.0.get() });
    }
}

/// The window is there: the log goes there from now on.
#[cfg(not(feature = "tests"))]
pub fn attach(window: Window) {
    if TURN.take(cores::index()) {
        with(|inner| inner.log.attach(window));
        TURN.give(cores::index());
    }
}

#[defmt::global_logger]
struct Logger;

// SAFETY: a frame is written between `acquire` and `release` by the core whose turn it is; for any other core, which was not given the turn
// in time, all of this does nothing.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        if TURN.take(cores::index()) {
            with(|Inner { encoder, log }| {
                log.drop_frames(TURN.take_missed());
                log.begin();
                // A new one, which begins with a 0: of a frame that was not ended, something may be left in the old one.
                *encoder = defmt::Encoder::new();
                encoder.start_frame(|bytes| log.put(bytes));
            });
        }
    }

    unsafe fn flush() {
        // A frame is in the ring when it is released.
    }

    unsafe fn release() {
        with(|Inner { encoder, log }| {
            encoder.end_frame(|bytes| log.put(bytes));
            log.end();
        });
        TURN.give(cores::index());
    }

    unsafe fn write(bytes: &[u8]) {
        with(|Inner { encoder, log }| encoder.write(bytes, |bytes| log.put(bytes)));
    }
}
