//! The subcommands, one file each.

pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod conform;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod label;
pub(crate) mod relay;
pub(crate) mod show;
