//! Tests of each kind of fault, alone and together, in both directions: the rates are correct, all
//! faults are counted, and the same seed gives the same run.

use strowger_frame::{Address, Burst, ChunkClass, Frame, Loss, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    MemoryPort,
    fault::{Fault, FaultSpec, Faults},
    memory,
};

const HERE: Mark = Mark(1);
const ALWAYS: u32 = 1_000_000;

struct Wire {
    near: Fault<MemoryPort>,
    far: MemoryPort,
    pool: Pool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    In,
    Out,
}

impl Wire {
    fn new(way: Way, seed: u64, faults: Faults) -> Self {
        let none = Faults::default();
        let (rx, tx) = if way == Way::In { (faults, none) } else { (none, faults) };
        let (near, mut far) = memory::wire(4096).expect("descriptors");
        let mut near = Fault::new(near, &FaultSpec { seed, rx, tx }).expect("memory");
        near.admit(HERE, Address::Only).expect("free");
        far.admit(HERE, Address::Only).expect("free");
        let spec = PoolSpec { trains: 2, singles: 4096, huge_pages: false };
        Self { near, far, pool: Pool::new(&spec).expect("memory") }
    }

    fn frame(&mut self, n: u32) -> Frame {
        let chunk = self.pool.take(ChunkClass::Single).expect("enough");
        let mut frame = chunk.into_frame(256, 32);
        frame.bytes_mut().fill(0);
        frame.bytes_mut()[..4].copy_from_slice(&n.to_be_bytes());
        frame
    }

    /// Sends `count` numbered frames in bursts of `size`. Returns the frames that were delivered,
    /// each with the number of the call that delivered it.
    fn run(&mut self, way: Way, count: u32, size: u32) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        let mut sent = 0;
        let mut taken = 0;
        for call in 0.. {
            let mut burst = Burst::new();
            while sent < count && burst.len() < size as usize {
                let frame = self.frame(sent);
                burst.push(frame);
                sent += 1;
            }
            taken += burst.len();
            let (from, to): (&mut dyn Port, &mut dyn Port) = match way {
                Way::Out => (&mut self.near, &mut self.far),
                Way::In => (&mut self.far, &mut self.near),
            };
            from.tx_burst(HERE, &mut burst);
            from.flush();
            assert!(burst.is_empty());
            let held_before = out.len();
            to.rx_burst(&mut self.pool, &mut burst);
            let came = burst.drain(..).map(|frame| (call, frame.bytes().to_vec()));
            out.extend(came);
            let quiet = out.len() == held_before && self.near.held() == 0;
            if sent == count && quiet {
                break;
            }
            assert!(call < 100_000, "held for ever");
        }
        self.balances(way, taken as u64, out.len() as u64);
        out
    }

    fn balances(&self, way: Way, given: u64, came: u64) {
        let tally = self.near.tally();
        let lost = tally.lost(Loss::Injected);
        assert_eq!(given + tally.frames_made.read(), came + lost);
        assert_eq!(tally.total_lost(), lost);
        match way {
            Way::In => assert_eq!(tally.frames_in.read(), given),
            Way::Out => assert_eq!(tally.frames_out.read(), came),
        }
    }
}

fn numbers(came: &[(usize, Vec<u8>)]) -> Vec<u32> {
    came.iter().map(|(_, bytes)| u32::from_be_bytes(bytes[..4].try_into().expect("four"))).collect()
}

fn both_ways(faults: Faults, count: u32, check: impl Fn(&Wire, Vec<(usize, Vec<u8>)>)) {
    for way in [Way::In, Way::Out] {
        let mut wire = Wire::new(way, 7, faults);
        let came = wire.run(way, count, 16);
        check(&wire, came);
    }
}

#[test]
fn without_faults_the_wrapper_changes_nothing() {
    both_ways(Faults::default(), 1000, |_, came| {
        assert_eq!(numbers(&came), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn lost_frames_are_counted_and_the_rest_is_in_order() {
    let faults = Faults { loss_per_million: 250_000, ..Faults::default() };
    both_ways(faults, 2000, |wire, came| {
        let lost = wire.near.tally().lost(Loss::Injected);
        assert!((400..600).contains(&lost), "{lost} of 2000 at a quarter");
        assert!(numbers(&came).is_sorted());
    });
}

#[test]
fn a_duplicate_follows_its_original_and_is_counted_as_made() {
    let faults = Faults { duplicate_per_million: ALWAYS, ..Faults::default() };
    both_ways(faults, 100, |wire, came| {
        assert_eq!(numbers(&came), (0..200).map(|n| n / 2).collect::<Vec<_>>());
        assert_eq!(wire.near.tally().frames_made.read(), 100);
    });
}

#[test]
fn a_reordered_frame_is_overtaken_by_one() {
    let faults = Faults { reorder_per_million: ALWAYS, ..Faults::default() };
    both_ways(faults, 101, |_, came| {
        let expected: Vec<u32> = (0..100).map(|n| n ^ 1).chain([100]).collect();
        assert_eq!(numbers(&came), expected, "pairs change places; no frame follows the last one");
    });
}

#[test]
fn a_corrupted_frame_differs_in_one_bit() {
    let faults = Faults { corrupt_per_million: ALWAYS, ..Faults::default() };
    both_ways(faults, 100, |_, came| {
        for (n, (_, bytes)) in came.iter().enumerate() {
            let mut sent = [0; 32];
            sent[..4].copy_from_slice(&(n as u32).to_be_bytes());
            let turned: u32 = bytes.iter().zip(sent).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(turned, 1);
        }
    });
}

#[test]
fn a_delayed_frame_comes_later_and_in_order() {
    let faults = Faults { delay_per_million: 100_000, delay_calls_max: 5, ..Faults::default() };
    both_ways(faults, 1000, |_, came| {
        assert_eq!(numbers(&came), (0..1000).collect::<Vec<_>>());
        let late = came.iter().zip(0..).filter(|((call, _), n)| *call > n / 16).count();
        assert!(late > 0 && came.iter().zip(0..).all(|((call, _), n)| *call <= n / 16 + 8));
    });
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let faults = Faults {
        loss_per_million: 50_000,
        duplicate_per_million: 50_000,
        reorder_per_million: 50_000,
        corrupt_per_million: 50_000,
        delay_per_million: 50_000,
        delay_calls_max: 9,
    };
    for way in [Way::In, Way::Out] {
        let run = |seed| Wire::new(way, seed, faults).run(way, 3000, 13);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}

#[test]
fn a_port_that_holds_frames_keeps_the_worker_awake() {
    let faults = Faults { delay_per_million: ALWAYS, delay_calls_max: 1, ..Faults::default() };
    let mut wire = Wire::new(Way::Out, 3, faults);
    let mut burst = Burst::from_iter([wire.frame(0)]);
    wire.near.tx_burst(HERE, &mut burst);
    assert_eq!(wire.near.arm(), strowger_frame::port::Arm::Ready);
    assert!(!wire.near.is_flushed());
    wire.near.flush();
    assert!(wire.near.is_flushed());
    assert!(matches!(wire.near.arm(), strowger_frame::port::Arm::Wait(_)));
}

#[test]
fn a_full_port_inside_loses_nothing() {
    let faults = Faults { delay_per_million: ALWAYS, delay_calls_max: 2, ..Faults::default() };
    let (near, mut far) = memory::wire(16).expect("descriptors");
    let spec = FaultSpec { seed: 1, rx: Faults::default(), tx: faults };
    let mut near = Fault::new(near, &spec).expect("memory");
    near.admit(HERE, Address::Only).expect("free");
    far.admit(HERE, Address::Only).expect("free");
    let pool = PoolSpec { trains: 0, singles: 2048, huge_pages: false };
    let mut pool = Pool::new(&pool).expect("memory");
    let (mut given, mut refused) = (0_u16, Burst::new());
    while refused.is_empty() {
        while !refused.is_full() {
            let mut frame = pool.take(ChunkClass::Single).expect("enough").into_frame(256, 2);
            frame.bytes_mut().copy_from_slice(&given.to_be_bytes());
            refused.push(frame);
            given += 1;
        }
        near.tx_burst(HERE, &mut refused);
        near.flush();
    }
    let mut expected = 0_u16;
    while expected < given - refused.len() as u16 {
        let mut burst = Burst::new();
        far.rx_burst(&mut pool, &mut burst);
        for frame in burst {
            assert_eq!(frame.bytes(), expected.to_be_bytes());
            expected += 1;
        }
        near.flush();
    }
    assert_eq!(near.held(), 0);
}
