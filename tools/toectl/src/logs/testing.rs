//! A firmware of two messages, and what it logs.

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::image::Image;

/// Its build id.
pub const BUILD: &str = "0102030405";

/// Its messages by number: where defmt's linker script would have put their names.
const MESSAGES: [(u64, &str, &str); 2] = [(1, "defmt_info", "hello {=u8}"), (2, "defmt_warn", "careful, {=str}")];

/// The firmware; `name` is the test's.
pub fn image(name: &str) -> Image {
    let path = std::env::temp_dir().join(format!("toectl-elf-{name}-{}", std::process::id()));
    std::fs::write(&path, elf()).expect("written");
    let image = Image::open(&path);
    std::fs::remove_file(&path).expect("removed");
    image.expect("a firmware")
}

fn elf() -> Vec<u8> {
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
    let section = elf.add_section(Vec::new(), b".defmt".to_vec(), SectionKind::Other);
    elf.append_section_data(section, &[0; 8], 1);
    let note = elf.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
    elf.append_section_data(note, &[4, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0, 1, 2, 3, 4, 5, 0, 0, 0], 4);
    let mut symbol = |name: String, value: u64, section: SymbolSection| {
        let (kind, scope, flags) = (SymbolKind::Data, SymbolScope::Dynamic, SymbolFlags::None);
        elf.add_symbol(Symbol { name: name.into_bytes(), value, size: 1, kind, scope, weak: false, section, flags });
    };
    symbol("_defmt_version_ = 4".into(), 0, SymbolSection::Absolute);
    symbol("_defmt_encoding_ = rzcobs".into(), 0, SymbolSection::Absolute);
    for (number, tag, data) in MESSAGES {
        let name =
            serde_json::json!({"package": "card", "tag": tag, "data": data, "disambiguator": number.to_string(), "crate_name": "card"});
        symbol(name.to_string(), number, SymbolSection::Section(section));
    }
    elf.write().expect("an ELF file")
}

/// "hello 7", at level info: a 0, three bytes in rzCOBS (1, 0, 7), a 0.
pub const HELLO: &[u8] = &[0, 1, 7, 0x7a, 0];

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
