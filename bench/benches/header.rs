//! Measures the switch header: parsing in place and emitting, for each label width.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use strowger_engine::limits::HOPS_MAX;
use strowger_wire::{
    Label, Register, U256,
    switch_header::{AnyHeader, HeaderRepr},
};

fn width<R: Register>(c: &mut Criterion) {
    let header = HeaderRepr::new(Label::<R>::here(), 0, HOPS_MAX);
    let mut packet = vec![0; header.wire_bytes() + 64];
    header.emit(&mut packet).expect("long enough");
    let mut group = c.benchmark_group("header");
    group.bench_function(format!("parse, {} bits", R::BITS), |b| {
        b.iter(|| AnyHeader::parse(black_box(&mut packet)).map(black_box).is_ok());
    });
    group.bench_function(format!("emit, {} bits", R::BITS), |b| {
        b.iter(|| black_box(header).emit(black_box(&mut packet)).is_ok());
    });
    group.finish();
}

fn header(c: &mut Criterion) {
    width::<u64>(c);
    width::<u128>(c);
    width::<U256>(c);
}

criterion_group!(benches, header);
criterion_main!(benches);
