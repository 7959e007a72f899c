//! Copies a file to a peer, and checks its hash there. Messages may be lost and reordered, so this
//! example numbers, acknowledges and repeats them. (Programs with much to copy run QUIC over a
//! socket instead: it also adapts to congestion.)
//!
//! `cargo run -p strowger --example copy UNIX_PORT KEY_FILE ADDRESS_BOOK receive FOLDER`
//!
//! `cargo run -p strowger --example copy UNIX_PORT KEY_FILE ADDRESS_BOOK send FILE PEER`

use std::{
    error::Error,
    fs::{self, read_to_string},
    path::Path,
    time::{Duration, Instant},
};

use blake2::{Blake2s256, Digest as _};
use strowger::socket::{Node, Socket, StaticTable, Unix};

const PROTOCOL: &str = "/copy/1";
/// Bytes of a block.
const BLOCK: usize = 1_024;
/// Maximum number of blocks in flight: a quarter of a receive queue.
const WINDOW: usize = 16;
/// The time without progress after which the window is sent again.
const REPEAT: Duration = Duration::from_millis(200);
/// The time without progress after which copying fails.
const GIVE_UP: Duration = Duration::from_secs(10);

/// The first message: number 0, the length (8 bytes), the hash (32), the name. Block n, from 1, is
/// a message with its number (8 bytes) and its bytes. The receiver answers each of these messages
/// with the number of the first message that is missing.
fn message(number: usize, body: &[u8]) -> Vec<u8> {
    [&(number as u64).to_be_bytes(), body].concat()
}

fn send_file(socket: &mut Socket, path: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("no name")?;
    let hash = Blake2s256::digest(&bytes);
    let head = [&(bytes.len() as u64).to_be_bytes()[..], &hash, name.as_bytes()].concat();
    let mut messages = vec![message(0, &head)];
    messages.extend(bytes.chunks(BLOCK).enumerate().map(|(n, block)| message(n + 1, block)));
    let (mut missing, mut next) = (0, 0);
    let mut progress = Instant::now();
    while missing < messages.len() {
        let end = messages.len().min(missing + WINDOW);
        while next < end {
            socket.send_wait(&messages[next], GIVE_UP)?;
            next += 1;
        }
        let answer = socket.recv_timeout(REPEAT)?;
        match answer.and_then(|answer| Some(u64::from_be_bytes((*answer).try_into().ok()?))) {
            Some(number) if number as usize > missing => {
                missing = number as usize;
                next = next.max(missing);
                progress = Instant::now();
            }
            Some(_) => {}
            None if progress.elapsed() > GIVE_UP => return Err("the peer does not answer".into()),
            // A message was lost: send the window again.
            None => next = missing,
        }
    }
    Ok(())
}

/// Receives one file into a folder. Returns its name and length.
fn receive_file(socket: &mut Socket, folder: &Path) -> Result<(String, usize), Box<dyn Error>> {
    let mut head: Option<(usize, Vec<u8>, String)> = None;
    let (mut bytes, mut missing) = (Vec::new(), 0_u64);
    loop {
        let received = socket.recv_timeout(GIVE_UP)?.ok_or("the peer sends nothing")?;
        let (number, body) = received.split_first_chunk::<8>().ok_or("a message too short")?;
        if u64::from_be_bytes(*number) == missing {
            match &head {
                None => {
                    let (length, rest) = body.split_first_chunk::<8>().ok_or("no length")?;
                    let (hash, name) = rest.split_at_checked(32).ok_or("no hash")?;
                    let name = std::str::from_utf8(name)?.to_owned();
                    let length = u64::from_be_bytes(*length) as usize;
                    head = Some((length, hash.to_vec(), name));
                }
                Some(_) => bytes.extend_from_slice(body),
            }
            missing += 1;
        }
        socket.send_wait(&missing.to_be_bytes(), GIVE_UP)?;
        let Some((length, hash, name)) = &head else { continue };
        if bytes.len() < *length {
            continue;
        }
        if Blake2s256::digest(&bytes)[..] != hash[..] {
            return Err("the hash is wrong".into());
        }
        // A name with a folder in it could point outside of our folder.
        let safe = Path::new(name).file_name().ok_or("no name")?;
        fs::write(folder.join(safe), &bytes)?;
        // The last answer may be lost, so repetitions of the last messages are answered, too.
        while let Ok(Some(_)) = socket.recv_timeout(2 * REPEAT) {
            socket.send_wait(&missing.to_be_bytes(), GIVE_UP)?;
        }
        return Ok((name.clone(), *length));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: copy UNIX_PORT KEY_FILE ADDRESS_BOOK (receive FOLDER | send FILE PEER)";
    let argument = |number| std::env::args().nth(number).ok_or(usage);
    let path = argument(3)?;
    let book = read_to_string(&path).map_err(|error| format!("address book {path}: {error}"))?;
    let node = Node::builder()
        .attach(Unix::at(argument(1)?))
        .identity(strowger::key_file(argument(2)?)?)
        .address_book(StaticTable::parse(&book)?)
        .start()?;
    println!("this node is {}", node.peer_id());
    let path = argument(5)?;
    if argument(4)? == "receive" {
        let mut socket = node.listen(PROTOCOL)?.accept_wait()?;
        let (name, bytes) = receive_file(&mut socket, Path::new(&path))?;
        println!("received {name}, {bytes} bytes, hash correct");
    } else {
        let peer: strowger::PeerId = argument(6)?.parse()?;
        send_file(&mut node.connect(peer, PROTOCOL).wait()?, Path::new(&path))?;
        println!("sent");
    }
    Ok(())
}

#[cfg(test)]
#[path = "support/two_nodes.rs"]
mod two_nodes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_arrives_with_its_hash() {
        let (_relay, a, b) = two_nodes::two_nodes();
        let from = tempfile::tempdir().unwrap();
        let into = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let path = from.path().join("picture.raw");
        fs::write(&path, &content).unwrap();
        let listener = b.listen(PROTOCOL).unwrap();
        let folder = into.path().to_owned();
        let receiving = std::thread::spawn(move || {
            let mut socket = listener.accept_wait().unwrap();
            receive_file(&mut socket, &folder).unwrap()
        });
        send_file(&mut a.connect(b.peer_id(), PROTOCOL).wait().unwrap(), &path).unwrap();
        assert_eq!(receiving.join().unwrap(), ("picture.raw".to_owned(), content.len()));
        assert_eq!(fs::read(into.path().join("picture.raw")).unwrap(), content);
    }
}
