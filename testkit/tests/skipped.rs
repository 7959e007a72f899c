//! Prints how many tests of this run were skipped, and why. It has no harness, so that its output
//! is also shown on success.
//!
//! Cargo runs the packages of a workspace in the order of their names. This package comes after all
//! packages whose tests can be skipped.

fn main() {
    // Tools that list tests expect no other output.
    if !std::env::args().any(|argument| argument == "--list") {
        print!("{}", strowger_testkit::skipped::summary());
    }
}
