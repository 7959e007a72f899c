//! Laws of Strowger under random and coverage-guided input; README.md says how. Nothing here is
//! ever part of a program.

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
