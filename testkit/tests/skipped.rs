//! Prints the number of skipped tests of this run, and the reasons. This target has no test
//! harness, so that its output is also shown on success.
//!
//! Cargo runs the packages of a workspace in the order of their names. This package comes after all
//! packages whose tests can be skipped.

fn main() {
    // With `--list` print nothing: tools expect only a list of tests.
    if !std::env::args().any(|argument| argument == "--list") {
        print!("{}", strowger_testkit::skipped::summary());
    }
}
