//! A unix port of a relay in another process, with the second form of its protocol (wire.md 8.3).

use std::{
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use strowger_engine::link::plain_header;
use strowger_frame::{
    BURST_MAX, Burst, ChunkClass, Mark, Pool, Train, port::Arm, reserve::PoolUser,
};
use strowger_io::unix::{
    Greeting, TrainClient,
    limits::{GREETING_WAIT, TRAIN_BYTES_MAX},
};
use strowger_wire::{Scheme, link_header::LINK_HEADER_BYTES};

use super::{PortChange, PortFacts, SlotPort};
use crate::{
    announce::{Place, SharedPlace},
    error::StartError,
    limits::RECONNECT,
};

/// The user of the driver's pool to which chunks with received packets are charged.
pub(crate) const RECEIVES: PoolUser = PoolUser::port(0);

/// Maximum number of trains that one call receives.
const TRAINS_IN_A_CALL: usize = 4;

pub(crate) struct UnixSlot {
    path: PathBuf,
    client: Option<TrainClient>,
    /// The rest of a train whose frames did not all fit the burst.
    rest: Option<Train>,
    /// Packets with their link headers, for which the socket had no room.
    waiting: Burst,
    place: SharedPlace,
    /// Whether the switch has restarted and its greeting, which names the new slot, has not
    /// arrived.
    awaits_greeting: bool,
    is_full: bool,
    is_starved: bool,
    /// The time of the next attempt to connect; `None` while no attempt is planned.
    again_at: Option<Instant>,
}

/// The place of the node that a greeting states.
fn place_of(greeting: &Greeting) -> Place {
    Place { slot: greeting.slot, switch: greeting.identity }
}

impl UnixSlot {
    pub(crate) fn open(path: PathBuf) -> Result<(SlotPort, PortFacts), StartError> {
        let shown = path.display().to_string();
        let failed = |why| StartError::Unix { path: shown.clone(), why };
        let client = TrainClient::connect(&path, GREETING_WAIT * 5).map_err(failed)?;
        let greeting =
            client.greeting().ok_or(StartError::NoGreeting { path: shown.clone() })?.clone();
        let scheme = Scheme::parse(&greeting.scheme)
            .map_err(|_| StartError::BadScheme { path: shown.clone() })?;
        // The port's limit includes the link header.
        let longest = greeting.packet_bytes_max.saturating_sub(LINK_HEADER_BYTES as u16);
        let place = SharedPlace::default();
        place.set(Some(place_of(&greeting)));
        let facts = PortFacts { scheme, place: place.clone(), longest_packet: Some(longest) };
        let slot = Self {
            path,
            client: Some(client),
            rest: None,
            waiting: Burst::new(),
            place,
            awaits_greeting: false,
            is_full: false,
            is_starved: false,
            again_at: None,
        };
        Ok((SlotPort::Unix(Box::new(slot)), facts))
    }

    /// Ends the connection, and plans the next attempt.
    fn lose(&mut self) -> Option<PortChange> {
        self.again_at = Some(Instant::now() + RECONNECT);
        self.client.take().map(|_| PortChange::Gone)
    }

    fn connect_again(&mut self) -> Option<PortChange> {
        let due = self.again_at.is_some_and(|at| Instant::now() >= at);
        if !due {
            return None;
        }
        match TrainClient::connect(&self.path, Duration::ZERO) {
            Ok(client) => {
                (self.client, self.again_at) = (Some(client), None);
                self.awaits_greeting = true;
                Some(PortChange::Back)
            }
            Err(_) => {
                self.again_at = Some(Instant::now() + RECONNECT);
                None
            }
        }
    }

    fn take_rest(&mut self, burst: &mut Burst) -> bool {
        while let Some(train) = &mut self.rest {
            if burst.is_full() {
                return false;
            }
            match train.next_frame() {
                // A packet that is shorter than the link header becomes empty, and the endpoint
                // counts `bad_header`.
                Some(mut frame) => {
                    frame.shrink_front(LINK_HEADER_BYTES.min(frame.len()));
                    burst.push(frame);
                }
                None => self.rest = None,
            }
        }
        true
    }

    pub(crate) fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) -> Option<PortChange> {
        for _ in 0..TRAINS_IN_A_CALL {
            if !self.take_rest(burst) || burst.is_full() {
                break;
            }
            let Some(client) = &mut self.client else { return self.connect_again() };
            pool.set_user(RECEIVES);
            let chunk = pool.take(ChunkClass::Train);
            pool.set_user(PoolUser::COMMON);
            self.is_starved = chunk.is_none();
            let mut chunk = chunk?;
            let start = chunk.start();
            let room = &mut chunk.bytes_mut()[start..start + TRAIN_BYTES_MAX];
            let received = client.try_receive(room);
            if self.awaits_greeting
                && let Some(greeting) = client.greeting()
            {
                self.place.set(Some(place_of(greeting)));
                self.awaits_greeting = false;
            }
            match received {
                Ok(Some(received)) => {
                    let train = chunk.into_train(start, received.len, received.segment);
                    self.rest = Some(train.with_mark(Mark(received.ingress)));
                }
                Ok(None) => break,
                Err(_) => return self.lose(),
            }
        }
        None
    }

    pub(crate) fn transmit(&mut self, packets: &mut Burst) -> usize {
        self.is_full = false;
        let Some(client) = &mut self.client else {
            let lost = self.waiting.len() + packets.len();
            self.waiting.clear();
            packets.clear();
            return lost;
        };
        let mut lost = 0;
        loop {
            let room = BURST_MAX - self.waiting.len();
            for mut frame in packets.drain(..room.min(packets.len())) {
                // The driver leaves this headroom in every packet.
                if !frame.grow_front(LINK_HEADER_BYTES) {
                    debug_assert!(false, "no room for a link header");
                    lost += 1;
                    continue;
                }
                frame.bytes_mut()[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
                self.waiting.push(frame);
            }
            if self.waiting.is_empty() {
                return lost;
            }
            match client.try_send_frames(&mut self.waiting) {
                Ok(_) if !self.waiting.is_empty() => {
                    self.is_full = true;
                    return lost;
                }
                Ok(_) => {}
                Err(_) => {
                    // The next `receive` gets the same error and connects again.
                    lost += self.waiting.len() + packets.len();
                    self.waiting.clear();
                    packets.clear();
                    return lost;
                }
            }
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.is_full
    }

    pub(crate) fn arm(&mut self, mut add: impl FnMut(Arm)) {
        if self.rest.is_some() {
            add(Arm::Ready);
        } else if let Some(client) = &self.client {
            // Without a chunk the descriptor stays readable; `must_retry` bounds the wait.
            if !self.is_starved {
                add(Arm::Wait(client.as_raw_fd()));
            }
        }
    }

    pub(crate) fn must_retry(&self) -> bool {
        self.is_full || self.is_starved || self.client.is_none()
    }
}
