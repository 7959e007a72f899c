//! BLAKE2s for Noise, and an HKDF over it that hashes the key block once. The HKDF stores the
//! direction keys in the scratch space.

use std::sync::Arc;

use blake2::digest::block_api::{Buffer, UpdateCore, VariableOutputCore};
use blake2::{Blake2s256, Blake2sVarCore, Digest};
use snow::types::Hash;
use strowger_wire::limits::KEY_BYTES;
use zeroize::{Zeroize, Zeroizing};

use super::noise::Scratch;
use crate::secret::Secret;

const BLOCK_BYTES: usize = 64;
const HASH_BYTES: usize = 32;
const _: () = assert!(HASH_BYTES == KEY_BYTES);

/// BLAKE2s as snow's hash.
pub(super) struct Blake2s {
    state: Blake2s256,
    scratch: Arc<Scratch>,
}

impl Blake2s {
    pub(super) fn new(scratch: Arc<Scratch>) -> Blake2s {
        Blake2s { state: Blake2s256::new(), scratch }
    }
}

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        BLOCK_BYTES
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }

    fn reset(&mut self) {
        self.state = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = core::mem::take(&mut self.state).finalize();
        out[..HASH_BYTES].copy_from_slice(&hash);
    }

    /// HKDF as Noise defines it. The two key blocks of an HMAC are hashed once, for two or three
    /// outputs.
    ///
    /// This saves a sixth to a quarter of the work; apart from the curve operations, HKDF is most
    /// of the cost of a handshake.
    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        input_key_material: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        out3: &mut [u8],
    ) {
        let mut key = Zeroizing::new([0; HASH_BYTES]);
        self.hmac(chaining_key, input_key_material, &mut *key);
        let mac = HmacKey::new(&key);
        let mut input = Zeroizing::new([0; HASH_BYTES + 1]);
        for (place, out) in [&mut *out1, &mut *out2, out3].into_iter().take(outputs).enumerate() {
            input[HASH_BYTES] = place as u8 + 1; // three at most
            // The first output covers only the number. Each later output covers the previous output
            // and the number.
            let covered = if place == 0 { &input[HASH_BYTES..] } else { &input[..] };
            let made = mac.of(covered);
            out[..HASH_BYTES].copy_from_slice(&*made);
            input[..HASH_BYTES].copy_from_slice(&*made);
        }
        // Noise derives the direction keys, and nothing else, from the chaining key with an empty
        // input.
        if input_key_material.is_empty() {
            let key = |out: &[u8]| Secret::from_bytes(*out.first_chunk().expect("a whole hash"));
            self.scratch.put_split((key(out1), key(out2)));
        }
    }
}

/// HMAC-BLAKE2s under one key: both states after the key block. It is erased on drop.
struct HmacKey {
    inner: Blake2sVarCore,
    outer: Blake2sVarCore,
}

impl HmacKey {
    fn new(key: &[u8; HASH_BYTES]) -> HmacKey {
        let keyed = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK_BYTES]);
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut core = core();
            core.update_blocks(&[(*block).into()]);
            core
        };
        HmacKey { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    /// The mac of `covered`, which must not be empty. BLAKE2 marks its last block, and the key
    /// block has been hashed as a block that is not the last one.
    fn of(&self, covered: &[u8]) -> Zeroizing<[u8; HASH_BYTES]> {
        debug_assert!(!covered.is_empty(), "HKDF's inputs end with their number");
        let inner = finish(self.inner.clone(), covered);
        finish(self.outer.clone(), &*inner)
    }
}

fn core() -> Blake2sVarCore {
    Blake2sVarCore::new(HASH_BYTES).expect("BLAKE2s gives 32 bytes")
}

fn finish(mut core: Blake2sVarCore, last: &[u8]) -> Zeroizing<[u8; HASH_BYTES]> {
    let mut buffer = Buffer::<Blake2sVarCore>::default();
    buffer.digest_blocks(last, |blocks| core.update_blocks(blocks));
    let mut hash = Default::default();
    core.finalize_variable_core(&mut buffer, &mut hash);
    let made = Zeroizing::new(hash.into());
    hash.zeroize();
    made
}
