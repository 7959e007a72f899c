//! Cases with one congested egress (a unix client that reads at a fixed pace) and several
//! ingresses. Everything runs on one thread in rounds of virtual time, so the counts do not depend
//! on the scheduler.

use strowger_engine::Now;
use strowger_io::unix::Client;
use strowger_wire::switch_header::Flags;

use super::{
    Case, Half, Setup, drops,
    node::{Node, NodeSpec, flagged},
    scaled,
};
use crate::{Failure, Options, packet};

/// Bytes of each packet, and of its payload.
const BYTES: usize = 100;
const PAYLOAD_BYTES: usize = BYTES - packet::PAYLOAD_AT;

/// Virtual time of one round, and rounds in a run of normal length.
const ROUND_NS: u64 = 1_000_000;
const ROUNDS: u64 = 1_000;

/// The number of rounds before counting, in which the egress socket fills, and the maximum number
/// after counting, in which it empties.
const WARM_UP: u64 = 100;
const DRAIN_ROUNDS_MAX: u64 = 1_000;

/// The number of parts in a round. In each part the sources send, every worker is polled, and the
/// reader reads.
const PARTS: u64 = 8;

/// Maximum number of packets that the egress client reads in a part of a round.
const READ: u64 = 3;

/// Packets of the offender, or of a greedy client, in a part of a round.
const HOSTILE: u64 = 8;
/// Packets of the innocent client in a part of a round: its fair share among three clients.
const INNOCENT: u64 = 1;

const EGRESS: u32 = 10;
const FIRST_SOURCE: u32 = 2;

/// Variants of the control-flag case: the row reports the innocent client that sends data, or the
/// one that sends control messages.
const DATA: usize = 0;
const CONTROL: usize = 1;
/// Variants of the polling-order case: the client whose share the row reports.
const LOCAL: usize = 0;
const OTHER_WORKER: usize = 1;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, offence: String, run, variant| Case {
        name,
        size: BYTES,
        offence,
        run,
        setup: Setup { offends: true, variant },
    };
    let flag = format!(
        "data with C at {HOSTILE} packets to {INNOCENT} of innocent data, into an egress that takes \
         {READ}; "
    );
    let order = format!(
        "three ingresses send {HOSTILE} packets each into an egress that takes {READ}: two ports of \
         the egress worker, one of another; "
    );
    vec![
        case("control_flag_data", flag.clone() + "the innocent data", control_flag, DATA),
        case(
            "control_flag_control",
            flag + "innocent control, one packet in a round",
            control_flag,
            CONTROL,
        ),
        case(
            "polling_order_local",
            order.clone() + "the least of the two local shares to the fair share",
            polling_order,
            LOCAL,
        ),
        case(
            "polling_order_other_worker",
            order + "the other worker's share to the fair share",
            polling_order,
            OTHER_WORKER,
        ),
    ]
}

/// The rate at which a client sends.
#[derive(Clone, Copy)]
enum Pace {
    /// The client sends this number of packets in each part of a round.
    PerPart(u64),
    /// The client sends one packet in each round.
    PerRound,
}

/// A client that sends through the egress.
struct Source {
    client: Client,
    /// The client's packets: for rounds that are not counted, and for rounds that are counted.
    packets: [Vec<u8>; 2],
    pace: Pace,
    sent: u64,
    arrived: u64,
}

impl Source {
    fn new(
        node: &mut Node,
        worker: usize,
        number: u8,
        control: bool,
        pace: Pace,
    ) -> Result<Self, Failure> {
        let slot = FIRST_SOURCE + u32::from(number);
        let client = node.client(worker, slot)?;
        let flags = Flags { control, ..Flags::default() };
        let label = node.label((slot, EGRESS))?;
        let packet = |counts| {
            let mut payload = [number; PAYLOAD_BYTES];
            payload[0] = counts;
            flagged(label, flags, &payload)
        };
        let packets = [packet(0)?, packet(1)?];
        Ok(Self { client, packets, pace, sent: 0, arrived: 0 })
    }

    /// Sends the packets that are due in this part of a round.
    fn send(&mut self, part: u64, counts: bool) -> Result<(), Failure> {
        let due = match self.pace {
            Pace::PerPart(packets) => packets,
            Pace::PerRound => u64::from(part == 0),
        };
        for _ in 0..due {
            let sent = self.client.try_send(&self.packets[usize::from(counts)]);
            let sent =
                sent.map_err(|why| Failure::Wrong(format!("a client cannot send: {why}")))?;
            self.sent += u64::from(sent && counts);
        }
        Ok(())
    }
}

/// Runs the rounds, and then further rounds without sending until one in which the egress client
/// receives no packet.
fn run_rounds(
    options: &Options,
    node: &mut Node,
    mut egress: Client,
    sources: &mut [Source],
) -> Result<(), Failure> {
    let rounds = scaled(options, ROUNDS, 100);
    let mut buffer = [0; BYTES];
    for round in 0..WARM_UP + rounds + DRAIN_ROUNDS_MAX {
        let counts = (WARM_UP..WARM_UP + rounds).contains(&round);
        let mut received = 0;
        for part in 0..PARTS {
            let now = Now(2 + round * ROUND_NS + part * ROUND_NS / PARTS);
            for source in sources.iter_mut().filter(|_| round < WARM_UP + rounds) {
                source.send(part, counts)?;
            }
            node.poll_workers(now);
            received += read(&mut egress, &mut buffer, sources)?;
        }
        node.switch.poll(Now(2 + (round + 1) * ROUND_NS));
        if received == 0 && round > WARM_UP + rounds {
            return Ok(());
        }
    }
    Err(Failure::Wrong("the congested egress queue did not drain".to_owned()))
}

/// Reads up to `READ` packets at the egress client; returns their number.
fn read(egress: &mut Client, buffer: &mut [u8], sources: &mut [Source]) -> Result<u64, Failure> {
    for count in 0..READ {
        let received = egress.try_receive(buffer);
        let received = received.map_err(|why| Failure::Wrong(format!("the egress: {why}")))?;
        let Some(received) = received else { return Ok(count) };
        let number = usize::from(buffer[received.len - 1]);
        let source = sources.get_mut(number).ok_or(Failure::Bug("sources are numbered"))?;
        source.arrived += u64::from(buffer[packet::PAYLOAD_AT] == 1);
    }
    Ok(READ)
}

fn control_flag(options: &Options, setup: &Setup) -> Result<Half, Failure> {
    let mut node = Node::new(NodeSpec { workers: 1, listeners: 0, clients: 4, identity: None })?;
    let egress = node.client(0, EGRESS)?;
    let hostile = if setup.offends { HOSTILE } else { 0 };
    let mut sources = [
        Source::new(&mut node, 0, 0, true, Pace::PerPart(hostile))?,
        Source::new(&mut node, 0, 1, false, Pace::PerPart(INNOCENT))?,
        Source::new(&mut node, 0, 2, true, Pace::PerRound)?,
    ];
    run_rounds(options, &mut node, egress, &mut sources)?;
    let innocent = &sources[if setup.variant == DATA { 1 } else { 2 }];
    Ok(Half {
        offered: innocent.sent,
        delivered: innocent.arrived,
        offender: sources[0].sent,
        drops: drops(&node.balance()),
        ..Half::default()
    })
}

fn polling_order(options: &Options, setup: &Setup) -> Result<Half, Failure> {
    let mut node = Node::new(NodeSpec { workers: 2, listeners: 0, clients: 4, identity: None })?;
    let egress = node.client(0, EGRESS)?;
    // Without offenders one of the sources has the egress to itself.
    let alone = if setup.variant == OTHER_WORKER { 2 } else { 0 };
    let pace = |number| Pace::PerPart(if setup.offends || number == alone { HOSTILE } else { 0 });
    let mut sources = [
        Source::new(&mut node, 0, 0, false, pace(0))?,
        Source::new(&mut node, 0, 1, false, pace(1))?,
        Source::new(&mut node, 1, 2, false, pace(2))?,
    ];
    run_rounds(options, &mut node, egress, &mut sources)?;
    let innocent = match setup.variant {
        LOCAL if setup.offends && sources[1].arrived < sources[0].arrived => 1,
        _ => alone,
    };
    let all: u64 = sources.iter().map(|source| source.arrived).sum();
    let sent: u64 = sources.iter().map(|source| source.sent).sum();
    let innocent = &sources[innocent];
    Ok(Half {
        offered: innocent.sent,
        delivered: innocent.arrived,
        fair: Some(all / 3),
        offender: sent - innocent.sent,
        drops: drops(&node.balance()),
        ..Half::default()
    })
}
