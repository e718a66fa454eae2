//! Faults on purpose: each ends the machine with a report, which whoever started it reads.

use alloc::boxed::Box;
use toe_arch::cores::{self, Doing};
use toe_arch::{Platform, println};

static FAULTING: Doing = Doing("a fault on purpose");

/// Not mapped in any layout: the first page of all.
const NOWHERE: usize = 0x10;

pub fn commit(name: &str, platform: &'static Platform) -> ! {
    cores::set_doing(&FAULTING);
    match name {
        "read-nowhere" => drop(read(NOWHERE)),
        "write-constant" => write((&raw const CONSTANT).addr()),
        "write-code" => write(commit as *const () as usize),
        "execute-data" => execute(),
        "undefined" => undefined(),
        "stack" => drop(deeper(1)),
        "frame" => frame(),
        "panic" => panic!("a panic on purpose"),
        "sealed" => {
            toe_arch::seal();
            drop(core::hint::black_box(Box::new(1_u64)));
        }
        "core-1" => elsewhere(platform),
        "guard" => guard(platform),
        "reporting" => while_reporting(),
        _ => println!("there is no fault {name}"),
    }
    println!("nothing happened");
    crate::image::end(1)
}

static CONSTANT: [u64; 4] = [1, 2, 3, 4];

fn read(address: usize) -> u64 {
    // SAFETY: none: it faults, which is what is tested.
    unsafe { core::ptr::with_exposed_provenance::<u64>(address).read_volatile() }
}

fn write(address: usize) {
    // SAFETY: none: it faults, which is what is tested.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(address & !7).write_volatile(5) };
}

/// Jumps to a return instruction that lies in data.
fn execute() {
    let ret = Box::leak(Box::new(0xd65f_03c0_u32));
    let address: *const u32 = ret;
    // SAFETY: none: it faults, which is what is tested. Were it executed, it would return at once.
    unsafe { core::arch::asm!("blr {}", in(reg) address, clobber_abi("C")) };
}

fn undefined() {
    // SAFETY: none: it faults, which is what is tested.
    unsafe { core::arch::asm!("udf #7") };
}

/// Calls itself until the stack is full.
#[expect(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    deeper(depth + 1) + core::hint::black_box(room)[7]
}

/// One frame that is larger than the stack, of which only the far end is used.
#[inline(never)]
fn frame() {
    let mut room = core::mem::MaybeUninit::<[u64; 1 << 17]>::uninit();
    let far = core::hint::black_box(room.as_mut_ptr().cast::<u64>());
    // SAFETY: inside the array; writing makes no claim about what was there.
    unsafe { far.write_volatile(1) };
}

fn elsewhere(platform: &'static Platform) {
    static DYING: Doing = Doing("dying on core 1");
    let started = platform.start(1, || {
        cores::set_doing(&DYING);
        write(NOWHERE);
    });
    started.unwrap_or_else(|error| panic!("{error}"));
    // Its end is ours.
    loop {
        cores::sleep_until(None, |_| ());
    }
}

/// The page below the stack of the last core.
fn guard(platform: &'static Platform) {
    let page = platform.guards().into_iter().max_by_key(|guard| guard.base()).map_or(NOWHERE, |guard| guard.base() as usize);
    write(page);
}

/// What this core is doing can't be read: the report of the fault faults itself.
fn while_reporting() {
    // SAFETY: none: it faults when it is read, which is what is tested.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(NOWHERE), 8) };
    // SAFETY: as above.
    let nowhere = unsafe { core::str::from_utf8_unchecked(bytes) };
    cores::set_doing(Box::leak(Box::new(Doing(nowhere))));
    undefined();
}
