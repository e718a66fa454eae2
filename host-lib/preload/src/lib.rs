//! libtoe_preload.so: libc's socket functions for unmodified programs. No logic: look up the descriptor, convert the
//! arguments, call `toe-sockets` or the next library's function.
//!
//! ```text
//!   program ──► read(fd, ...) ──► fd ours? ──no──► real!(read): dlsym(RTLD_NEXT), cached
//!                                    │yes
//!                                    ▼
//!                               toe-sockets ──► result, or -1 and errno
//! ```
//!
//! Everything works before constructors have run and inside malloc: the table of descriptors is a static array, and nothing
//! that is forwarded allocates. Internal system calls never come back here (`toe-link` makes them itself).
//!
//! What cannot be reached this way: statically linked programs, raw system calls (but `syscall()` with SYS_close or
//! SYS_io_uring_setup is caught), and
//! stdio on a socket (`fdopen`), as libc's own calls do not go through the names it exports.
//!
//! May depend on: `toe-sockets`.

#[macro_use]
mod real;
mod cancel;
mod fd;
mod io;
mod net;
mod numbers;
mod ready;
#[cfg(test)]
mod tests;
mod variadic;

use libc::c_int;
use toe_sockets::close::{exiting, fork_child, fork_parent, fork_prepare, start};

extern "C" fn prepare() {
    fork_prepare();
}

extern "C" fn parent() {
    fork_parent();
}

extern "C" fn child() {
    fork_child();
}

extern "C" fn at_exit() {
    exiting();
}

unsafe extern "C" {
    fn at_quick_exit(function: extern "C" fn()) -> c_int;
}

extern "C" fn init() {
    start();
    // SAFETY: the handlers are functions of this library, which is never unloaded (preloaded libraries are not).
    unsafe {
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
        libc::atexit(at_exit);
        at_quick_exit(at_exit);
    }
}

/// Runs when the library is loaded. What comes before works too, except that a fork would not be noticed. (A test says first where toed is.)
#[used]
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
static INIT: extern "C" fn() = init;
