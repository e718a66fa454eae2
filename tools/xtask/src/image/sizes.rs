//! How large an image is: sections, static memory, stacks.

use std::fmt::Write;

use anyhow::{Context, Result};
use object::{File, Object, ObjectSection, ObjectSymbol, SectionKind};

/// Absolute symbols by which the image says how much each core gets (toe-arch, `bare/stack.rs`), and what they are.
const STACKS: [(&str, &str); 3] = [
    ("__core_stack_bytes", "stack of a core"),
    ("__core_exception_stack_bytes", "stack of a core for exceptions"),
    ("__core_guard_bytes", "unmapped below each"),
];

/// A table for the screen.
pub fn table(image: &[u8]) -> Result<String> {
    let file = File::parse(image).context("the image can't be read")?;
    let mut out = String::new();
    let (mut loaded, mut memory) = (0, 0);
    for section in file.sections().filter(is_loaded) {
        let zero = matches!(section.kind(), SectionKind::UninitializedData);
        let note = if zero { "  not in the file" } else { "" };
        writeln!(out, "  {:<14} {:>9} bytes at {:#x}{note}", section.name()?, section.size(), section.address())?;
        memory += section.size();
        loaded += if zero { 0 } else { section.size() };
    }
    writeln!(out, "  loaded {loaded} bytes, static memory {memory} bytes")?;
    for (symbol, what) in STACKS {
        // A UEFI application has no symbols.
        if let Some(value) = file.symbols().find(|s| s.name() == Ok(symbol)).map(|s| s.address()) {
            writeln!(out, "  {what}: {value} bytes, from the heap")?;
        }
    }
    writeln!(out, "  what of the stacks is used is measured on the machine: cargo xtask machine")?;
    Ok(out)
}

/// Whether a section takes memory when the image runs.
fn is_loaded<'a>(section: &impl ObjectSection<'a>) -> bool {
    let debug = matches!(section.kind(), SectionKind::Debug | SectionKind::DebugString | SectionKind::Metadata | SectionKind::OtherString);
    !debug && section.address() != 0 && section.size() > 0
}
