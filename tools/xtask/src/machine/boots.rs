//! Which images are started how, and what they must answer.

use super::lies::{LIES, Lie};
use crate::image::{Cpu, Format, Image};

/// What a boot must end with.
pub enum Expect {
    /// As many cases; exit code 0 if all of them hold.
    Cases(usize),
    /// An exit code, and texts on the console.
    Report { code: i32, texts: &'static [&'static str] },
}

pub struct Boot {
    pub name: String,
    pub image: Image,
    pub cores: u32,
    /// Memory, MiB.
    pub mib: u32,
    /// Exception level at which the image is started.
    pub el: u32,
    /// Version of the interrupt controller.
    pub gic: u32,
    /// What is changed in the device tree.
    pub lie: Option<&'static Lie>,
    /// The command line.
    pub words: String,
    pub expect: Expect,
}

/// Verdicts of toe-arch: a fault, a panic, a start-up that was refused.
const FAULT: i32 = 100;
const PANIC: i32 = 101;
const REFUSED: i32 = 102;

/// Cases of the image (`boards/virt`, `image/tests`).
const CASES: usize = 20;

/// Rounds of sleep and wake in the boots that are about it, and in the others.
const MANY_ROUNDS: u32 = 100_000;
const FEW_ROUNDS: u32 = 2000;

/// Faults on purpose: name, exit code, what the report must say.
const FAULTS: &[(&str, i32, &[&str])] = &[
    (
        "read-nowhere",
        FAULT,
        &["FAULT on core 0", "doing: a fault on purpose", "data abort", "class 0x25", "access of 0x0000000000000010", "nothing is mapped"],
    ),
    ("write-constant", FAULT, &["data abort", "write of", "not permitted"]),
    ("write-code", FAULT, &["data abort", "write of", "not permitted"]),
    ("execute-data", FAULT, &["instruction abort", "class 0x21", "not permitted"]),
    ("undefined", FAULT, &["undefined instruction", "class 0x00"]),
    ("stack", FAULT, &["data abort", "stack overflow: the guard page below the stack"]),
    ("frame", FAULT, &["data abort", "stack overflow: the guard page below the stack"]),
    ("guard", FAULT, &["data abort", "nothing is mapped"]),
    ("core-1", FAULT, &["FAULT on core 1", "doing: dying on core 1", "data abort", "write of 0x0000000000000010"]),
    ("reporting", FAULT, &["FAULT on core 0", "FAULT while reporting on core 0: ESR 0x96000006"]),
    ("panic", PANIC, &["PANIC on core 0", "a panic on purpose", "faults.rs"]),
    ("sealed", PANIC, &["bytes allocated after start-up"]),
];

/// Those that a UEFI application is told as well: its sections and stacks come another way.
const UEFI_FAULTS: [&str; 6] = ["write-constant", "write-code", "execute-data", "stack", "frame", "panic"];

const fn image(format: Format) -> Image {
    Image { cpu: Cpu::A72, format, tests: true }
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Elf => "elf",
        Format::Uefi => "uefi",
    }
}

pub fn all() -> Vec<Boot> {
    let mut boots = Vec::new();
    for format in [Format::Elf, Format::Uefi] {
        for el in [1, 2] {
            boots.extend([1, 2, 4, 8].map(|cores| cases(image(format), cores, el)));
        }
    }
    boots.push(cases(Image { cpu: Cpu::A78, ..image(Format::Elf) }, 4, 2));
    for format in [Format::Elf, Format::Uefi] {
        boots.push(large(format));
        let has = |name: &str| format == Format::Elf || UEFI_FAULTS.contains(&name);
        boots.extend(FAULTS.iter().filter(|(name, ..)| has(name)).map(|fault| failing(format, fault)));
        boots.push(refused(format, 17, 3, &["start-up refused: more than 16 cores"]));
        boots.push(refused(format, 1, 2, &["start-up refused: no GICv3"]));
    }
    boots.extend(LIES.iter().map(told));
    boots.push(shipped());
    boots
}

fn cases(image: Image, cores: u32, el: u32) -> Boot {
    let rounds = if image.format == Format::Elf && (cores, el) == (4, 2) { MANY_ROUNDS } else { FEW_ROUNDS };
    let lse = if image.cpu == Cpu::A78 { " with LSE" } else { "" };
    Boot {
        name: format!("{}{lse}, {cores} cores, EL{el}", name(image.format)),
        image,
        cores,
        mib: 256,
        el,
        gic: 3,
        lie: None,
        words: format!("cores={cores} el={el} mib=256 rounds={rounds}"),
        expect: Expect::Cases(CASES),
    }
}

/// As many cores as there is room for, and memory beyond what a 32-bit address reaches.
fn large(format: Format) -> Boot {
    let (cores, mib) = (16, 8192);
    let words = format!("cores={cores} el=2 mib={mib} rounds={FEW_ROUNDS}");
    Boot { name: format!("{}, {cores} cores, 8 GiB", name(format)), mib, words, ..cases(image(format), cores, 2) }
}

fn failing(format: Format, &(fault, code, texts): &(&str, i32, &'static [&'static str])) -> Boot {
    Boot {
        name: format!("{}, fault {fault}", name(format)),
        image: image(format),
        cores: 2,
        mib: 256,
        el: 1,
        gic: 3,
        lie: None,
        words: format!("fault={fault}"),
        expect: Expect::Report { code, texts },
    }
}

/// A machine that can't be ours: said, and not a fault.
fn refused(format: Format, cores: u32, gic: u32, texts: &'static [&'static str]) -> Boot {
    Boot {
        name: format!("{}, refuses {cores} cores and GICv{gic}", name(format)),
        image: image(format),
        cores,
        mib: 256,
        el: 1,
        gic,
        lie: None,
        words: String::new(),
        expect: Expect::Report { code: REFUSED, texts },
    }
}

/// A device tree that can't be true.
fn told(lie: &'static Lie) -> Boot {
    let expect = Expect::Report { code: REFUSED, texts: lie.says };
    Boot { name: format!("elf, refuses {}", lie.name), lie: Some(lie), expect, ..refused(Format::Elf, 2, 3, &[]) }
}

/// The image without tests, on a machine without devices: it says what is missing, and turns the machine off.
fn shipped() -> Boot {
    Boot {
        name: "elf, without devices".into(),
        image: Image { tests: false, ..image(Format::Elf) },
        cores: 4,
        mib: 256,
        el: 2,
        gic: 3,
        lie: None,
        words: String::new(),
        expect: Expect::Report {
            code: 0,
            texts: &["toe-virt: 4 cores, started at EL2", "there is no window to the host (ivshmem-doorbell)"],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_every_start_is_there() {
        let boots = all();
        let mut names: Vec<&str> = boots.iter().map(|boot| boot.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), boots.len());
        assert!(UEFI_FAULTS.iter().all(|name| FAULTS.iter().any(|(fault, ..)| fault == name)));
        assert!(boots.iter().any(|boot| boot.words.ends_with("rounds=100000")));
    }
}
