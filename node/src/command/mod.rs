//! The subcommands, each in its own file, and their common code: the control connection, tables,
//! printing.

pub(crate) mod ask;
pub(crate) mod bench;
mod change;
pub(crate) mod config;
pub(crate) mod conform;
mod control_connection;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod label;
mod print;
pub(crate) mod relay;
pub(crate) mod scheme;
pub(crate) mod show;
pub(crate) mod slot;
