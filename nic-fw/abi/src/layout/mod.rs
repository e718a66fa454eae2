//! What the structs and constants of this crate look like in memory, as data: the C header is made from it.
//!
//! ```text
//!   desc, flow, control, ... ──offset_of!, size_of!──► [structs], [constants] ──► nfp-fw: ferrotoe_abi.h, gcc test
//! ```
//!
//! Offsets, sizes and types come from the compiler; only names are listed. A name that is gone does not compile, and
//! one that is missing fails `nfp-fw`'s tests: fields leave a gap, constants are looked for in the source.
//!
//! Behind feature `layout`: only the generator needs it.

mod constants;
mod structs;

pub use constants::CONSTANTS;
pub use structs::STRUCTS;

/// A constant, as C sees it.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    pub name: &'static str,
    /// Its path in this crate.
    pub source: &'static str,
    pub value: u64,
}

/// A struct. Those that it contains come earlier in [`STRUCTS`].
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    pub name: &'static str,
    /// Its path in this crate.
    pub source: &'static str,
    pub size: usize,
    pub align: usize,
    pub fields: &'static [Field],
}

/// A field, in the order of offsets.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub ty: Type,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    U8,
    U16,
    U32,
    U64,
    /// By its C name.
    Struct(&'static str),
    Array(&'static Type, usize),
}

/// Types that have a C equivalent.
pub trait CType {
    const TYPE: Type;
}

macro_rules! words {
    ($($rust:ty => $c:expr,)*) => { $(impl CType for $rust { const TYPE: Type = $c; })* };
}

words! {
    u8 => Type::U8,
    u16 => Type::U16,
    u32 => Type::U32,
    u64 => Type::U64,
    crate::CtxId => Type::U16,
    crate::RegionId => Type::U16,
}

impl<T: CType, const N: usize> CType for [T; N] {
    const TYPE: Type = Type::Array(&T::TYPE, N);
}

/// The type of a field, named by a function that borrows it.
const fn type_of<S, F: CType>(_: fn(&S) -> &F) -> Type {
    F::TYPE
}
