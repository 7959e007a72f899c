//! Measures one step of one switch: complete polls of workers over memory wires, and for comparison
//! only the processing of the header and the lookup in the slot table. The difference is the cost
//! of frames, queues and counters.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strowger_bench::{chain::Chain, packet};
use strowger_engine::{
    limits::HOPS_MAX,
    slots::{NextHop, ReturnPath, SlotTable},
};
use strowger_frame::Mark;
use strowger_wire::{
    Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{AnyHeader, hops_behind},
};

fn polls(c: &mut Criterion) {
    for size in [64, 1400] {
        let mut chain = Chain::new(size, 64).expect("memory");
        let steps = chain.steps();
        let mut group = c.benchmark_group("step");
        group.throughput(Throughput::Elements(steps));
        group.bench_function(format!("three polls, 64 frames of {size} bytes"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| chain.round()).sum::<Duration>());
        });
        group.finish();
    }
}

fn pure(c: &mut Criterion) {
    let table = SlotTable::new(&V3X5X8, 256, |slot| NextHop::Neighbour(Mark(slot.number())))
        .expect("a known scheme");
    let return_path = ReturnPath::new(&V3X5X8, Slot::new(2));
    let label = packet::label(&V3X5X8, &[(2, 3); 3]).expect("short");
    let fresh = packet::packet(64, label, 0);
    let mut bytes = fresh.clone();
    let mut group = c.benchmark_group("step");
    group.throughput(Throughput::Elements(1));
    group.bench_function("header and table alone", |b| {
        b.iter(|| {
            bytes[..24].copy_from_slice(&fresh[..24]);
            let packet = black_box(&mut bytes[LINK_HEADER_BYTES..]);
            let Ok(AnyHeader::W64(mut header)) = AnyHeader::parse(packet) else { return None };
            let hop = table.lookup(header.label().low());
            let NextHop::Neighbour(exit) = hop.next_hop() else { return None };
            let label = header.label().advance(hop.width(), return_path.in_form(hop.form())?);
            let shift = header.shift() + u16::from(hop.width());
            header.advance(label, shift, hops_behind(header.hops_left(), HOPS_MAX)?);
            Some(exit)
        });
    });
    group.finish();
}

criterion_group!(benches, polls, pure);
criterion_main!(benches);
