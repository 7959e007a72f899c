//! A relay with a configuration file, a control socket, a journal and a log.

mod attach;
pub(crate) mod builder;
mod changes;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod files;
pub(crate) mod journal;
pub(crate) mod log;
mod logged;
mod questions;
mod requests;
pub(crate) mod signals;
pub(crate) mod waiting;
pub(crate) mod watch;
mod words;

pub(crate) use self::{requests::RequestSender, waiting::is_here};
