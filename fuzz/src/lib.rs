//! Properties of Strowger under random and coverage-guided input; see README.md.

#[cfg(test)]
mod control;
#[cfg(test)]
mod crypto;
#[cfg(test)]
mod label;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod step;
