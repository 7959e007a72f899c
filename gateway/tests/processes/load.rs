//! Numbered messages from one program to another.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use strowger_testkit::DEADLINE;

use crate::line::Program;

/// Messages that may be in flight.
pub(crate) const IN_FLIGHT_MAX: u64 = 64;
/// The interval between messages while none arrives.
const PAUSE: Duration = Duration::from_millis(4);

/// A sender of numbers, and the receiver that prints them.
pub(crate) struct Load {
    pub(crate) sender: Program,
    pub(crate) receiver: Program,
    /// The number of messages sent. The numbers begin with 1.
    pub(crate) sent: u64,
    /// The highest number that arrived.
    pub(crate) highest: u64,
    arrived: Vec<bool>,
}

impl Load {
    pub(crate) fn new(sender: Program, receiver: Program) -> Load {
        Load { sender, receiver, sent: 0, highest: 0, arrived: vec![true] }
    }

    fn take(&mut self, line: &str) {
        let number: u64 = line.trim().parse().expect("a number");
        let arrived = &mut self.arrived[number as usize];
        assert!(!*arrived, "message {number} arrived twice");
        *arrived = true;
        self.highest = self.highest.max(number);
    }

    /// Sends a message, or reads an arrived one.
    pub(crate) fn step(&mut self) {
        while let Ok(line) = self.receiver.out.try_recv() {
            self.take(&line);
        }
        if self.sent - self.highest >= IN_FLIGHT_MAX
            && let Ok(line) = self.receiver.out.recv_timeout(PAUSE)
        {
            self.take(&line);
            return;
        }
        self.sent += 1;
        self.arrived.push(false);
        let input = self.sender.child.stdin.as_mut().expect("it is open");
        if writeln!(input, "{}", self.sent).is_err() {
            let errors: Vec<String> = self.sender.errors.iter().collect();
            panic!("the sender has ended after {} messages: {errors:?}", self.sent);
        }
    }

    /// Continues until `holds` returns true.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Load) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "did not happen under load: {what}; {self:?}");
            self.step();
        }
    }

    /// Continues until a message that is sent from now on has arrived, and then until `more`
    /// further messages have been sent and the last of these has arrived. Returns the number sent
    /// when the first message arrived.
    #[track_caller]
    pub(crate) fn until_through(&mut self, what: &str, more: u64) -> u64 {
        let now = self.sent;
        self.until(what, |load| load.highest > now);
        let waited = self.sent;
        self.until(what, |load| load.highest >= waited);
        let through = self.sent;
        self.until(what, |load| load.highest >= through + more);
        through
    }

    /// Numbers in this range that have not arrived.
    pub(crate) fn lost(&self, from: u64, to: u64) -> Vec<u64> {
        (from..=to).filter(|number| !self.arrived[*number as usize]).collect()
    }

    /// Asserts that both programs run, and that the receiver has seen no further connection.
    pub(crate) fn assert_open(&mut self) {
        assert!(self.sender.is_running() && self.receiver.is_running());
        let errors: Vec<String> =
            self.receiver.errors.try_iter().chain(self.sender.errors.try_iter()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent, {} the highest that arrived", self.sent, self.highest)
    }
}
