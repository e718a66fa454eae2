//! Which atomic instructions an image has: exclusive loads and stores, which every core has, or those of LSE (Armv8.1).

use anyhow::{Context, Result};
use object::{File, Object, ObjectSection, SectionKind};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Atomics {
    pub exclusive: usize,
    pub lse: usize,
}

/// Counts them in all code.
pub fn count(image: &[u8]) -> Result<Atomics> {
    let file = File::parse(image).context("the image can't be read")?;
    let mut atomics = Atomics::default();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let words = section.data()?.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        for word in words {
            atomics.exclusive += usize::from(is_exclusive(word));
            atomics.lse += usize::from(is_lse(word));
        }
    }
    Ok(atomics)
}

/// Load/store exclusive (Arm ARM, C4.1.94): bits 29 to 24 are 001000, bit 23 (o2) and 21 (o1) are 0.
const fn is_exclusive(word: u32) -> bool {
    word & 0x3fa0_0000 == 0x0800_0000
}

/// Compare and swap (C4.1.94): as above with o2 and o1 set, and 11111 in bits 14 to 10. Atomic memory operations (C4.1.94): 111, V 0, 00, bit 21
/// set, 00 in bits 11 and 10; opcodes 1100 (LDAPR) and, with A and R set, others that are not atomic are left out.
const fn is_lse(word: u32) -> bool {
    let compare_and_swap = word & 0x3fa0_7c00 == 0x08a0_7c00;
    let operation = word & 0x3f20_0c00 == 0x3820_0000;
    let opcode = word >> 12 & 15;
    compare_and_swap || operation && opcode <= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        for (word, name) in [(0xc85f_fc41, "ldaxr x1, [x2]"), (0xc800_fc41, "stlxr w0, x1, [x2]"), (0x085f_7c41, "ldxrb w1, [x2]")] {
            assert!(is_exclusive(word) && !is_lse(word), "{name}");
        }
        for (word, name) in [
            (0xc8e0_fc41_u32, "casal x0, x1, [x2]"),
            (0xf8e0_0041, "ldaddal x0, x1, [x2]"),
            (0xb8a0_8041, "swpa w0, w1, [x2]"),
            (0xf820_305f, "stset x0, [x2]"),
        ] {
            assert!(is_lse(word) && !is_exclusive(word), "{name}");
        }
        for (word, name) in [
            (0xc8df_fc41_u32, "ldar x1, [x2]"),
            (0xc89f_fc41, "stlr x1, [x2]"),
            (0xf8bf_c041, "ldapr x1, [x2]"),
            (0xf860_6841, "ldr x1, [x2, x0]"),
            (0xf840_0041, "ldur x1, [x2]"),
            (0xd503_201f, "nop"),
        ] {
            assert!(!is_lse(word) && !is_exclusive(word), "{name}");
        }
    }
}
