//! Reading a flattened device tree (Devicetree Specification 0.4, chapter 5) that may lie in every byte.
//!
//! ```text
//!   header │ reserved ranges │ structure: BEGIN name PROP.. BEGIN .. END .. END END-OF-TREE │ strings
//!             (base, len)*      └─► Nodes: one [`Node`] after the other, with its depth
//! ```
//!
//! Every length is checked against the slice, every loop goes forward in it. The crates for this index without a check, or take
//! the address alone: a damaged blob is then a panic or a fault.

use crate::machine::Wrong;
use crate::range::Range;

/// First word of every blob.
pub const MAGIC: u32 = 0xd00d_feed;
/// Bytes of the header that we read.
pub const HEADER: usize = 40;
/// No blob is longer: QEMU's are 1 MiB with all their padding, and the boot protocol of Linux allows 2.
pub const BLOB_MAX: usize = 2 << 20;
/// Nodes inside nodes.
pub const DEPTH_MAX: usize = 8;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

const DAMAGED: Wrong = Wrong::Damaged("device tree");

/// Bytes of the blob that begins with `header`: `None` if none does.
pub fn blob_len(header: &[u8]) -> Option<usize> {
    let len = be32(header, 4)? as usize;
    (be32(header, 0)? == MAGIC && (HEADER..=BLOB_MAX).contains(&len)).then_some(len)
}

/// The word at `offset`, if it is there.
pub fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

fn be64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from(be32(bytes, offset)?) << 32 | u64::from(be32(bytes, offset.checked_add(4)?)?))
}

/// A blob whose parts lie inside it.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    reserved: &'a [u8],
}

impl<'a> Blob<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Wrong> {
        let bytes = blob_len(bytes).and_then(|len| bytes.get(..len)).ok_or(DAMAGED)?;
        let part = |at: usize, len: usize| {
            let start = be32(bytes, at)? as usize;
            bytes.get(start..start.checked_add(be32(bytes, len)? as usize)?)
        };
        let reserved = be32(bytes, 16).and_then(|start| bytes.get(start as usize..)).ok_or(DAMAGED)?;
        Ok(Self { structure: part(8, 36).ok_or(DAMAGED)?, strings: part(12, 32).ok_or(DAMAGED)?, reserved })
    }

    /// Memory that is not to be touched (5.3): a list that ends with an entry of zeros.
    pub fn reserved(&self) -> impl Iterator<Item = Result<Range, Wrong>> + 'a {
        let mut list = self.reserved.chunks_exact(16).map(|entry| be64(entry, 0).zip(be64(entry, 8)));
        let mut over = false;
        core::iter::from_fn(move || {
            if core::mem::replace(&mut over, true) {
                return None;
            }
            match list.next().flatten() {
                // Cut off before its end.
                None => Some(Err(DAMAGED)),
                Some((0, 0)) => None,
                Some((base, len)) => {
                    over = false;
                    Some(Range::new(base, len).ok_or(Wrong::Range("reserved memory", base, len)))
                }
            }
        })
    }

    /// All nodes, each before those inside it.
    pub fn nodes(&self) -> Nodes<'a> {
        Nodes { blob: *self, at: 0, depth: 0, over: false }
    }

    fn name(&self, offset: u32) -> Option<&'a str> {
        text(self.strings.get(offset as usize..)?)
    }
}

/// A string that ends with a zero.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(&bytes[..end]).ok()
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// With its unit address; the root's is empty.
    pub name: &'a str,
    /// 0: the root.
    pub depth: usize,
    blob: Blob<'a>,
    /// Offset of its properties in the structure.
    at: usize,
}

impl<'a> Node<'a> {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        let mut at = self.at;
        loop {
            match self.blob.token(&mut at)? {
                Token::Property { name: found, value } if found == name => return Some(value),
                Token::Property { .. } | Token::Nothing => {}
                // Properties come before the nodes inside (5.4.2).
                Token::Begin(_) | Token::EndOfNode | Token::End => return None,
            }
        }
    }

    /// The text of a property.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        text(self.property(name)?)
    }

    /// A property that is one number.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.property(name).filter(|value| value.len() == 4).and_then(|value| be32(value, 0))
    }

    /// Whether it says that it is one of these.
    pub fn is_compatible(&self, with: &[&str]) -> bool {
        let list = self.property("compatible").unwrap_or_default();
        list.split(|byte| *byte == 0).any(|one| with.iter().any(|name| name.as_bytes() == one))
    }

    /// Whether it is in use (2.3.4).
    pub fn is_on(&self) -> bool {
        self.text("status").is_none_or(|status| status == "okay" || status == "ok")
    }
}

enum Token<'a> {
    Begin(&'a str),
    EndOfNode,
    Property { name: &'a str, value: &'a [u8] },
    Nothing,
    End,
}

impl<'a> Blob<'a> {
    /// The token at `at`, which goes on behind it; `None` if there is none that we know.
    fn token(&self, at: &mut usize) -> Option<Token<'a>> {
        let kind = be32(self.structure, *at)?;
        *at += 4;
        Some(match kind {
            BEGIN_NODE => {
                let name = text(self.structure.get(*at..)?)?;
                *at += (name.len() + 1).next_multiple_of(4);
                Token::Begin(name)
            }
            END_NODE => Token::EndOfNode,
            PROP => {
                let len = be32(self.structure, *at)? as usize;
                let name = self.name(be32(self.structure, *at + 4)?)?;
                let start = *at + 8;
                let value = self.structure.get(start..start.checked_add(len)?)?;
                *at = start + len.next_multiple_of(4);
                Token::Property { name, value }
            }
            NOP => Token::Nothing,
            END => Token::End,
            _ => return None,
        })
    }
}

/// Iterator over nodes. What is damaged ends it with an error.
pub struct Nodes<'a> {
    blob: Blob<'a>,
    at: usize,
    /// Nodes that are open.
    depth: usize,
    over: bool,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Result<Node<'a>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.blob.token(&mut self.at) {
                Some(Token::Begin(name)) if self.depth < DEPTH_MAX => {
                    self.depth += 1;
                    return Some(Ok(Node { name, depth: self.depth - 1, blob: self.blob, at: self.at }));
                }
                Some(Token::EndOfNode) if self.depth > 0 => self.depth -= 1,
                Some(Token::Property { .. }) if self.depth > 0 => {}
                Some(Token::Nothing) => {}
                Some(Token::End) if self.depth == 0 => self.over = true,
                _ => {
                    self.over = true;
                    return Some(Err(DAMAGED));
                }
            }
        }
        None
    }
}
