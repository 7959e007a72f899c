//! A relay with a configuration file, a control socket, a journal and a log.

mod attach;
pub(crate) mod book;
pub(crate) mod builder;
mod changes;
pub(crate) mod config;
pub(crate) mod control;
mod event_text;
mod events;
pub(crate) mod files;
mod journal;
mod log;
mod network_wait;
pub(crate) mod output;
mod pending;
mod requests;
mod rfc3339;
mod run;
mod signals;

use self::requests::RequestSender;
pub(crate) use self::run::run;
