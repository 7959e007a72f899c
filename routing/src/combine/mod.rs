//! Combinators, which make a source of routes from other sources. Each has a law, which
//! `tests/laws` checks on random sources.
//!
//! | combinator | law |
//! |---|---|
//! | [`First`] | the second source is asked only if the first one has found nothing |
//! | [`Both`] | the union without duplicates; routes that are known at the same time come best first |
//! | [`Cached`] | an answer is repeated for a time without asking the source; the number of answers is limited |
//! | [`Budgeted`] | the source gets at most so many lookups per second and in progress; the others end immediately |
//! | [`Filtered`] | exactly the candidates (or paths) that fulfil a predicate |
//! | [`Scoped`] | private addresses only on the own segments |
//!
//! The ends of lookups follow the rules of [`PeerRouting`](crate::PeerRouting) if those of the
//! sources do.

mod both;
mod budgeted;
mod cached;
mod filtered;
mod first;
mod scoped;

pub use both::Both;
pub use budgeted::{Budget, Budgeted};
pub use cached::Cached;
pub use filtered::Filtered;
pub use first::First;
pub use scoped::{BadPrefix, IpPrefix, Scoped};
