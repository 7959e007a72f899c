//! Tests that the crate needs neither `std` nor `alloc`, so that a program without an operating
//! system can link it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the crate as a library without features, in a separate target directory.
fn built() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("freestanding");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "strowger-wire", "--no-default-features"])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs this test, so it is there");
    assert!(built.success(), "the crate builds");
    target.join("debug")
}

/// Compiles `freestanding/lib.rs` against the library in `built`, with this `cfg` condition.
fn compile(built: &Path, condition: &str) -> Output {
    Command::new(option_env!("RUSTC").unwrap_or("rustc"))
        .args(["--edition", "2024", "--crate-type", "staticlib", "--crate-name", "freestanding"])
        .args(["-C", "panic=abort", "-C", "opt-level=2", "--cfg", condition])
        .arg("--extern")
        .arg(format!("strowger_wire={}", built.join("libstrowger_wire.rlib").display()))
        .arg("-L")
        .arg(built.join("deps"))
        .arg("-o")
        .arg(built.join(format!("libfreestanding_{condition}.a")))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/freestanding/lib.rs"))
        .output()
        .expect("rustc runs")
}

#[test]
fn a_program_without_std_and_without_an_allocator_links_the_crate() {
    let built = built();
    let output = compile(&built, "alone");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The check must detect a dependency on either of them.
    for (condition, message) in
        [("with_std", "panic_impl"), ("with_alloc", "global memory allocator")]
    {
        let output = compile(&built, condition);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(message), "{condition}: {stderr}");
    }
}
