//! Laws.

#[cfg(test)]
mod crypto;
#[cfg(test)]
mod label;
