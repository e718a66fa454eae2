//! What an exception was, in words: ESR_EL1 (Arm ARM, D17.2.37).

/// The exception class: bits 31 to 26.
pub const fn class(esr: u64) -> u8 {
    (esr >> 26 & 0x3f) as u8
}

/// What a class is called.
pub const fn class_name(class: u8) -> &'static str {
    match class {
        0x00 => "unknown or undefined instruction",
        0x01 => "trapped WFI or WFE",
        0x07 => "trapped floating point",
        0x0e => "illegal execution state",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        0x18 => "trapped system register",
        0x20 => "instruction abort from below",
        0x21 => "instruction abort",
        0x22 => "PC alignment",
        0x24 => "data abort from below",
        0x25 => "data abort",
        0x26 => "SP alignment",
        0x2c => "floating point",
        0x2f => "SError",
        0x30 | 0x31 => "breakpoint",
        0x32 | 0x33 => "single step",
        0x34 | 0x35 => "watchpoint",
        0x3c => "BRK",
        _ => "other",
    }
}

/// Whether FAR_EL1 has the address of the fault.
pub const fn has_address(class: u8) -> bool {
    matches!(class, 0x20..=0x22 | 0x24 | 0x25 | 0x34 | 0x35)
}

/// What was wrong with an access: the fault status code of an abort, bits 5 to 0.
pub const fn fault_name(esr: u64) -> &'static str {
    match esr & 0x3f {
        0x00..=0x03 => "address size",
        0x04..=0x07 => "nothing is mapped there",
        0x08..=0x0b => "access flag",
        0x0c..=0x0f => "not permitted",
        0x10 | 0x14..=0x17 => "external abort",
        0x11 => "tag check",
        0x18 | 0x1c..=0x1f => "ECC or parity",
        0x21 => "not aligned",
        0x30 => "TLB conflict",
        _ => "other",
    }
}

/// Whether a data abort was by a write: bit 6.
pub const fn is_write(esr: u64) -> bool {
    esr & 1 << 6 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_taken_apart() {
        // As seen for a write to a page that is not mapped, level 3.
        let esr = 0x9600_0047;
        assert_eq!((class(esr), class_name(class(esr))), (0x25, "data abort"));
        assert_eq!((fault_name(esr), is_write(esr)), ("nothing is mapped there", true));
        assert!(has_address(class(esr)) && !has_address(0x3c));
        assert_eq!(fault_name(0x8600_000f), "not permitted");
    }

    #[test]
    fn every_value_has_a_name() {
        for value in 0..64 {
            assert!(!class_name(value).is_empty() && !fault_name(u64::from(value)).is_empty());
        }
    }
}
