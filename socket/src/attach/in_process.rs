//! A local port of a relay in this process.

use strowger_engine::link::plain_header;
use strowger_frame::{BURST_MAX, Burst, Pool, port::Arm};
use strowger_runtime::{LocalReceiver, LocalSender};
use strowger_wire::link_header::LINK_HEADER_BYTES;

use crate::announce::SharedPlace;

use super::{InProcess, PortChange, PortFacts, SlotPort};

pub(crate) struct InProcessPort {
    sender: LocalSender,
    receiver: LocalReceiver,
    /// Packets with their link headers, for which the ring had no room.
    waiting: Burst,
    is_over: bool,
}

impl InProcessPort {
    pub(crate) fn open(InProcess(port): InProcess) -> (SlotPort, PortFacts) {
        let (mut sender, receiver) = port.split();
        let facts = PortFacts {
            scheme: *sender.scheme(),
            place: SharedPlace::default(),
            longest_packet: None,
        };
        let port = Self { sender, receiver, waiting: Burst::new(), is_over: false };
        (SlotPort::InProcess(Box::new(port)), facts)
    }

    #[inline]
    pub(crate) fn receive(&mut self, _: &mut Pool, burst: &mut Burst) -> Option<PortChange> {
        let before = burst.len();
        if self.receiver.recv_burst(burst).is_err() {
            return (!std::mem::replace(&mut self.is_over, true)).then_some(PortChange::Ended);
        }
        for frame in &mut burst[before..] {
            frame.shrink_front(LINK_HEADER_BYTES);
        }
        None
    }

    #[inline]
    pub(crate) fn transmit(&mut self, packets: &mut Burst) -> usize {
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
            match self.sender.send_burst(&mut self.waiting) {
                Ok(0) => return lost,
                Ok(_) => {}
                Err(_) => {
                    lost += self.waiting.len();
                    self.waiting.clear();
                }
            }
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn arm(&mut self, mut add: impl FnMut(Arm)) {
        if self.is_over {
            return;
        }
        add(self.receiver.endpoint().arm());
        if self.is_stalled() {
            add(self.sender.endpoint().arm());
        }
    }

    pub(crate) fn must_retry(&self) -> bool {
        false
    }
}
