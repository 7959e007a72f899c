//! Measures the slot table: building one (as the slow path does), looking up a hop, and replacing a
//! table (as a worker does on a command).

use std::{hint::black_box, mem};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use strowger_engine::slots::{NextHop, SlotTable};
use strowger_frame::Mark;
use strowger_wire::{
    Scheme,
    scheme::{Form, V3X5X8},
};

fn table(scheme: &Scheme) -> SlotTable {
    SlotTable::new(scheme, 256, |slot| NextHop::Neighbour(Mark(slot.number())))
        .expect("a scheme to number by")
}

fn slots(c: &mut Criterion) {
    let wide = [Form::new(4, 1, 1), Form::new(8, 2, 2), Form::new(16, 2, 0)];
    let wide = Scheme::new(&wide).expect("prefix-free");
    let mut group = c.benchmark_group("slots");
    for (name, scheme) in [("one load", V3X5X8), ("two loads", wide)] {
        group.bench_function(format!("make, {name}"), |b| b.iter(|| table(black_box(&scheme))));
        let slots = table(&scheme);
        let mut low = 0_u64;
        group.bench_function(format!("take, {name}"), |b| {
            b.iter(|| {
                low = low.wrapping_add(0x9e37_79b9);
                slots.lookup(black_box(low))
            });
        });
    }
    let mut slots = Box::new(table(&V3X5X8));
    group.bench_function("swap", |b| {
        let fresh = || Box::new(table(&V3X5X8));
        b.iter_batched(fresh, |new| mem::replace(&mut slots, new), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, slots);
criterion_main!(benches);
