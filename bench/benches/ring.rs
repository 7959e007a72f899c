//! Measures the ring, with bursts and with single items, and compares it with `rtrb`. A single
//! thread uses both ends, so that only the cost of the ring itself is measured.

use arrayvec::ArrayVec;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strowger_frame::ring::ring;

const BURST: usize = 64;

fn bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(BURST as u64));
    let (mut producer, mut consumer) = ring::<[u64; 2]>(4 * BURST);
    let mut items: ArrayVec<[u64; 2], BURST> = (0..BURST as u64).map(|n| [n, n]).collect();
    group.bench_function("64 in a burst", |b| {
        b.iter(|| {
            producer.push_burst(&mut items);
            consumer.pop_burst(&mut items)
        });
    });
    let (mut producer, mut consumer) = rtrb::RingBuffer::<[u64; 2]>::new(4 * BURST);
    group.bench_function("64 in a burst, rtrb", |b| {
        b.iter(|| {
            let buffer = producer.write_chunk_uninit(BURST).expect("it is empty");
            buffer.fill_from_iter(items.drain(..));
            let chunk = consumer.read_chunk(BURST).expect("just written");
            items.extend(chunk);
        });
    });
    group.finish();
}

fn singles(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    let (mut producer, mut consumer) = ring::<[u64; 2]>(4 * BURST);
    group.bench_function("one by one", |b| {
        b.iter(|| (producer.push([1, 2]), consumer.pop()));
    });
    let (mut producer, mut consumer) = rtrb::RingBuffer::<[u64; 2]>::new(4 * BURST);
    group.bench_function("one by one, rtrb", |b| {
        b.iter(|| (producer.push([1, 2]), consumer.pop()));
    });
    group.finish();
}

criterion_group!(benches, bursts, singles);
criterion_main!(benches);
