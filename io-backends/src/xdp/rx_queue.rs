//! Receiving by AF_XDP: chunks are lent to the kernel and come back as frames. A chunk that is lent
//! is kept here, so nobody else can reach it before the kernel has given it back.

use strowger_frame::{
    Burst, Chunk, ChunkClass, Loss, Pool,
    port::{KernelDrop, PortTally},
};

use super::{
    limits::{DESCRIPTORS_MAX, UMEM_CHUNK_BYTES},
    neighbours::Neighbours,
    socket::{Descriptor, Rings},
};

/// What is lent, and what is ready to be.
pub(super) struct RxQueue {
    /// By the chunk's place in the mapping.
    lent: Box<[Option<Chunk>]>,
    lent_count: usize,
    lent_max: usize,
    /// The chunks count for the port.
    charged: bool,
    /// Ours, but not lent: the fill ring was full, or what came in it was no good.
    idle: Vec<Chunk>,
    /// The last descriptor said that its frame goes on in the next: too long for a chunk.
    is_multi_buffer: bool,
}

impl RxQueue {
    /// Room for the chunks of a mapping of `bytes`, of which `lent_max` are lent at most.
    pub(super) fn new(bytes: usize, lent_max: usize) -> Self {
        Self {
            lent: (0..bytes / UMEM_CHUNK_BYTES).map(|_| None).collect(),
            lent_count: 0,
            lent_max,
            charged: false,
            idle: Vec::with_capacity(lent_max),
            is_multi_buffer: false,
        }
    }

    /// Chunks that the kernel may write into.
    pub(super) fn lent(&self) -> usize {
        self.lent_count
    }

    /// Takes in what has arrived. `pool_is_ours`: its chunks may be lent in their turn; if not,
    /// frames are copied into it.
    pub(super) fn rx_burst(
        &mut self,
        rings: &mut Rings,
        neighbours: &mut Neighbours,
        tally: &PortTally,
        (pool, pool_is_ours): (&mut Pool, bool),
        burst: &mut Burst,
    ) -> usize {
        let (mut frames, mut bytes, mut came) = (0, 0, 0);
        // Bounded, since a flood of unknown senders' frames never fills a burst.
        while !burst.is_full() && came < DESCRIPTORS_MAX {
            let Some(descriptor) = rings.rx.take() else { break };
            came += 1;
            let Some(mut chunk) = self.taken_back(&descriptor) else {
                // A chunk that we have not lent: the kernel's mistake, and nothing to give back.
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
        if came > 0 {
            rings.rx.release();
            tally.frames_in.add(frames);
            tally.bytes_in.add(bytes);
            tally.trains_in.add(1);
        }
        if pool_is_ours && !self.charged {
            self.charge(pool);
        }
        self.lend(rings, pool_is_ours.then_some(pool));
        if self.lent_count == 0 {
            tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
        }
        came
    }

    /// The first chunks were taken when the port was opened, for nobody in particular.
    #[cold]
    fn charge(&mut self, pool: &mut Pool) {
        self.charged = true;
        let lent = self.lent.iter().flatten();
        lent.chain(&self.idle).for_each(|chunk| pool.charge(chunk));
    }

    /// Chunks that it lends at most.
    pub(super) fn chunks_max(&self) -> u32 {
        self.lent_max as u32
    }

    fn taken_back(&mut self, descriptor: &Descriptor) -> Option<Chunk> {
        let at = usize::try_from(descriptor.addr).ok()? / UMEM_CHUNK_BYTES;
        let chunk = self.lent.get_mut(at)?.take()?;
        self.lent_count -= 1;
        Some(chunk)
    }

    /// Lends chunks until as many are lent as are to be, or no more are to be had.
    pub(super) fn lend(&mut self, rings: &mut Rings, mut pool: Option<&mut Pool>) {
        while self.lent_count < self.lent_max {
            let idle = self.idle.pop();
            let fresh = || pool.as_mut().and_then(|pool| pool.take(ChunkClass::Single));
            let Some(chunk) = idle.or_else(fresh) else { break };
            let Some(offset) = self.offset_of(rings, &chunk) else { continue };
            // The kernel says late what it has taken, so there may be no room where there is.
            if !rings.fill.put(offset as u64) {
                self.idle.push(chunk);
                break;
            }
            self.lent[offset / UMEM_CHUNK_BYTES] = Some(chunk);
            self.lent_count += 1;
        }
        rings.fill.publish();
    }

    fn offset_of(&self, rings: &Rings, chunk: &Chunk) -> Option<usize> {
        rings.mapping.offset_of(chunk.at().as_ptr(), UMEM_CHUNK_BYTES)
    }

    /// The kernel may still write into what is lent, and will not say when it no longer does: the
    /// chunks are nobody's from here on, on purpose.
    pub(super) fn abandon(&mut self) {
        for chunk in &mut self.lent {
            std::mem::forget(chunk.take());
        }
    }
}
