//! Reports about received packets, for the congestion control of a program (wire.md W6-193,
//! W6-194).

use strowger_crypto::Nanos;
use strowger_wire::connection::ControlItem;
use strowger_wire::link_header::Lane;

use super::Connection;
use crate::limits::REPORT_AFTER;
use crate::path::Traffic;
use crate::sessions::LANES_SEEN;
use crate::shared::Shared;

/// The time at which a report was last sent, for each lane of the peer; `None` if never.
#[derive(Debug, Default)]
pub(crate) struct Reported(Option<Box<[Option<Nanos>; LANES_SEEN]>>);

impl Reported {
    /// Bytes of memory behind this value.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |lanes| size_of_val(&**lanes))
    }
}

impl Connection {
    /// Sends a report about each lane on which a message was opened under the newest keys since the
    /// last report, at most once a second. Returns `false` if there are no keys or no usable path.
    pub(crate) fn report(&mut self, now: Nanos, shared: &mut Shared) -> bool {
        let Some(index) = self.session.current_index().filter(|_| self.can_send(shared)) else {
            return false;
        };
        let lanes = shared.data.sessions.receiver_of(index).map(|receiver| receiver.lanes);
        let mut items = Vec::new();
        let reported = self.reported.0.get_or_insert_default();
        for (number, (seen, last)) in lanes.iter().flatten().zip(&mut **reported).enumerate() {
            let is_early = last.is_some_and(|last| now.since(last) < REPORT_AFTER);
            let Some(lane) = Lane::new(number as u8).filter(|_| seen.is_news && !is_early) else {
                continue;
            };
            *last = Some(now);
            items.push(ControlItem::ReceiveReport {
                lane,
                packets: seen.packets,
                marked_ce: seen.marked_ce,
                newest: seen.next.saturating_sub(1),
            });
        }
        if items.is_empty() || !self.send_items(now, Traffic::Unanswered, &items, shared) {
            return true;
        }
        if let Some(receiver) = shared.data.sessions.receiver_of(index) {
            for item in &items {
                if let ControlItem::ReceiveReport { lane, .. } = item {
                    receiver.lanes[usize::from(lane.number())].is_news = false;
                }
            }
        }
        true
    }
}
