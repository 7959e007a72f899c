//! Laws.

#[cfg(test)]
mod label;
