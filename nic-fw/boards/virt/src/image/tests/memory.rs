//! The address space, free memory and stacks.

use super::{Bench, Verdict, check, text};
use alloc::format;
use toe_arch::cores::StartError;
use toe_arch::layout::Attribute;
use toe_arch::range::{PAGE, Range};
use toe_arch::{Error, MapError, println};

pub fn mapped_as_laid_out(bench: &Bench) -> Verdict {
    let count = bench.platform.verify_map().map_err(text)?;
    let regions = bench.platform.regions();
    for attribute in [Attribute::Code, Attribute::ReadOnly, Attribute::Data, Attribute::Device] {
        check!(regions.iter().any(|region| region.attribute == attribute), "nothing is {attribute:?}");
    }
    check!(count > regions.len() + 2 * bench.platform.cores(), "only {count} addresses were asked about");
    check!(bench.platform.guards().len() >= 2 * bench.platform.cores(), "guards: {:?}", bench.platform.guards());
    Ok(())
}

/// Where PCI devices may be put: registers, and memory that is shared with a host.
pub fn mapped_later(bench: &Bench) -> Verdict {
    let window = bench.platform.machine().windows().max_by_key(|window| window.len()).ok_or("no window")?;
    let at = |offset: u64, len: u64| Range::new(window.base() + offset, len).ok_or("a window too short");
    let before = bench.platform.verify_map().map_err(text)?;
    let half = (window.len() / 2).min(64 << 20);
    let registers = bench.platform.map("test registers", at(0, 100)?, Attribute::Device).map_err(text)?;
    let shared = bench.platform.map("test window", at(half, half)?, Attribute::Data).map_err(text)?;
    check!(registers.range.len() == PAGE && shared.range.len() >= half, "{registers}, {shared}");
    // At least the first and the last page of each.
    let after = bench.platform.verify_map().map_err(text)?;
    check!(after - before >= 4, "{before} addresses before, {after} after");
    Ok(())
}

pub fn not_twice(bench: &Bench) -> Verdict {
    for region in bench.platform.regions() {
        let last = Range::new(region.range.end() - 1, 2).ok_or("no range")?;
        let mapped = bench.platform.map("twice", last, Attribute::Device);
        check!(mapped.is_err(), "{region} is mapped again");
    }
    for guard in bench.platform.guards() {
        check!(bench.platform.map("guard", guard, Attribute::Data).is_err(), "a guard is mapped");
    }
    Ok(())
}

/// The first and last word of each piece outside the heap hold what is written there.
pub fn free_memory(bench: &Bench) -> Verdict {
    let regions = bench.platform.regions();
    let mut count = 0;
    for region in regions.iter().filter(|region| region.name == "memory") {
        for address in [region.range.base(), region.range.end() - 8] {
            let word = core::ptr::with_exposed_provenance_mut::<u64>(address as usize);
            // SAFETY: memory that is free and mapped, and given to nobody.
            let read = unsafe {
                word.write_volatile(!address);
                word.read_volatile()
            };
            check!(read == !address, "{address:#x} holds {read:#x}");
            count += 1;
        }
    }
    check!(count > 0 && bench.platform.machine().memory.free.total() > 64 << 20, "{count} words");
    Ok(())
}

/// `memcpy`, `memmove` and `memset` (toe-arch has its own): all lengths about their limits, all alignments, overlaps both ways.
pub fn copies_are_right(_: &Bench) -> Verdict {
    const LEN: usize = 448;
    let pattern = |i: usize| (i as u8).wrapping_mul(37) ^ 0x5a;
    for (len, from, to) in (0..300).flat_map(|len| (0..20).flat_map(move |from| [0, 1, 7, 8, 16, 63, 64, 65].map(|to| (len, from, to)))) {
        let start: [u8; LEN] = core::array::from_fn(pattern);
        let mut bytes = start;
        // Of lengths that the compiler does not know.
        let len = core::hint::black_box(len);
        bytes.copy_within(from..from + len, to);
        let right = |i: usize, byte: u8| byte == if (to..to + len).contains(&i) { start[i - to + from] } else { start[i] };
        check!(bytes.iter().enumerate().all(|(i, byte)| right(i, *byte)), "moving {len} bytes from {from} to {to}");
        let mut other = start;
        other[to..to + len].copy_from_slice(&start[from..from + len]);
        check!(other == bytes, "copying {len} bytes from {from} to {to}");
        other[from..from + len].fill(core::hint::black_box(0xee));
        let right = |i: usize, byte: u8| byte == if (from..from + len).contains(&i) { 0xee } else { bytes[i] };
        check!(other.iter().enumerate().all(|(i, byte)| right(i, *byte)), "filling {len} bytes from {from}");
    }
    Ok(())
}

/// What all tests have used.
pub fn stacks(bench: &Bench) -> Verdict {
    for core in 0..bench.platform.cores() {
        let (used, of) = bench.platform.stack_used(core).ok_or_else(|| format!("core {core} has no stack"))?;
        println!("core {core}: {used} of {of} bytes of stack were used");
        check!(used > 0 && used <= of / 2 && used < of - PAGE, "core {core} has used {used} bytes of {of}");
    }
    let (used, of) = bench.platform.heap_used();
    println!("{} of {} KiB of heap were used", used >> 10, of >> 10);
    Ok(())
}

/// Errors, not panics; what does panic is the fault `sealed`.
pub fn sealed(bench: &Bench) -> Verdict {
    let platform = bench.platform;
    let last = platform.cores() - 1;
    let window = platform.machine().windows().last().ok_or("no window")?;
    toe_arch::seal();
    let here = Range::new(window.end() - PAGE, PAGE).ok_or("no page")?;
    check!(matches!(platform.map("late", here, Attribute::Device), Err(MapError::Sealed)), "mapped");
    check!(matches!(platform.map_message(0x0200, 1, 0, 0), Err(Error::Sealed)), "a message was mapped");
    let carried = core::hint::black_box(5);
    check!(matches!(platform.start(last, move || _ = core::hint::black_box(carried)), Err(StartError::Sealed)), "started");
    check!(platform.verify_map().is_ok(), "what is mapped can't be asked about");
    Ok(())
}
