//! Options of toe-window.

use anyhow::{Result, bail};
use clap::Parser;
use std::path::PathBuf;
use toe_abi::window::{VECTORS_MAX, WINDOW_MAX, WINDOW_MIN, valid_len};
use tracing::level_filters::LevelFilter;

/// Makes the memory window between a card that runs inside QEMU and its host, and introduces QEMU and toed to each other.
///
/// Start it first, then QEMU with `-chardev socket,path=PATH,id=window -device ivshmem-doorbell,vectors=64,chardev=window` and the
/// card's firmware, then toed with `--device ivshmem:PATH`. Ends on SIGTERM or SIGINT and removes its socket.
#[derive(Parser, Clone, Debug)]
#[command(name = "toe-window", version, max_term_width = 120)]
pub struct Options {
    /// UNIX socket to listen on. Only its owner may connect.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Bytes of the window, a power of two from 4M to 16G (K, M and G are powers of 1024). It holds the buffers of all applications;
    /// memory is taken when used.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    pub size: u64,
    /// Interrupts of each peer: one for toed and one for each context of an application. QEMU's `vectors=` must be the same.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=VECTORS_MAX as i64))]
    pub vectors: u16,
    /// off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

/// `64M` as bytes, if a window may be so large.
fn size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if valid_len(bytes) => Ok(bytes),
        _ => bail!("must be a power of two from {}M to {}G, such as 64M", WINDOW_MIN >> 20, WINDOW_MAX >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes_and_limits() {
        assert_eq!(size("64M").unwrap(), 64 << 20);
        assert_eq!(size("4194304").unwrap(), 4 << 20);
        assert_eq!(size("16g").unwrap(), 16 << 30);
        for wrong in ["", "M", "64", "65M", "32G", "2M", "-64M", "64MB", "99999999999999999999G", "18446744073709551615K"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let o = Options::try_parse_from(["toe-window", "--socket", "/x"]).unwrap();
        assert_eq!((o.size, o.vectors), (toe_abi::window::WINDOW_DEFAULT, 64));
        assert!(Options::try_parse_from(["toe-window", "--socket", "/x", "--vectors", "1"]).is_err());
        assert!(Options::try_parse_from(["toe-window", "--socket", "/x", "--vectors", "257"]).is_err());
        assert!(Options::try_parse_from(["toe-window", "--socket", "/x", "--log-level", "warning"]).is_err());
    }
}
