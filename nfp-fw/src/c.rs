//! The header itself.

use std::fmt::Write;
use toe_abi::layout::{CONSTANTS, Field, STRUCTS, Struct, Type};
use toe_abi::{CtxId, FlowId, RegionId, counters};

const TOP: &str = "\
/* Every byte that two sides of FerroTOE share. Generated from nic-fw/abi (what each field means is said there):
 * don't edit, run `cargo run -p toe-nfp-header -- --write`.
 *
 * Words are in native byte order, addresses in network order. What the other side writes is a claim: copy it out
 * once, then validate the copy.
 *
 * A compiler without <stdint.h> or the aligned attribute defines TOE_NO_STDINT or TOE_ALIGNED(n) first.
 */
#ifndef FERROTOE_ABI_H
#define FERROTOE_ABI_H

#ifndef TOE_NO_STDINT
#include <stdint.h>
#endif

#ifndef TOE_ALIGNED
#define TOE_ALIGNED(n) __attribute__((aligned(n)))
#endif
";

/// The text of `ferrotoe_abi.h`.
pub fn header() -> String {
    let mut out = TOP.to_owned();
    constants(&mut out);
    nobody(&mut out);
    counter_numbers(&mut out);
    for s in STRUCTS {
        structure(&mut out, s);
    }
    out.push_str("\n#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L\n");
    for s in STRUCTS {
        line(&mut out, format_args!("_Static_assert(sizeof(struct {0}) == {1}, \"{0}\");", s.name, s.size));
    }
    out.push_str("#endif\n\n#endif\n");
    out
}

/// Appends one line. Writing to a string can't fail.
pub(crate) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

fn constants(out: &mut String) {
    let mut module = None;
    for constant in CONSTANTS {
        let here = constant.source.rsplit_once("::").map_or("", |(module, _)| module);
        if module != Some(here) {
            module = Some(here);
            line(out, format_args!("\n/* {} */", if here.is_empty() { "toe_abi" } else { here }));
        }
        line(out, format_args!("#define {} {}", constant.name, literal(constant.value)));
    }
}

/// The value as C reads it: never signed, so that flags and sizes mix without surprise.
pub(crate) fn literal(value: u64) -> String {
    match value {
        0..=0xffff => format!("{value}U"),
        0x1_0000..=0xffff_ffff => format!("{value:#x}U"),
        _ => format!("{value:#x}ULL"),
    }
}

/// Ids that name nothing.
fn nobody(out: &mut String) {
    let ids: [(&str, u64); 3] = [
        ("TOE_FLOW_INDEX_NONE", FlowId::NONE.index.into()),
        ("TOE_CTX_NONE", CtxId::NONE.0.into()),
        ("TOE_REGION_NONE", RegionId::NONE.0.into()),
    ];
    out.push_str("\n/* ids */\n");
    for (name, value) in ids {
        line(out, format_args!("#define {name} {}", literal(value)));
    }
}

/// Numbers of the whole set of counters, and reasons of exceptions as frame records carry them.
fn counter_numbers(out: &mut String) {
    out.push_str("\n/* counters: numbers of the whole set, as answers to COUNTERS have them */\n");
    for i in 0..counters::TOTAL {
        if let Some(name) = counters::name(i) {
            line(out, format_args!("#define TOE_COUNTER_{} {i}U", name.to_uppercase()));
        }
    }
    out.push_str("\n/* counters::Exception: the reason in a frame record */\n");
    for reason in counters::Exception::ALL {
        line(out, format_args!("#define TOE_{} {}U", reason.name().to_uppercase(), *reason as u16));
    }
}

fn structure(out: &mut String, s: &Struct) {
    line(out, format_args!("\n/* {}: {} bytes */\nstruct {} {{", s.source.trim_start_matches("crate::"), s.size, s.name));
    let declarations: Vec<String> = s.fields.iter().map(declaration).collect();
    let width = declarations.iter().map(String::len).max().unwrap_or(0);
    for (field, text) in s.fields.iter().zip(&declarations) {
        line(out, format_args!("    {text:width$}  /* {:3} */", field.offset));
    }
    line(out, format_args!("}} TOE_ALIGNED({});", s.align));
}

fn declaration(field: &Field) -> String {
    let mut dimensions = String::new();
    let mut ty = field.ty;
    while let Type::Array(item, n) = ty {
        let _ = write!(dimensions, "[{n}]");
        ty = *item;
    }
    format!("{} {}{dimensions};", c_type(ty), field.name)
}

/// The C type of anything but an array.
pub(crate) fn c_type(ty: Type) -> String {
    match ty {
        Type::U8 => "uint8_t".into(),
        Type::U16 => "uint16_t".into(),
        Type::U32 => "uint32_t".into(),
        Type::U64 => "uint64_t".into(),
        Type::Struct(name) => format!("struct {name}"),
        Type::Array(item, _) => c_type(*item),
    }
}
