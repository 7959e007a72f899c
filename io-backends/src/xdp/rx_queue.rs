//! Receives over AF_XDP: chunks are posted to the kernel, which returns them as frames.
//!
//! A posted chunk is kept here, so that nothing else can access it before the kernel returns it.

use strowger_frame::{
    Burst, Chunk, ChunkClass, Loss, Pool,
    port::{KernelDrop, PortTally},
};

use super::{
    limits::{DESCRIPTORS_MAX, UMEM_CHUNK_BYTES},
    neighbours::Neighbours,
    socket::{Descriptor, Rings},
};

/// The chunks that are posted, and those that are ready to be posted.
pub(super) struct RxQueue {
    /// Posted chunks by their index in the mapping.
    posted: Box<[Option<Chunk>]>,
    posted_count: usize,
    posted_max: usize,
    /// Whether the pool already counts the port's first chunks (see `charge`).
    charged: bool,
    /// Chunks of the port that are not posted, because the fill ring was full or the received frame
    /// was dropped.
    idle: Vec<Chunk>,
    /// Whether the frame of the last descriptor continues in the next one. Such a frame is too long
    /// for a chunk.
    is_multi_buffer: bool,
}

impl RxQueue {
    /// Makes room for the chunks of a mapping of `bytes`. At most `posted_max` of them are posted.
    pub(super) fn new(bytes: usize, posted_max: usize) -> Self {
        Self {
            posted: (0..bytes / UMEM_CHUNK_BYTES).map(|_| None).collect(),
            posted_count: 0,
            posted_max,
            charged: false,
            idle: Vec::with_capacity(posted_max),
            is_multi_buffer: false,
        }
    }

    /// Number of chunks into which the kernel may write.
    pub(super) fn posted(&self) -> usize {
        self.posted_count
    }

    /// Receives a burst.
    ///
    /// If `pool_is_ours`, the chunks belong to the pool, which also supplies new ones. Otherwise
    /// frames are copied into the pool. Returns the number of descriptors that were taken.
    pub(super) fn rx_burst(
        &mut self,
        rings: &mut Rings,
        neighbours: &mut Neighbours,
        tally: &PortTally,
        (pool, pool_is_ours): (&mut Pool, bool),
        burst: &mut Burst,
    ) -> usize {
        let (mut frames, mut bytes, mut descriptors) = (0, 0, 0);
        // The loop is bounded: a flood from unknown senders does not fill the burst.
        while !burst.is_full() && descriptors < DESCRIPTORS_MAX {
            let Some(descriptor) = rings.rx.take() else { break };
            descriptors += 1;
            let Some(mut chunk) = self.take_filled(&descriptor) else {
                // This chunk was not posted, which is a bug of the kernel. There is no chunk to
                // return.
                frames += 1;
                tally.count_loss(Loss::Malformed, 1);
                continue;
            };
            let whole = !self.is_multi_buffer;
            self.is_multi_buffer = descriptor.options & libc::XDP_PKT_CONTD != 0;
            if self.is_multi_buffer || !whole {
                if !self.is_multi_buffer {
                    frames += 1;
                    tally.count_loss(Loss::Truncated, 1);
                }
                self.idle.push(chunk);
                continue;
            }
            frames += 1;
            let start = descriptor.addr as usize % UMEM_CHUNK_BYTES;
            let end = start.saturating_add(descriptor.len as usize);
            let seen = match chunk.bytes_mut().get(start..end) {
                Some(frame) => neighbours.shape().read(frame).and_then(|(source, begin, len)| {
                    let mark = neighbours.whose(source).ok_or(Loss::UnknownSender)?;
                    Ok((mark, start + begin, len))
                }),
                None => Err(Loss::Malformed),
            };
            let (mark, begin, len) = match seen {
                Ok(seen) => seen,
                Err(loss) => {
                    bytes += u64::from(descriptor.len);
                    tally.count_loss(loss, 1);
                    self.idle.push(chunk);
                    continue;
                }
            };
            bytes += len as u64;
            let frame = if pool_is_ours {
                Some(chunk.into_frame(begin, len))
            } else {
                let copy = pool.copy_bytes(&chunk.bytes_mut()[begin..begin + len]);
                self.idle.push(chunk);
                copy
            };
            match frame {
                Some(mut frame) => {
                    frame.set_mark(mark);
                    burst.push(frame);
                }
                None => tally.count_loss(Loss::PoolEmpty, 1),
            }
        }
        if descriptors > 0 {
            rings.rx.release();
            tally.frames_in.add(frames);
            tally.bytes_in.add(bytes);
            tally.trains_in.add(1);
        }
        if pool_is_ours && !self.charged {
            self.charge(pool);
        }
        self.post(rings, pool_is_ours.then_some(pool));
        if self.posted_count == 0 {
            tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
        }
        descriptors
    }

    /// Counts the first chunks, which were taken when the port was opened, as chunks of this port.
    #[cold]
    fn charge(&mut self, pool: &mut Pool) {
        self.charged = true;
        let posted = self.posted.iter().flatten();
        posted.chain(&self.idle).for_each(|chunk| pool.charge(chunk));
    }

    /// Maximum number of posted chunks.
    pub(super) fn chunks_max(&self) -> u32 {
        self.posted_max as u32
    }

    fn take_filled(&mut self, descriptor: &Descriptor) -> Option<Chunk> {
        let at = usize::try_from(descriptor.addr).ok()? / UMEM_CHUNK_BYTES;
        let chunk = self.posted.get_mut(at)?.take()?;
        self.posted_count -= 1;
        Some(chunk)
    }

    /// Posts chunks up to the maximum, as long as there are free ones.
    pub(super) fn post(&mut self, rings: &mut Rings, mut pool: Option<&mut Pool>) {
        while self.posted_count < self.posted_max {
            let idle = self.idle.pop();
            let fresh = || pool.as_mut().and_then(|pool| pool.take(ChunkClass::Single));
            let Some(chunk) = idle.or_else(fresh) else { break };
            let Some(offset) = self.offset_of(rings, &chunk) else { continue };
            // The kernel reports with a delay which entries it has taken, so the ring may seem to
            // be full.
            if !rings.fill.put(offset as u64) {
                self.idle.push(chunk);
                break;
            }
            self.posted[offset / UMEM_CHUNK_BYTES] = Some(chunk);
            self.posted_count += 1;
        }
        rings.fill.publish();
    }

    fn offset_of(&self, rings: &Rings, chunk: &Chunk) -> Option<usize> {
        rings.mapping.offset_of(chunk.at().as_ptr(), UMEM_CHUNK_BYTES)
    }

    /// Leaks the posted chunks, because the kernel may still write into them and does not report
    /// when it stops.
    pub(super) fn abandon(&mut self) {
        for chunk in &mut self.posted {
            std::mem::forget(chunk.take());
        }
    }
}
