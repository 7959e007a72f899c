//! `strowger config`: checks a configuration.

pub(crate) mod check;
mod in_use;
