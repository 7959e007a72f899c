//! Sessions between two nodes on an impaired link, in virtual time.

mod attempts;
mod rekey;
mod sim;
