//! One connection to the control socket: its requests, its replies, and its subscription.

use std::{
    io::{self, Read as _, Write as _},
    ops::ControlFlow::{self, Break, Continue},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_runtime::untrusted::json_line;

use super::{
    Request, error, render,
    request::{ClientRequest, ask, read_request},
    server::Sources,
};
use crate::{
    limits::{EVENTS_AT_ONCE, IDLE_MAX, LINE_BYTES_MAX, RETRY, STUCK_MAX, WATCH_EVERY},
    relay::journal::{Journal, Read},
};

/// One client.
pub(super) struct ClientConnection {
    stream: UnixStream,
    /// Received bytes that are not a whole line yet.
    received: Vec<u8>,
    /// The bytes of the reply. Those before `written` are already written.
    answer: Vec<u8>,
    written: usize,
    /// The time of the last activity: a request, an accepted part of a reply, or data for the
    /// subscription.
    active_at: Instant,
    watch: Option<Watch>,
    /// Whether the client has closed its sending half, or the server is about to close the
    /// connection.
    ended: bool,
}

/// The subscription of a client.
#[derive(Clone, Copy)]
enum Watch {
    /// The balance, with the time at which it is due next.
    Balance(Instant),
    /// Events, with the number of the next one.
    Events(u64),
}

impl ClientConnection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            answer: Vec::new(),
            written: 0,
            active_at: Instant::now(),
            watch: None,
            ended: false,
        }
    }

    /// The time of the last activity: a request, an accepted part of a reply, or data for the
    /// subscription.
    pub(super) fn last_active(&self) -> Instant {
        self.active_at
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the server reads from the client. The server does not read while a part of a reply
    /// is unsent, or after the client has closed its sending half.
    pub(super) fn may_read(&self) -> bool {
        self.answer.is_empty() && !self.ended
    }

    /// The time until [`serve`](Self::serve) must be called even if no data arrives.
    pub(super) fn due_in(&self, journal: &Journal, now: Instant) -> Duration {
        if !self.answer.is_empty() {
            return RETRY;
        }
        let at = match self.watch {
            Some(Watch::Balance(at)) => at,
            Some(Watch::Events(next)) if journal.has_more(next) => now,
            // A new event wakes the thread, so events need no earlier timeout.
            Some(Watch::Events(_)) => now + IDLE_MAX,
            // A complete request waits, or the connection must be closed.
            None if self.ended || self.received.contains(&b'\n') => now,
            None => self.active_at + IDLE_MAX,
        };
        at.saturating_duration_since(now)
    }

    /// Writes as much as the client accepts, reads, and replies to one request. `Break` closes the
    /// connection.
    pub(super) fn serve(&mut self, sources: &Sources, now: Instant) -> ControlFlow<()> {
        self.write(now)?;
        if !self.answer.is_empty() {
            let is_stuck = now.saturating_duration_since(self.active_at) > STUCK_MAX;
            return if is_stuck { Break(()) } else { Continue(()) };
        }
        self.read()?;
        if let Some(watch) = self.watch {
            // Ignore the received bytes: a client that watches must not send more requests.
            self.received.clear();
            self.push_watched(watch, sources, now);
        } else if let Some(line) = self.next_line() {
            self.active_at = now;
            let answer = self.answer_to(&line, sources);
            self.push(&answer);
        } else if self.received.len() > LINE_BYTES_MAX {
            let text = format!("a request has at most {LINE_BYTES_MAX} bytes");
            self.push(&error("line_too_long", &text));
            self.ended = true;
            self.received.clear();
        } else if self.ended {
            return Break(());
        } else if now.saturating_duration_since(self.active_at) >= IDLE_MAX {
            self.push(&error("idle", "no request for a minute"));
            self.ended = true;
        }
        self.write(now)
    }

    /// Appends the data that is due for the client's subscription.
    fn push_watched(&mut self, watch: Watch, sources: &Sources, now: Instant) {
        match watch {
            Watch::Balance(due) if now < due => {}
            Watch::Balance(_) => {
                self.watch = Some(Watch::Balance(now + WATCH_EVERY));
                self.push(&ask(&sources.slow_path, Request::Balance));
                self.active_at = now;
            }
            Watch::Events(next) => {
                let Read { entries, missed, next } = sources.journal.read(next, EVENTS_AT_ONCE);
                self.watch = Some(Watch::Events(next));
                if missed > 0 {
                    self.push(&json!({ "missed": missed }));
                }
                for entry in &entries {
                    self.push(&render::event(entry));
                    self.active_at = now;
                }
            }
        }
    }

    /// Removes the next complete line from the received bytes, and returns it.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        if end > LINE_BYTES_MAX {
            return None;
        }
        let line = self.received.drain(..=end).take(end).collect();
        Some(line)
    }

    fn answer_to(&mut self, line: &[u8], sources: &Sources) -> Value {
        match read_request(line) {
            Err(why) => error("bad_request", &why),
            Ok(ClientRequest::SlowPath(request)) => ask(&sources.slow_path, request),
            Ok(ClientRequest::Events) => {
                let Read { entries, missed, .. } = sources.journal.read(0, usize::MAX);
                let rows: Vec<Value> = entries.iter().map(render::event).collect();
                json!({ "events": rows, "missed": missed })
            }
            Ok(ClientRequest::WatchBalance) => {
                self.watch = Some(Watch::Balance(Instant::now() + WATCH_EVERY));
                ask(&sources.slow_path, Request::Balance)
            }
            Ok(ClientRequest::WatchEvents) => {
                self.watch = Some(Watch::Events(0));
                json!({ "watching": "events" })
            }
        }
    }

    /// Appends a line to the reply.
    fn push(&mut self, answer: &Value) {
        self.answer.extend_from_slice(json_line(answer).as_bytes());
        self.answer.push(b'\n');
    }

    fn write(&mut self, now: Instant) -> ControlFlow<()> {
        while self.written < self.answer.len() {
            match self.stream.write(&self.answer[self.written..]) {
                Ok(0) => return Break(()),
                Ok(written) => {
                    self.written += written;
                    self.active_at = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Continue(()),
                Err(_) => return Break(()),
            }
        }
        // Also free the memory, because a reply may be long.
        self.answer = Vec::new();
        self.written = 0;
        Continue(())
    }

    /// Reads what is available, up to slightly more than the maximum length of a line.
    fn read(&mut self) -> ControlFlow<()> {
        while !self.ended && self.received.len() <= LINE_BYTES_MAX {
            let mut bytes = [0; 1024];
            match self.stream.read(&mut bytes) {
                // A client may close its sending half and still read replies.
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.received.extend_from_slice(&bytes[..read]);
                    if self.watch.is_some() {
                        self.received.clear();
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Break(()),
            }
        }
        Continue(())
    }
}
