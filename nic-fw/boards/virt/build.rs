//! Links the image by `linker/virt.ld`, and defmt's strings by defmt's own `defmt.x`. Only for the target without an operating system:
//! elsewhere there is nothing to place.

use std::path::Path;

fn main() {
    let linker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../linker");
    println!("cargo::rerun-if-changed={}", linker.display());
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=-L{}", linker.display());
        println!("cargo::rustc-link-arg-bins=-Tvirt.ld");
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
        // Into the window and the file: `toectl logs` decodes by the file of this very build.
        println!("cargo::rustc-link-arg-bins=--build-id=sha1");
        // defmt's macros leave out what is below this level; without it, all but errors.
        println!("cargo::rerun-if-env-changed=DEFMT_LOG");
        let level = std::env::var("DEFMT_LOG").unwrap_or_else(|_| "info".into());
        println!("cargo::rustc-env=DEFMT_LOG={level}");
        // What no output section takes is an error, not put somewhere.
        println!("cargo::rustc-link-arg-bins=--orphan-handling=error");
    }
}
