//! Sessions between two nodes on an impaired link, in virtual time.

mod attempts;
mod connections;
mod initiations;
mod rekey;
mod sim;
