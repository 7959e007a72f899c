//! Requests and responses, with timeouts and retries, over messages that may be lost.
//!
//! A request has an id, and the response repeats it. The requester sends a request again if no
//! response comes in time; the responder remembers its last responses, so that a request that
//! arrives twice is carried out once.
//!
//! `cargo run -p strowger --example request UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER TEXT]`

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    fs::read_to_string,
    time::{Duration, Instant},
};

use strowger::socket::{Node, RecvError, Socket, StaticTable, Unix};

const PROTOCOL: &str = "/upper/1";
/// The time before the first repetition. The time doubles with each repetition.
const FIRST_TIMEOUT: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 6;
/// The maximum number of responses that the responder remembers.
const REMEMBERED: usize = 64;

struct Requester {
    socket: Socket,
    next_id: u64,
}

impl Requester {
    fn new(socket: Socket) -> Self {
        Self { socket, next_id: 1 }
    }

    fn request(&mut self, body: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        let id = self.next_id.to_be_bytes();
        self.next_id += 1;
        let message = [&id[..], body].concat();
        let mut timeout = FIRST_TIMEOUT;
        for _ in 0..ATTEMPTS {
            self.socket.send_wait(&message, timeout)?;
            let deadline = Instant::now() + timeout;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let Some(response) = self.socket.recv_timeout(left)? else { break };
                // Responses to earlier requests may come late.
                if let Some(body) = response.strip_prefix(&id) {
                    return Ok(body.to_vec());
                }
            }
            timeout *= 2;
        }
        Err(format!("no response to {ATTEMPTS} requests").into())
    }
}

/// Answers the requests of one socket until it is closed.
fn respond(
    socket: &mut Socket,
    mut handle: impl FnMut(&[u8]) -> Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let mut remembered: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut order = VecDeque::new();
    loop {
        let request = match socket.recv_wait() {
            Ok(request) => request,
            Err(RecvError::Closed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some((id, body)) = request.split_first_chunk::<8>() else { continue };
        let number = u64::from_be_bytes(*id);
        let response = remembered.entry(number).or_insert_with(|| {
            order.push_back(number);
            [&id[..], &handle(body)].concat()
        });
        // The requester asks again if a response is not sent.
        let _ = socket.send_wait(response, FIRST_TIMEOUT);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            remembered.remove(&oldest);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: request UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER TEXT]";
    let argument = |number| std::env::args().nth(number).ok_or(usage);
    let path = argument(3)?;
    let book = read_to_string(&path).map_err(|error| format!("address book {path}: {error}"))?;
    let node = Node::builder()
        .attach(Unix::at(argument(1)?))
        .identity(strowger::key_file(argument(2)?)?)
        .address_book(StaticTable::parse(&book)?)
        .start()?;
    println!("this node is {}", node.peer_id());
    if let Ok(peer) = argument(4) {
        let socket = node.connect(peer.parse::<strowger::PeerId>()?, PROTOCOL).wait()?;
        let response = Requester::new(socket).request(argument(5)?.as_bytes())?;
        println!("{}", String::from_utf8_lossy(&response));
        return Ok(());
    }
    let listener = node.listen(PROTOCOL)?;
    loop {
        let mut socket = listener.accept_wait()?;
        std::thread::spawn(move || {
            respond(&mut socket, |body| body.to_ascii_uppercase()).map_err(|e| e.to_string())
        });
    }
}

#[cfg(test)]
#[path = "support/two_nodes.rs"]
mod two_nodes;

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn each_request_is_answered_and_carried_out_once() {
        let (_relay, a, b) = two_nodes::two_nodes();
        let listener = b.listen(PROTOCOL).unwrap();
        let handled = Arc::new(AtomicU32::new(0));
        let counted = handled.clone();
        let responding = std::thread::spawn(move || {
            let mut socket = listener.accept_wait().unwrap();
            let handle = |body: &[u8]| {
                counted.fetch_add(1, Ordering::Relaxed);
                body.to_ascii_uppercase()
            };
            respond(&mut socket, handle).map_err(|error| error.to_string())
        });
        let mut requester = Requester::new(a.connect(b.peer_id(), PROTOCOL).wait().unwrap());
        assert_eq!(requester.request(b"hello").unwrap(), b"HELLO");
        // The same request once more, as after a lost response.
        requester.next_id = 1;
        assert_eq!(requester.request(b"hello").unwrap(), b"HELLO");
        for number in 0..100 {
            let text = format!("request {number}");
            let response = requester.request(text.as_bytes()).unwrap();
            assert_eq!(response, text.to_uppercase().as_bytes());
        }
        drop(requester);
        responding.join().unwrap().unwrap();
        assert_eq!(handled.load(Ordering::Relaxed), 101);
    }
}
