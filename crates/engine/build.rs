//! Builds the injected interpreter (`inject/main.rs`) into one flat block of code for `include_bytes!`.
//!
//! It is compiled apart from the engine because it must be free of the standard library, always optimized (at
//! opt-level 0 it would call into `core`) and linked by a script that refuses data and relocations.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=inject");
    println!("cargo::rerun-if-changed=src/ops.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    assert!(
        target.starts_with("x86_64-"),
        "the process engine supports x86-64 only; this build is for {target}"
    );
    let rustc = std::env::var_os("RUSTC").expect("cargo sets RUSTC");
    let object = out.join("inject.o");
    run(Command::new(rustc)
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=inject", "--emit=obj", "--target"])
        .arg(&target)
        .args(["-Copt-level=3", "-Cpanic=abort", "-Crelocation-model=pic", "-Ccodegen-units=1"])
        .args(["-Cforce-unwind-tables=no", "-Coverflow-checks=no", "-Cdebug-assertions=no", "-o"])
        .arg(&object)
        .arg("inject/main.rs"));
    let linked = out.join("inject.elf");
    run(Command::new("ld")
        .args(["-nostdlib", "-static", "-T", "inject/link.ld", "-o"])
        .arg(&linked)
        .arg(&object));
    let flat = out.join("inject.bin");
    run(Command::new("objcopy").args(["-O", "binary"]).arg(&linked).arg(&flat));
    check_size(&flat);
}

/// A block of more than a few pages means that something of the standard library came along.
fn check_size(flat: &Path) {
    let bytes = std::fs::metadata(flat).expect("objcopy wrote the block").len();
    assert!((1..=16384).contains(&bytes), "the interpreter is {bytes} bytes long");
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(status.success(), "{command:?} failed: {status}");
}
