//! Links the image by `linker/virt.ld`. Only for the target without an operating system: elsewhere there is nothing to place.

use std::path::Path;

fn main() {
    let linker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../linker");
    println!("cargo::rerun-if-changed={}", linker.display());
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=-L{}", linker.display());
        println!("cargo::rustc-link-arg-bins=-Tvirt.ld");
        // What no output section takes is an error, not put somewhere.
        println!("cargo::rustc-link-arg-bins=--orphan-handling=error");
    }
}
