//! Sources of random bytes. The caller passes a source, so a simulator can pass a seeded one.

use strowger_wire::limits::KEY_BYTES;

use crate::secret::mac;

/// The source of randomness failed. No key was derived from its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the source of randomness failed")]
pub struct EntropyFailed;

/// A source of unpredictable random bytes.
pub trait Entropy {
    /// Fills `bytes` completely, or fails.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed>;
}

/// The operating system's source. It has no state, so it is safe after a fork.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        getrandom::fill(bytes).map_err(|_| EntropyFailed)
    }
}

/// A deterministic source: **for simulators and tests, never for real keys.**
pub struct SeededEntropy {
    seed: [u8; KEY_BYTES],
    drawn: u64,
}

impl SeededEntropy {
    /// Makes a source whose output is determined by `seed`.
    pub fn new(seed: u64) -> SeededEntropy {
        let mut bytes = [0; KEY_BYTES];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        SeededEntropy { seed: bytes, drawn: 0 }
    }

    /// The next 64-bit number.
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
