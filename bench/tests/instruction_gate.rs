//! Compares the instructions of a switch step with a stored number. It does not compare times,
//! because they are noise on most machines. Without valgrind the test is skipped.

use std::{path::PathBuf, process::Command};

use strowger_bench::instructions;

/// Bytes of each packet.
const SIZE: usize = 64;

/// The content of `instructions.toml`.
struct Stored {
    instructions: f64,
    tolerance: f64,
    rustc: String,
}

/// Reads `instructions.toml` without a TOML parser, because it holds only two numbers and a word.
fn stored() -> Stored {
    let text = include_str!("../instructions.toml");
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        value.unwrap_or_else(|| panic!("instructions.toml says {key}"))
    };
    let number = |key| value(key).parse().unwrap_or_else(|why| panic!("{key}: {why}"));
    Stored {
        instructions: number("instructions_per_packet_and_switch"),
        tolerance: number("tolerance"),
        rustc: value("rustc").trim_matches('"').to_owned(),
    }
}

/// Builds the example with the release profile and returns its path. Its package has few
/// dependencies, so that this takes little time. The build uses the target directory of this test,
/// so that other release builds share its artifacts.
fn build_icount() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "strowger-bench-chain", "--example", "icount"])
        .arg("--target-dir")
        .arg(&target)
        // Flags of a coverage or sanitizer run must be removed, because they would change the
        // count. An incremental build would change it as well, because less is inlined across its
        // smaller units.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_INCREMENTAL")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs this test, so it is there");
    assert!(built.success(), "the example icount does not build");
    target.join("release/examples/icount")
}

fn rustc_version() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output.unwrap_or_default().split(' ').nth(1).unwrap_or("unknown").to_owned()
}

#[test]
fn a_step_takes_no_more_instructions_than_stored() {
    if let Err(why) = instructions::valgrind() {
        return strowger_testkit::unsupported(&format!("the instruction gate: {why}"));
    }
    let counted = match instructions::per_step(&build_icount(), SIZE) {
        Ok(counted) => counted,
        Err(why) => panic!("valgrind is here, but could not count: {why}"),
    };
    let Stored { instructions, tolerance, rustc } = stored();
    let here = rustc_version();
    let percent = 100.0 * (counted / instructions - 1.0);
    println!(
        "{counted:.1} instructions a packet and switch; stored are {instructions:.1} \
         ({percent:+.1} %), by rustc {rustc}; this is rustc {here}"
    );
    assert!(
        counted <= instructions * (1.0 + tolerance),
        "a step takes {counted:.1} instructions, {percent:+.1} % of the {instructions:.1} stored in \
         bench/instructions.toml (by rustc {rustc}; this is {here}). Find out what has grown, or \
         store the new figure and say why"
    );
    if counted < instructions * (1.0 - tolerance) {
        eprintln!(
            "\nNOTE: a step takes {percent:.1} % fewer instructions than stored. Keep the gain: \
             write {counted:.1} into bench/instructions.toml\n"
        );
    }
}
