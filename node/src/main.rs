//! The command `strowger`.
fn main() {}
