//! The two ends of the demo's traffic: a source that sends numbered frames as fast as its window
//! allows, and a sink that checks each frame and sends replies along the return path.
//!
//! The payload of a frame comes after the switch header. Numbers are big-endian, and the fill bytes
//! are the low byte of the number:
//!
//! ```text
//! | flow (4) | number in the flow (8) | fill |      a reply: | frames accounted for (8) |
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use strowger_engine::{limits::HOPS_MAX, link::plain_header};
use strowger_frame::{Burst, Frame};
use strowger_io::Endpoint;
use strowger_wire::{
    Label, Scheme, Slot,
    link_header::LINK_HEADER_BYTES,
    switch_header::{AnyHeader, HEADER_64_BYTES, HeaderRepr},
};

/// The number of bytes in front of the payload.
pub(super) const OVERHEAD_BYTES: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;
/// The length of the shortest frame that can contain a flow and a number, in bytes.
pub(super) const FRAME_BYTES_MIN: usize = OVERHEAD_BYTES + 12;

/// The maximum number of frames between two replies. The sink also replies when no frame waits.
const ANSWER_EVERY: u64 = 256;

/// After this time without a reply, the source treats frames in flight as lost and opens its
/// window. The result does not depend on this estimate.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// The progress of both threads, for the thread that shows it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// Set when the source must stop.
    pub(super) stop_sending: AtomicBool,
    /// Set when the sink must stop as soon as no frame arrives.
    pub(super) stop_receiving: AtomicBool,
}

/// The counts of the source.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceReport {
    /// The number of frames sent, by flow.
    pub(super) sent: Vec<u64>,
    pub(super) answers: u64,
}

/// The counts of the sink.
#[derive(Clone, Debug, Default)]
pub(super) struct SinkReport {
    /// The number of frames received, by flow.
    pub(super) received: Vec<u64>,
    pub(super) reordered: u64,
    pub(super) damaged: u64,
    pub(super) answers: u64,
    /// The time from the first frame to the last.
    pub(super) elapsed: Duration,
}

/// The traffic to send, and its window.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// The label of each flow.
    pub(super) labels: Vec<Label>,
    /// The size of each frame in bytes.
    pub(super) size: usize,
    /// The number of bytes after each frame for the tag of a sealed link.
    pub(super) room: usize,
    /// The maximum number of frames in flight, summed over all flows.
    pub(super) window: u64,
}

/// The source's counts of the replies so far.
struct Replies {
    accounted: u64,
    answers: u64,
    last: Instant,
}

impl Replies {
    fn take(&mut self, answer: &mut Frame) {
        if let Some(count) = read_answer(answer) {
            self.accounted = self.accounted.max(count);
            self.answers += 1;
            self.last = Instant::now();
        }
    }
}

/// Sends frames along the labels until [`Progress::stop_sending`] is set, with at most a window of
/// frames in flight. Each label is a flow. The flows are divided equally among the endpoints, in
/// order.
pub(super) fn source(
    mut endpoints: Vec<Endpoint>,
    load: &Load,
    progress: &Arc<Progress>,
) -> (Vec<Endpoint>, SourceReport) {
    let Load { labels, size, room, window } = load;
    let flows_each = labels.len() / endpoints.len().max(1);
    let mut sent = vec![0; labels.len()];
    let mut replies = Replies { accounted: 0, answers: 0, last: Instant::now() };
    let mut total: u64 = 0;
    let mut flows = (0..labels.len()).cycle();
    let mut answers = Burst::new();
    'sending: while !progress.stop_sending.load(Ordering::Relaxed) {
        for endpoint in &mut endpoints {
            if endpoint.receive_burst(&mut answers).is_err() {
                break 'sending;
            }
            answers.drain(..).for_each(|mut answer| replies.take(&mut answer));
        }
        let open = window.saturating_sub(total - replies.accounted.min(total));
        if open == 0 {
            if replies.last.elapsed() > LOST_AFTER {
                replies.accounted = total;
            }
            // With one endpoint the thread can block. With several it polls them in turn.
            match &mut endpoints[..] {
                [endpoint] => {
                    if let Ok(Some(mut answer)) = endpoint.receive_wait(Duration::from_millis(1)) {
                        replies.take(&mut answer);
                    }
                }
                _ => std::thread::yield_now(),
            }
            continue;
        }
        let Some(flow) = flows.next() else { break };
        let Some(endpoint) = endpoints.get_mut(flow / flows_each.max(1)) else { break };
        let most = (open as usize).min(strowger_frame::BURST_MAX).min(65_536 / (size + room));
        let Some(mut train) = endpoint.train_with_room(*size, most, *room) else {
            // All chunks are in flight.
            std::thread::yield_now();
            continue;
        };
        let mut burst = Burst::new();
        while let Some(mut frame) = train.next_frame() {
            write_frame(&mut frame, labels[flow], flow as u32, sent[flow]);
            sent[flow] += 1;
            total += 1;
            burst.push(frame);
        }
        drop(train);
        while !burst.is_empty() {
            match endpoint.send_burst(&mut burst) {
                Ok(0) => std::thread::yield_now(),
                Ok(_) => {}
                Err(_) => break 'sending,
            }
        }
        progress.sent.store(total, Ordering::Relaxed);
    }
    (endpoints, SourceReport { sent, answers: replies.answers })
}

/// Checks every frame that arrives, and sends replies along the return path. Ends when
/// [`Progress::stop_receiving`] is set and no frame arrives.
pub(super) fn sink(
    mut endpoint: Endpoint,
    flows: usize,
    scheme: &Scheme,
    progress: &Arc<Progress>,
) -> (Endpoint, SinkReport) {
    let mut report = SinkReport { received: vec![0; flows], ..SinkReport::default() };
    // For each flow, the next expected number.
    let mut expected = vec![0_u64; flows];
    let mut first = None;
    let mut last = Instant::now();
    let mut since_answer = 0;
    let mut return_path: Option<Label> = None;
    let mut burst = Burst::new();
    loop {
        match endpoint.receive_burst(&mut burst) {
            Err(_) => break,
            Ok(0) => {
                if since_answer > 0 {
                    since_answer = 0;
                    answer(&mut endpoint, return_path, &expected, &mut report);
                }
                let must_stop = progress.stop_receiving.load(Ordering::Relaxed);
                match endpoint.receive_wait(Duration::from_millis(5)) {
                    Ok(Some(frame)) => burst.push(frame),
                    Ok(None) if must_stop => break,
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            Ok(_) => {}
        }
        if burst.is_empty() {
            continue;
        }
        last = Instant::now();
        first.get_or_insert(last);
        for mut frame in burst.drain(..) {
            let ingress = Slot::new(frame.mark().0);
            let Some(arrived) = read_frame(&mut frame, expected.len()) else {
                report.damaged += 1;
                continue;
            };
            let next = &mut expected[arrived.flow];
            report.received[arrived.flow] += 1;
            if arrived.number < *next {
                report.reordered += 1;
            } else {
                *next = arrived.number + 1;
            }
            since_answer += 1;
            if since_answer == 1 {
                // The return path in the label lacks the ingress slot at this switch. The frame's
                // mark contains that slot.
                let ingress = scheme.encode_least(ingress).ok();
                return_path = arrived.label.reverse(arrived.shift, ingress).ok();
            }
            if since_answer >= ANSWER_EVERY {
                since_answer = 0;
                answer(&mut endpoint, return_path, &expected, &mut report);
            }
        }
        progress.received.store(report.received.iter().sum(), Ordering::Relaxed);
    }
    report.elapsed = first.map_or(Duration::ZERO, |first| last - first);
    (endpoint, report)
}

struct Arrived {
    label: Label,
    shift: u16,
    flow: usize,
    number: u64,
}

fn header_bytes(frame: &mut Frame, label: Label, flow: u16) -> Option<&mut [u8]> {
    let (label, shift) = label.depart().ok()?;
    let (link_header, packet) = frame.bytes_mut().split_first_chunk_mut()?;
    *link_header = plain_header(0);
    let header = HeaderRepr { flow, ..HeaderRepr::new(label, shift, HOPS_MAX) };
    header.emit(packet).ok()
}

fn write_frame(frame: &mut Frame, label: Label, flow: u32, number: u64) {
    let payload = header_bytes(frame, label, flow as u16);
    let payload = payload.expect("the size was checked, and the label is of the demo's making");
    let (front, fill) = payload.split_at_mut(12);
    front[..4].copy_from_slice(&flow.to_be_bytes());
    front[4..].copy_from_slice(&number.to_be_bytes());
    fill.fill(number as u8);
}

fn read_frame(frame: &mut Frame, flows: usize) -> Option<Arrived> {
    let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..)?;
    let AnyHeader::W64(header) = AnyHeader::parse(packet).ok()? else {
        return None;
    };
    let (flow, rest) = header.payload().split_first_chunk()?;
    let (number, fill) = rest.split_first_chunk()?;
    let (flow, number) = (u32::from_be_bytes(*flow) as usize, u64::from_be_bytes(*number));
    let intact = fill.iter().fold(0, |differ, byte| differ | (byte ^ number as u8)) == 0;
    (intact && flow < flows).then(|| Arrived {
        label: header.label(),
        shift: header.shift(),
        flow,
        number,
    })
}

/// Sends the source the number of frames that are accounted for: received, or known to be missing.
fn answer(
    endpoint: &mut Endpoint,
    return_path: Option<Label>,
    expected: &[u64],
    report: &mut SinkReport,
) {
    let Some(label) = return_path else { return };
    let Some(mut frame) = endpoint.frame(OVERHEAD_BYTES + 8) else {
        return;
    };
    let count: u64 = expected.iter().sum();
    match header_bytes(&mut frame, label, 0) {
        Some(payload) => payload.copy_from_slice(&count.to_be_bytes()),
        None => return,
    }
    if endpoint.send(frame).is_ok() {
        report.answers += 1;
    }
}

fn read_answer(frame: &mut Frame) -> Option<u64> {
    let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..)?;
    let AnyHeader::W64(header) = AnyHeader::parse(packet).ok()? else {
        return None;
    };
    header.payload().first_chunk().map(|count| u64::from_be_bytes(*count))
}
