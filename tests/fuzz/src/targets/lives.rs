//! A world that serves several inputs, one after the other: to make it takes longer than most inputs do, and what one of them leaves behind
//! is there for the next. Every so often it is made anew, so that what breaks it is not long in coming about.
//!
//! ```text
//!   input ─► world, kept by the thread ─► all of it has come to an end ─► kept for the next input
//!                                     └─► it has not, or it is old ────► a new one
//! ```

use std::cell::RefCell;

/// Inputs that a world serves at most.
const LIVES_MAX: usize = 16;

/// A world of a target of events.
pub trait World {
    fn new() -> Self;

    /// One input, to its end. False: what is left of it would be in the way of the next.
    fn live(&mut self, data: &[u8]) -> bool;
}

/// The world that a thread keeps, and how many inputs it has served.
pub struct Kept<W>(RefCell<Option<(W, usize)>>);

impl<W: World> Kept<W> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn run(&self, data: &[u8]) {
        let (mut world, lives) = self.0.take().unwrap_or_else(|| {
            history::begin();
            (W::new(), 0)
        });
        history::add(data);
        if world.live(data) && lives + 1 < LIVES_MAX {
            self.0.replace(Some((world, lives + 1)));
        }
    }
}

/// What the world that breaks has lived through: without that, the last input may not break it again.
#[cfg(fuzzing)]
mod history {
    use std::cell::RefCell;
    use std::path::PathBuf;
    use std::sync::Once;
    use std::{env, fs, panic, process};

    thread_local! {
        static INPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub fn begin() {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                write();
                next(info);
            }));
        });
        INPUTS.with_borrow_mut(Vec::clear);
    }

    pub fn add(data: &[u8]) {
        INPUTS.with_borrow_mut(|inputs| inputs.push(data.to_vec()));
    }

    /// A folder of inputs in the order of their names, the one that broke it the last.
    fn write() {
        let Some(found) = env::var_os("TOE_FUZZ_FOUND").map(PathBuf::from) else { return };
        let folder = found.join(format!("world-{}", process::id()));
        let written = INPUTS.with_borrow(|inputs| {
            fs::create_dir_all(&folder)?;
            inputs.iter().enumerate().try_for_each(|(n, input)| fs::write(folder.join(format!("{n:02}")), input))
        });
        match written {
            Ok(()) => eprintln!("all that this world has lived through: {}/*", folder.display()),
            Err(error) => eprintln!("what this world has lived through cannot be kept in {}: {error}", folder.display()),
        }
    }
}

#[cfg(not(fuzzing))]
mod history {
    pub fn begin() {}
    pub fn add(_: &[u8]) {}
}
