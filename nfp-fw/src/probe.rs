//! C sources by which the tests ask a C compiler what it makes of the header.

use crate::c::{c_type, line, literal};
use toe_abi::layout::{CONSTANTS, STRUCTS, Struct, Type};

/// A word somewhere in a struct, however deep.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// As C names it: `rx.ooo[1][0]`.
    pub path: String,
    /// From the start of the struct.
    pub offset: usize,
    pub bytes: usize,
    c_type: String,
}

impl Leaf {
    /// What [`filler`]'s program puts there: different for neighbours, cut to the word's size.
    pub fn pattern(ordinal: usize) -> u64 {
        0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(ordinal as u64 + 1)
    }
}

/// Every word of `s`, in the order of its fields.
pub fn leaves(s: &Struct) -> Vec<Leaf> {
    let mut out = Vec::new();
    for field in s.fields {
        walk(&mut out, field.name.to_owned(), field.offset, field.ty);
    }
    out
}

fn walk(out: &mut Vec<Leaf>, path: String, offset: usize, ty: Type) {
    match ty {
        Type::Array(item, n) => {
            for i in 0..n {
                walk(out, format!("{path}[{i}]"), offset + i * size_of(*item), *item);
            }
        }
        Type::Struct(name) => {
            for field in find(name).fields {
                walk(out, format!("{path}.{}", field.name), offset + field.offset, field.ty);
            }
        }
        word => out.push(Leaf { path, offset, bytes: size_of(word), c_type: c_type(word) }),
    }
}

/// Bytes of a type.
pub fn size_of(ty: Type) -> usize {
    match ty {
        Type::U8 => 1,
        Type::U16 => 2,
        Type::U32 => 4,
        Type::U64 => 8,
        Type::Struct(name) => find(name).size,
        Type::Array(item, n) => n * size_of(*item),
    }
}

fn find(name: &str) -> &'static Struct {
    STRUCTS.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name} is not in toe_abi::layout::STRUCTS"))
}

/// A C file that compiles only if sizes, alignments, offsets and constants are what Rust says.
pub fn assertions() -> String {
    let mut out = String::from("#include <stddef.h>\n#include \"ferrotoe_abi.h\"\n\n");
    for s in STRUCTS {
        let name = s.name;
        line(&mut out, format_args!("_Static_assert(sizeof(struct {name}) == {}, \"{name}: size\");", s.size));
        line(&mut out, format_args!("_Static_assert(_Alignof(struct {name}) == {}, \"{name}: alignment\");", s.align));
        for f in s.fields {
            let (field, size) = (f.name, size_of(f.ty));
            line(&mut out, format_args!("_Static_assert(offsetof(struct {name}, {field}) == {}, \"{name}.{field}: offset\");", f.offset));
            line(&mut out, format_args!("_Static_assert(sizeof(((struct {name} *)0)->{field}) == {size}, \"{name}.{field}: size\");"));
        }
    }
    for constant in CONSTANTS {
        let (name, value) = (constant.name, literal(constant.value));
        line(&mut out, format_args!("_Static_assert({name} == {value}, \"{name}\");"));
    }
    out
}

/// A C program that writes every struct to standard output, each word holding [`Leaf::pattern`] of its ordinal.
pub fn filler() -> String {
    let mut out = String::from("#include <stdio.h>\n#include <string.h>\n#include \"ferrotoe_abi.h\"\n\n");
    for s in STRUCTS {
        line(&mut out, format_args!("static void {0}(void)\n{{\n    static struct {0} s;\n    memset(&s, 0xff, sizeof s);", s.name));
        for (ordinal, leaf) in leaves(s).iter().enumerate() {
            let pattern = Leaf::pattern(ordinal);
            line(&mut out, format_args!("    s.{} = ({}){pattern:#x}ULL;", leaf.path, leaf.c_type));
        }
        out.push_str("    fwrite(&s, sizeof s, 1, stdout);\n}\n\n");
    }
    out.push_str("int main(void)\n{\n");
    for s in STRUCTS {
        line(&mut out, format_args!("    {}();", s.name));
    }
    out.push_str("    return fflush(stdout) != 0;\n}\n");
    out
}
