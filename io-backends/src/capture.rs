//! A wrapper around any port. It writes the port's packets to a pcapng file, with the reason for
//! each discard.
//!
//! It neither blocks nor allocates on the worker's thread. The worker copies packets into records
//! that were allocated at the start, and a thread of the capture writes them. If that thread falls
//! behind, the capture misses packets, and the file records how many.
//!
//! The link type is `LINKTYPE_USER0` (147). In Wireshark, choose a dissector for it under
//! Preferences, Protocols, DLT_USER. Without a dissector, Wireshark shows the bytes with direction
//! and comments.
//!
//! The capture holds the record of a received packet until the next receive, send or `arm`, so that
//! the reason for a discard is written with the packet. If the packet is discarded later, from a
//! queue, it is written a second time, with its contents at that time.
//!
//! A capture is for diagnosis, not for speed. It copies the recorded bytes of each packet, and
//! reads a clock once per burst and once per packet that is discarded from a queue. The counter
//! `frames_copied` does not include these copies.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::SystemTime,
};

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Burst, Frame, Mark, Pool, Port,
    port::Arm,
    ring::{Consumer, Producer, ring},
    tally::Counter,
};

use crate::{
    doorbell::{Doorbell, DoorbellWaker},
    wait::Waiter,
};

mod pcapng;

use pcapng::{Direction, Packet, Writer};

/// Capacity of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureSpec {
    /// Bytes recorded of each packet, up to 65,535.
    pub snap_bytes: usize,
    /// Maximum number of packets that wait to be written. The capture allocates this number times
    /// `snap_bytes`.
    pub queue_frames: usize,
}

impl Default for CaptureSpec {
    /// 2,048 bytes of each packet and 1,024 packets: 2 MiB.
    fn default() -> Self {
        Self { snap_bytes: 2048, queue_frames: 1024 }
    }
}

/// Counters of a capture.
#[derive(Debug, Default)]
pub struct CaptureTally {
    /// Packets that passed the port in both directions, and packets that were discarded later, from
    /// a queue. Missed packets are included.
    pub passed: Counter,
    /// Packets that were not written because no record was free.
    pub missed: Counter,
}

/// A packet that is waiting to be written.
#[derive(Debug, Default)]
struct Record {
    at_ns: u64,
    direction: Direction,
    len: usize,
    /// Address of the packet in memory. A discard finds its record by this address.
    address: usize,
    discard: Option<&'static str>,
    kept: usize,
    bytes: Box<[u8]>,
}

/// A port whose packets are written to a file.
pub struct Capture<P> {
    inner: P,
    clock: Box<dyn FnMut() -> u64 + Send>,
    /// Empty records arrive from the writer thread; full records are sent to it.
    empty: Consumer<Box<Record>>,
    full: Producer<Box<Record>>,
    /// Empty records that were taken and not used.
    returned: ArrayVec<Box<Record>, BURST_MAX>,
    /// The packets of the last receive burst. The switch may still discard them.
    arrived: ArrayVec<Box<Record>, BURST_MAX>,
    tally: Arc<CaptureTally>,
    ending: Arc<AtomicBool>,
    waker: DoorbellWaker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl<P> std::fmt::Debug for Capture<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("tally", &self.tally).finish_non_exhaustive()
    }
}

impl<P: Port> Capture<P> {
    /// Captures to a new file, and replaces an existing file. Timestamps are the wall-clock time.
    ///
    /// # Errors
    /// The file cannot be created, or no file descriptor or thread is available.
    pub fn to_path(inner: P, path: impl AsRef<Path>, spec: &CaptureSpec) -> io::Result<Self> {
        Self::to_file(inner, File::create(path)?, spec)
    }

    /// Captures to an open, empty file. Timestamps are the wall-clock time.
    ///
    /// # Errors
    /// No file descriptor or thread is available.
    pub fn to_file(inner: P, file: File, spec: &CaptureSpec) -> io::Result<Self> {
        Self::new(inner, BufWriter::new(file), spec, || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.map_or(0, |since| since.as_nanos() as u64) // enough until the year 2554
        })
    }

    /// Captures to `out`, to which the capture's thread writes.
    ///
    /// `clock` returns nanoseconds since 1970. It is called once per burst, and once per packet
    /// that is discarded from a queue.
    ///
    /// # Errors
    /// No file descriptor or thread is available.
    pub fn new(
        inner: P,
        out: impl Write + Send + 'static,
        spec: &CaptureSpec,
        clock: impl FnMut() -> u64 + Send + 'static,
    ) -> io::Result<Self> {
        let snap_bytes = spec.snap_bytes.min(usize::from(u16::MAX));
        let records = spec.queue_frames.max(1);
        // Each ring has room for all records, so neither side ever finds it full.
        let (mut fill, empty) = ring(records);
        let (full, waiting) = ring(records);
        for _ in 0..records {
            let bytes = vec![0; snap_bytes].into_boxed_slice();
            let record = Box::new(Record { bytes, ..Record::default() });
            fill.push(record).expect("the ring has room for all records");
        }
        let bell = Doorbell::new()?;
        let waker = bell.waker();
        let (tally, ending) = (Arc::<CaptureTally>::default(), Arc::<AtomicBool>::default());
        let writing = Writing { waiting, fill, bell, tally: tally.clone(), ending: ending.clone() };
        let name = inner.describe().to_owned();
        let thread = std::thread::Builder::new()
            .name("strowger-capture".into())
            .spawn(move || writing.run(out, &name, snap_bytes))?;
        Ok(Self {
            inner,
            clock: Box::new(clock),
            empty,
            full,
            returned: ArrayVec::new(),
            arrived: ArrayVec::new(),
            tally,
            ending,
            waker,
            thread: Some(thread),
        })
    }

    /// The wrapped port.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// The counters of the capture.
    pub fn capture_tally(&self) -> &Arc<CaptureTally> {
        &self.tally
    }

    fn record(&mut self, at_ns: u64, direction: Direction, frame: &Frame) -> Option<Box<Record>> {
        let mut record = self.returned.pop().or_else(|| self.empty.pop())?;
        let bytes = frame.bytes();
        let kept = bytes.len().min(record.bytes.len());
        record.bytes[..kept].copy_from_slice(&bytes[..kept]);
        (record.at_ns, record.direction, record.len, record.kept) =
            (at_ns, direction, bytes.len(), kept);
        (record.address, record.discard) = (bytes.as_ptr().addr(), None);
        Some(record)
    }

    /// Passes the last received packets to the writer, because the switch can no longer discard
    /// them.
    fn publish_arrived(&mut self) {
        if !self.arrived.is_empty() {
            self.full.push_burst(&mut self.arrived);
            self.waker.wake();
        }
    }
}

impl<P> Capture<P> {
    /// Ends the capture and waits until the file is written.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.full.push_burst(&mut self.arrived);
        // Release: pairs with Acquire in `Writing::run`, so the thread that sees the flag also
        // finds all records.
        self.ending.store(true, Ordering::Release);
        self.waker.wake();
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the capture's thread panicked")))
    }
}

impl<P> Drop for Capture<P> {
    /// As [`finish`](Capture::finish), but ignores errors.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// State of the writer thread.
struct Writing {
    waiting: Consumer<Box<Record>>,
    fill: Producer<Box<Record>>,
    bell: Doorbell,
    tally: Arc<CaptureTally>,
    ending: Arc<AtomicBool>,
}

impl Writing {
    fn run(mut self, out: impl Write, name: &str, snap_bytes: usize) -> io::Result<()> {
        let mut waiter = Waiter::with_capacity(1);
        let mut last_ns = 0;
        let mut written = Ok(());
        let mut writer = match Writer::new(out, name, snap_bytes) {
            Ok(writer) => Some(writer),
            Err(error) => {
                written = Err(error);
                None
            }
        };
        loop {
            // Acquire: pairs with Release in `end`. The flag is read before the ring is emptied, so
            // that all records are visible if it is set.
            let ending = self.ending.load(Ordering::Acquire);
            while let Some(record) = self.waiting.pop() {
                last_ns = record.at_ns;
                // After an error the thread still returns records, so that the worker is not
                // affected.
                if let Some(writer) = &mut writer
                    && written.is_ok()
                {
                    written = writer.packet(&record.packet());
                }
                let room = self.fill.push(record);
                debug_assert!(room.is_ok(), "the ring has room for all records");
            }
            if let Some(writer) = &mut writer
                && written.is_ok()
            {
                if ending {
                    let (passed, missed) = (self.tally.passed.read(), self.tally.missed.read());
                    written = writer.statistics(last_ns, passed, missed);
                }
                // Flushes, so that the file can be read while the capture runs.
                written = written.and_then(|()| writer.flush());
            }
            if ending {
                return written;
            }
            self.bell.arm();
            if self.waiting.is_empty() && !self.ending.load(Ordering::Acquire) {
                waiter.begin();
                waiter.add(Arm::Wait(std::os::fd::AsRawFd::as_raw_fd(&self.bell)));
                waiter.wait(None);
            }
            self.bell.disarm();
        }
    }
}

impl Record {
    fn packet(&self) -> Packet<'_> {
        Packet {
            at_ns: self.at_ns,
            direction: self.direction,
            bytes: &self.bytes[..self.kept],
            len: self.len,
            discard: self.discard,
        }
    }

    /// Whether the frame lies inside the packet of this record.
    ///
    /// A link decrypts a frame in place, so a decrypted frame begins after the start of its packet.
    fn spans(&self, frame: &Frame) -> bool {
        let at = frame.bytes().as_ptr().addr();
        at >= self.address && at + frame.len() <= self.address + self.len
    }
}

impl<P: Port> Port for Capture<P> {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.publish_arrived();
        let before = burst.len();
        self.inner.rx_burst(pool, burst);
        let received = &burst[before..];
        if received.is_empty() {
            return;
        }
        let at_ns = (self.clock)();
        for frame in received {
            match self.record(at_ns, Direction::Inbound, frame) {
                Some(record) => self.arrived.push(record),
                None => self.tally.missed.add(1),
            }
        }
        self.tally.passed.add(received.len() as u64);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.publish_arrived();
        if frames.is_empty() {
            return self.inner.tx_burst(to, frames);
        }
        let at_ns = (self.clock)();
        let offered = frames.len();
        // Makes the records before the call, because the call consumes frames. Only the result of
        // the call shows how many frames it took.
        let mut records = ArrayVec::<Box<Record>, BURST_MAX>::new();
        records.extend(frames.iter().map_while(|f| self.record(at_ns, Direction::Outbound, f)));
        self.inner.tx_burst(to, frames);
        let taken = offered - frames.len();
        self.returned.extend(records.drain(taken.min(records.len())..));
        self.tally.passed.add(taken as u64);
        self.tally.missed.add((taken - records.len()) as u64);
        if !records.is_empty() {
            self.full.push_burst(&mut records);
            self.waker.wake();
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn is_flushed(&self) -> bool {
        self.inner.is_flushed()
    }

    fn arm(&mut self) -> Arm {
        self.publish_arrived();
        self.inner.arm()
    }

    strowger_frame::delegate_port!(self, self.inner);

    fn note_discard(&mut self, frame: &Frame, reason: &'static str) {
        if let Some(record) = self.arrived.iter_mut().find(|record| record.spans(frame)) {
            record.discard = Some(reason);
        } else {
            let at_ns = (self.clock)();
            self.tally.passed.add(1);
            if let Some(mut record) = self.record(at_ns, Direction::Inbound, frame) {
                record.discard = Some(reason);
                let room = self.full.push(record);
                debug_assert!(room.is_ok(), "the ring has room for all records");
                self.waker.wake();
            } else {
                self.tally.missed.add(1);
            }
        }
        self.inner.note_discard(frame, reason);
    }
}
