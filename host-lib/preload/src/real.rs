//! The functions that ours hide, and libc's way to answer.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicUsize, Ordering};
use toe_sockets::Errno;

/// The next definition of a libc function, looked up once.
macro_rules! real {
    ($name:ident as fn($($arg:ty),* $(,)?) -> $ret:ty) => {{
        static ADDRESS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        const NAME: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("a name without zeroes"),
        };
        let address = $crate::real::next(&ADDRESS, NAME);
        // SAFETY: the symbol of this name in libc has this signature (its manual page), or is `missing`, which ignores all
        // arguments and answers an int, as do the functions that may be missing.
        #[allow(unused_unsafe, reason = "this may stand inside another unsafe block")]
        let function = unsafe { std::mem::transmute::<usize, unsafe extern "C" fn($($arg),*) -> $ret>(address) };
        function
    }};
}

/// Looks a symbol up behind this library, keeping the answer in `cache`.
pub fn next(cache: &AtomicUsize, name: &CStr) -> usize {
    let known = cache.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: a C string, and a handle that dlsym knows.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.expose_provenance();
    let address = if found == 0 { missing as *const () as usize } else { found };
    // Two threads may both look; they find the same.
    cache.store(address, Ordering::Relaxed);
    address
}

/// Stands in for a function that this libc does not have.
extern "C" fn missing() -> c_int {
    set_errno(Errno::NOSYS);
    -1
}

pub fn set_errno(errno: Errno) {
    // SAFETY: the calling thread's errno.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
}

/// A function's result as libc gives it.
pub trait Answer: Sized {
    fn failed() -> Self;
}

impl Answer for c_int {
    fn failed() -> Self {
        -1
    }
}

impl Answer for isize {
    fn failed() -> Self {
        -1
    }
}

/// The value, or -1 and errno.
pub fn answer<T: Answer>(result: Result<T, Errno>) -> T {
    result.unwrap_or_else(|errno| {
        set_errno(errno);
        T::failed()
    })
}

/// For functions that answer 0 or -1.
pub fn status(result: Result<(), Errno>) -> c_int {
    answer(result.map(|()| 0))
}

/// For functions that answer a length.
pub fn length(result: Result<usize, Errno>) -> isize {
    answer(result.map(|n| n as isize))
}

/// For functions that answer a small count.
pub fn count(result: Result<usize, Errno>) -> c_int {
    answer(result.map(|n| n as c_int))
}
