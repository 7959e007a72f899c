//! Measures the pool: taking and returning a chunk, splitting a train into frames and dropping
//! them, and copying a frame.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strowger_frame::{Burst, ChunkClass, Frame, Pool, PoolSpec};

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 64, singles: 64, huge_pages: false }).expect("memory")
}

fn frame(pool: &mut Pool, class: ChunkClass, len: usize) -> Frame {
    pool.take(class).expect("one is free").into_frame(256, len)
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    for (name, class) in [("single", ChunkClass::Single), ("train", ChunkClass::Train)] {
        let mut pool = pool();
        group.bench_function(format!("take and give back, {name}"), |b| {
            b.iter(|| frame(&mut pool, class, 100));
        });
    }
    for len in [64, 1400] {
        let mut pool = pool();
        let one = frame(&mut pool, ChunkClass::Single, len);
        group.bench_function(format!("copy, {len} bytes"), |b| {
            b.iter(|| pool.copy(&one).is_some());
        });
    }
    group.throughput(Throughput::Elements(64));
    let mut pool = pool();
    group.bench_function("a train of 64 cut and dropped", |b| {
        b.iter(|| {
            let chunk = pool.take(ChunkClass::Train).expect("one is free");
            let mut train = chunk.into_train(256, 64 * 64, 64);
            std::iter::from_fn(|| train.next_frame()).collect::<Burst>().len()
        });
    });
    group.finish();
}

criterion_group!(benches, chunks);
criterion_main!(benches);
