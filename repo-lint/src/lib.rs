//! Checks of the repository, run as tests: `cargo test -p strowger-repo-lint`.
