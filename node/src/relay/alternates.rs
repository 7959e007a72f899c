//! Peers that do not answer are asked from another local port: opens what the switch wants, and says so. It decides
//! nothing.

use strowger_engine::control::{Event, PortId};

use super::{Relay, logged::subject};
use crate::{journal::Entry, log::Kind};

impl Relay {
    /// Opens the alternate ports that are wanted, and forgets those that are gone.
    pub(super) fn follow_alternates(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::WantsAlternate(port) => self.open_alternate(port),
                Event::PortUnplugged(port) => self.topology.forget_alternate(port),
                _ => (),
            }
        }
    }

    fn open_alternate(&mut self, port: PortId) {
        let names = self.names();
        let name = names.iter().find(|(id, _)| *id == port.0).map(|(_, name)| name.as_str());
        let about = subject(None, &format!("[[udp]] {}", name.unwrap_or_default()));
        let text = match self.topology.open_alternate(port) {
            Ok(None) => return,
            Ok(Some(local)) => {
                format!("peers have answered nothing for a minute; handshakes go from {local}, too")
            }
            Err(why) => {
                let text = format!("cannot open another port for peers that do not answer: {why}");
                self.log.write(Kind::PortTrouble, &about, &text);
                text
            }
        };
        let detail = Some(format!("{about}: {text}"));
        let (at, name) = (self.began.elapsed(), String::new());
        let what = "alternate_port";
        self.journal.write(Entry { number: 0, at, what, slot: None, name, detail });
    }
}
