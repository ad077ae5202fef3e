//! Links with the layout of `aarch64-rt`, in the memory of the board, and with the table of `defmt`'s messages.

fn main() {
    println!("cargo::rustc-link-search={}", std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    for script in ["image.ld", "memory.ld", "defmt.x"] {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
    println!("cargo::rerun-if-changed=memory.ld");
}
