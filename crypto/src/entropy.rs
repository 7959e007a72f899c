//! Where random bytes come from: an argument, so that a simulator can pass a seed.

use strowger_wire::limits::KEY_BYTES;

use crate::secret::mac;

/// The source of randomness failed. Nothing was made with what it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct EntropyFailed;

/// A source of random bytes that nobody else can predict.
pub trait Entropy {
    /// Fills `bytes` or fails; it never fills them in part and succeeds.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed>;
}

/// The operating system's. What a node uses. Keeps no state of its own, so a forked process is safe with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        getrandom::fill(bytes).map_err(|_| EntropyFailed)
    }
}

/// The same bytes for the same seed: **for simulators and tests, never for a key that matters.**
pub struct SeededEntropy {
    seed: [u8; KEY_BYTES],
    drawn: u64,
}

impl SeededEntropy {
    /// A source whose whole output this seed determines.
    pub fn new(seed: u64) -> SeededEntropy {
        let mut bytes = [0; KEY_BYTES];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        SeededEntropy { seed: bytes, drawn: 0 }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let block = mac(&self.seed, "strowger simulated entropy", &[&self.drawn.to_be_bytes()]);
        self.drawn += 1;
        let mut first = [0; 8];
        first.copy_from_slice(&block[..8]);
        u64::from_be_bytes(first)
    }
}

impl core::fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SeededEntropy").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        for piece in bytes.chunks_mut(8) {
            let word = self.next_u64().to_be_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        Ok(())
    }
}
