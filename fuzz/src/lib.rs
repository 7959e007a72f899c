//! Properties of Strowger under random and coverage-guided input; see README.md.

#[cfg(test)]
mod api;
#[cfg(test)]
mod connection;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crypto;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod label;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod step;
#[cfg(test)]
mod unix;
