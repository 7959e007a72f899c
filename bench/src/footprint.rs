//! Measures the peak memory of a relay with one worker and a thousand neighbours, and the growth of
//! the peak while packets pass. The figure is that of this whole process, including the command and
//! the neighbours, so it is an upper bound. If the kernel allows it, the peak is reset first.

use std::{fs, net::UdpSocket};

use crate::{
    Bench, Failure, Options, Row, packet,
    relay::{Relay, RelaySpec},
    row::Memory,
    sockets::{BUFFER_BYTES, address, ensure_descriptors, socket},
};

/// The number of attached neighbours.
const NEIGHBOURS: usize = 1_000;

/// The number of packets that warm up the relay, and the number of packets during which the growth
/// of the peak is measured.
const PACKETS_BEFORE: u64 = 100_000;
const PACKETS: u64 = 1_000_000;

/// Packets in flight at once.
const BATCH: u64 = 64;

/// Measures once, with the first of the configured sizes.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = options.sizes.first().copied().unwrap_or(packet::PACKET_BYTES_MIN);
    let mut row = Row::new(Bench::Footprint, size, false, 1);
    let (memory, backend, was_reset) = measure(options, size, [PACKETS_BEFORE, PACKETS])?;
    row.memory = Some(memory);
    row.ours = backend;
    if !was_reset {
        let why = "the peak could not be set back first, and counts what this process did before";
        row.note = Some(why.to_owned());
    }
    each(row)
}

fn measure(
    options: &Options,
    size: usize,
    [before, packets]: [u64; 2],
) -> Result<(Memory, &'static str, bool), Failure> {
    ensure_descriptors(NEIGHBOURS as u64)?;
    // "5" sets the peak to the memory that is resident now (proc(5), clear_refs).
    let was_reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before_bytes = peak_bytes()?;

    let neighbours = (0..NEIGHBOURS).map(|_| socket(0)).collect::<Result<Vec<_>, _>>()?;
    let mut relay =
        Relay::new(RelaySpec { many: true, ..RelaySpec::new(options.backend) }, BUFFER_BYTES)?;
    let slots = neighbours.iter().map(|neighbour| relay.attach(address(neighbour)?));
    let slots = slots.collect::<Result<Vec<u32>, _>>()?;
    relay.settle();
    for neighbour in &neighbours {
        neighbour.connect(relay.report().local).map_err(Failure::kernel("connect"))?;
    }
    let ways = slots.iter().zip(slots.iter().cycle().skip(1));
    let packets_of_each = ways
        .map(|(&from, &to)| {
            let label = packet::label(relay.scheme(), &[(from, to)])?;
            Ok(packet::packet(size, label, 0))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut traffic = neighbours.iter().zip(&packets_of_each).cycle();

    pass(&mut relay, &mut traffic, before)?;
    let warm = peak_bytes()?;
    pass(&mut relay, &mut traffic, packets)?;
    let peak_bytes = peak_bytes()?;
    let memory = Memory {
        neighbours: NEIGHBOURS,
        packets,
        peak_bytes,
        before_bytes,
        // The kernel sums its per-core counters lazily, so the peak may appear to decrease
        // slightly.
        growth_bytes: peak_bytes.saturating_sub(warm),
    };
    Ok((memory, relay.report().backend.name(), was_reset))
}

/// Forwards `packets` packets on this thread: repeatedly sends a batch, then polls the relay until
/// it has switched the whole batch.
fn pass<'a>(
    relay: &mut Relay,
    traffic: &mut impl Iterator<Item = (&'a UdpSocket, &'a Vec<u8>)>,
    packets: u64,
) -> Result<(), Failure> {
    let mut left = packets;
    while left > 0 {
        let batch = left.min(BATCH);
        for (neighbour, packet) in traffic.take(batch as usize) {
            neighbour.send(packet).map_err(Failure::kernel("send"))?;
        }
        let (mut switched, mut idle_polls) = (0, 0);
        while switched < batch {
            let now = relay.poll() as u64;
            switched += now;
            idle_polls = if now == 0 { idle_polls + 1 } else { 0 };
            if idle_polls > 10_000_000 {
                let text = format!("{} of {batch} packets never came", batch - switched);
                return Err(Failure::Wrong(text));
            }
        }
        left -= batch;
    }
    Ok(())
}

/// The peak of this process' resident memory.
fn peak_bytes() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status");
    let status = status.map_err(Failure::kernel("/proc/self/status"))?;
    peak_in(&status).ok_or(Failure::Bug("the kernel says VmHWM in KiB"))
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak_in("VmPeak:\t 9 kB\nVmHWM:\t  12 kB\n"), Some(12 << 10));
        assert_eq!(peak_in("Name: x\n"), None);
    }

    #[test]
    fn each_of_a_thousand_neighbours_reaches_the_next() {
        let options = Options::small().expect("a core");
        let (memory, ..) = measure(&options, 64, [1_000, 2_000]).expect("it forwards");
        assert!(memory.peak_bytes >= memory.before_bytes);
    }
}
