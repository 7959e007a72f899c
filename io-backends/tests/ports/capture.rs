//! Tests of captures. The files are read by a reader that shares only the specification with the
//! writer.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port, alloc};
use strowger_io::{
    MemoryPort,
    capture::{Capture, CaptureSpec},
    memory,
};

const HERE: Mark = Mark(1);

/// A file in memory. The test can block its writer.
#[derive(Clone, Default)]
struct Paper {
    written: Arc<Mutex<Vec<u8>>>,
    held_up: Arc<Mutex<()>>,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _wait = self.held_up.lock().expect("no panic");
        self.written.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Options = Vec<(u16, Vec<u8>)>;

#[derive(Debug, PartialEq)]
enum Block {
    Section(Options),
    Interface { link_type: u16, snap: u32, options: Options },
    Packet { at_ns: u64, bytes: Vec<u8>, len: u32, options: Options },
    Statistics(Options),
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"))
}

fn options(mut bytes: &[u8]) -> Options {
    let mut found = Vec::new();
    loop {
        let (code, len) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            assert_eq!((len, bytes.len()), (0, 4), "the end of options ends the block");
            return found;
        }
        found.push((code, bytes[4..4 + len].to_vec()));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
}

fn read(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let (kind, total) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert_eq!((total % 4, u32_at(file, total - 4) as usize), (0, total));
        let body = &file[8..total - 4];
        blocks.push(match kind {
            0x0a0d_0d0a => {
                assert_eq!((u32_at(body, 0), u16_at(body, 4)), (0x1a2b_3c4d, 1));
                Block::Section(options(&body[16..]))
            }
            1 => Block::Interface {
                link_type: u16_at(body, 0),
                snap: u32_at(body, 4),
                options: options(&body[8..]),
            },
            6 => {
                let kept = u32_at(body, 12) as usize;
                Block::Packet {
                    at_ns: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    bytes: body[20..20 + kept].to_vec(),
                    len: u32_at(body, 16),
                    options: options(&body[20 + kept.next_multiple_of(4)..]),
                }
            }
            5 => Block::Statistics(options(&body[12..])),
            other => panic!("a block of kind {other:#x}"),
        });
        file = &file[total..];
    }
    blocks
}

struct Wire {
    near: Capture<MemoryPort>,
    far: MemoryPort,
    pool: Pool,
    paper: Paper,
}

impl Wire {
    fn new(spec: &CaptureSpec) -> Self {
        let (near, mut far) = memory::wire(256).expect("descriptors");
        let paper = Paper::default();
        let mut now = 0x0123_4567_89ab_cdef_u64;
        let clock = move || {
            now += 1;
            now
        };
        let mut near = Capture::new(near, paper.clone(), spec, clock).expect("a thread");
        near.admit(HERE, Address::Only).expect("free");
        far.admit(HERE, Address::Only).expect("free");
        let singles = PoolSpec { trains: 0, singles: 512, huge_pages: false };
        Self { near, far, pool: Pool::new(&singles).expect("memory"), paper }
    }

    fn burst(&mut self, contents: &[&[u8]]) -> Burst {
        let mut burst = Burst::new();
        for content in contents {
            let chunk = self.pool.take(ChunkClass::Single).expect("enough");
            let mut frame = chunk.into_frame(256, content.len());
            frame.bytes_mut().copy_from_slice(content);
            burst.push(frame);
        }
        burst
    }

    fn finish(self) -> Vec<Block> {
        self.near.finish().expect("paper is patient");
        let written = self.paper.written.lock().expect("no panic");
        read(&written)
    }
}

fn packet(at: u64, bytes: &[u8], direction: u8, comment: Option<&str>) -> Block {
    let mut options = vec![(2, vec![direction, 0, 0, 0])];
    options.extend(comment.map(|comment| (1, comment.as_bytes().to_vec())));
    let at_ns = 0x0123_4567_89ab_cdef + at;
    Block::Packet { at_ns, bytes: bytes.to_vec(), len: bytes.len() as u32, options }
}

const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

#[test]
fn packets_are_written_with_direction_and_the_reason_of_a_discard() {
    let mut wire = Wire::new(&CaptureSpec::default());
    let mut burst = wire.burst(&[b"first", b"second", b""]);
    wire.far.tx_burst(HERE, &mut burst);
    wire.near.rx_burst(&mut wire.pool, &mut burst);
    burst[1].shrink_front(2); // as a link does when it decrypts a frame
    wire.near.note_discard(&burst[1], "empty_slot");
    burst.remove(1);
    wire.near.tx_burst(HERE, &mut burst);
    let late = wire.burst(&[b"late"]);
    wire.near.note_discard(&late[0], "queue_full");

    let blocks = wire.finish();
    assert_eq!(blocks[0], Block::Section(vec![(4, b"strowger".to_vec())]));
    let options = vec![(2, b"memory".to_vec()), (9, vec![9])];
    assert_eq!(blocks[1], Block::Interface { link_type: 147, snap: 2048, options });
    let expected = [
        packet(1, b"first", INBOUND, None),
        packet(1, b"second", INBOUND, Some("discarded: empty_slot")),
        packet(1, b"", INBOUND, None),
        packet(2, b"first", OUTBOUND, None),
        packet(2, b"", OUTBOUND, None),
        packet(3, b"late", INBOUND, Some("discarded: queue_full")),
    ];
    assert_eq!(blocks[2..8], expected);
    let counts = vec![(4, 6_u64.to_le_bytes().to_vec()), (5, 0_u64.to_le_bytes().to_vec())];
    assert_eq!(blocks[8..], [Block::Statistics(counts)]);
}

#[test]
fn a_long_packet_is_cut_and_its_length_is_kept() {
    let mut wire = Wire::new(&CaptureSpec { snap_bytes: 7, queue_frames: 4 });
    let mut burst = wire.burst(&[&[9; 1000]]);
    wire.near.tx_burst(HERE, &mut burst);
    let blocks = wire.finish();
    let Block::Packet { bytes, len, .. } = &blocks[2] else { panic!("{blocks:?}") };
    assert_eq!((bytes.as_slice(), *len), (&[9; 7][..], 1000));
}

#[test]
fn frames_that_the_port_did_not_take_are_not_written() {
    let mut wire = Wire::new(&CaptureSpec::default());
    for _ in 0..5 {
        let mut burst = wire.burst(&[&b"x"[..]; 64]);
        wire.near.tx_burst(HERE, &mut burst);
    }
    let packets = wire.finish().into_iter().filter(|b| matches!(b, Block::Packet { .. })).count();
    assert_eq!(packets, 256, "the wire's depth");
}

#[test]
fn missed_packets_are_counted_in_the_file_and_the_worker_does_not_block_or_allocate() {
    assert!(alloc::installed());
    let mut wire = Wire::new(&CaptureSpec { snap_bytes: 64, queue_frames: 32 });
    let held_up = wire.paper.held_up.clone();
    let held_up = held_up.lock().expect("no panic"); // the thread cannot write
    let mut bursts: Vec<_> = (0..3).map(|_| wire.burst(&[&b"packet"[..]; 64])).collect();
    {
        let _guard = alloc::forbid();
        for burst in &mut bursts {
            wire.far.tx_burst(HERE, burst);
            wire.near.rx_burst(&mut wire.pool, burst);
            wire.near.tx_burst(HERE, burst);
            wire.near.flush();
        }
    }
    let tally = wire.near.capture_tally().clone();
    assert_eq!(tally.passed.read(), 6 * 64);
    let missed = tally.missed.read();
    assert_eq!(missed, 6 * 64 - 32);
    drop(held_up);
    let blocks = wire.finish();
    let packets = blocks.iter().filter(|b| matches!(b, Block::Packet { .. })).count();
    assert_eq!(packets, 32);
    let Some(Block::Statistics(options)) = blocks.last() else { panic!("{blocks:?}") };
    assert!(options.contains(&(5, missed.to_le_bytes().to_vec())));
    assert!(options.contains(&(1, b"not captured because the queue was full: 352".to_vec())));
}

#[test]
fn a_file_that_cannot_be_written_is_reported_at_the_end_and_traffic_continues() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut wire = Wire::new(&CaptureSpec::default());
    let (near, _far) = memory::wire(256).expect("descriptors");
    let mut near = Capture::new(near, Full, &CaptureSpec::default(), || 0).expect("a thread");
    near.admit(HERE, Address::Only).expect("free");
    let mut burst = wire.burst(&[&b"x"[..]; 64]);
    near.tx_burst(HERE, &mut burst);
    assert_eq!(near.tally().frames_out.read(), 64);
    assert_eq!(near.finish().expect_err("the disk is full").kind(), io::ErrorKind::StorageFull);
}
