//! Sends and receives a file over a socket, by the protocol of [`transfer`](crate::transfer).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver as Chunks, TryRecvError, sync_channel},
    time::{Duration, Instant},
};

use strowger_crypto::{Entropy as _, OsEntropy};
use strowger_socket::{RecvError, Socket, TrySendError};

use crate::{
    exit::{Exit, Failure},
    limits::{LINGER, READ_BYTES, READS_AHEAD, RING_DEPTH, TRANSFER_SILENCE},
    transfer::{Receiver, Sender, TransferError, Verdict},
};

/// The interval at which a sender tries again while the queue is full or no input is available.
const PAUSE: Duration = Duration::from_millis(1);

/// The statistics of a transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// The duration of the transfer.
    pub(crate) took: Duration,
    /// The number of retransmissions of blocks; 0 at the receiver.
    pub(crate) repeated: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { bytes, took, repeated } = self;
        let seconds = took.as_secs_f64();
        let rate = *bytes as f64 * 8.0 / 1e6 / seconds.max(1e-6);
        write!(f, "{bytes} bytes in {seconds:.3} s, {rate:.1} Mbit/s")?;
        if *repeated > 0 { write!(f, ", {repeated} blocks repeated") } else { Ok(()) }
    }
}

fn failure(exit: Exit, line: impl Into<String>) -> Failure {
    Failure::new(exit, line)
}

/// Reads the input on its own thread, because reading may block.
fn read_ahead(
    mut input: impl Read + Send + 'static,
) -> Result<Chunks<io::Result<Vec<u8>>>, Failure> {
    let (give, take) = sync_channel(READS_AHEAD);
    let read = move || {
        loop {
            let mut chunk = vec![0; READ_BYTES];
            let result = match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(bytes) => {
                    chunk.truncate(bytes);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_over = result.is_err();
            if give.send(result).is_err() || is_over {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map_err(|error| failure(Exit::Refused, format!("no thread: {error}")))?;
    Ok(take)
}

/// Sends a file. `length` is `None` if unknown.
///
/// # Errors
/// One line: the input cannot be read, the peer closed the socket, or the file did not arrive.
pub(crate) fn send(
    socket: &mut Socket,
    input: impl Read + Send + 'static,
    length: Option<u64>,
) -> Result<Report, Failure> {
    let mut id = [0; 4];
    OsEntropy.fill(&mut id).map_err(|_| failure(Exit::Refused, "no randomness"))?;
    let chunks = read_ahead(input)?;
    let began = Instant::now();
    let mut sender = Sender::new(u32::from_be_bytes(id), length, Duration::ZERO);
    let mut chunk = None;
    let mut is_input_open = true;
    let mut message = Vec::new();
    let mut is_stalled = false;
    loop {
        while is_input_open && sender.room() >= READ_BYTES {
            match chunk.take().map_or_else(|| chunks.try_recv(), Ok) {
                Ok(Ok(bytes)) => sender.input(&bytes),
                Ok(Err(error)) => {
                    return Err(failure(Exit::Refused, format!("cannot read the input: {error}")));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    is_input_open = false;
                    sender.end_input();
                }
            }
        }
        let now = began.elapsed();
        while is_stalled || sender.transmit(now, socket.message_max(), &mut message) {
            is_stalled = match socket.try_send(&message) {
                Ok(()) => false,
                Err(TrySendError::Full | TrySendError::NoPath) => true,
                // The path's limit has decreased: the block counts as lost and is cut again.
                Err(TrySendError::TooLong { .. }) => false,
                Err(error) => return Err(failure(Exit::NoPeer, error.to_string())),
            };
            if is_stalled {
                break;
            }
        }
        match sender.outcome() {
            Some(Ok(())) => {
                let (bytes, repeated) = (sender.acknowledged(), sender.repeated());
                return Ok(Report { bytes, took: began.elapsed(), repeated });
            }
            Some(Err(error)) => return Err(transfer_failure(error)),
            None => {}
        }
        let timer = sender.next_timeout().map(|at| at.saturating_sub(now));
        let waits_for_input = is_input_open && sender.room() >= READ_BYTES;
        let pause = (is_stalled || waits_for_input).then_some(PAUSE);
        let wait = [timer, pause].into_iter().flatten().min().unwrap_or(LINGER);
        let mut next = socket.recv_timeout(wait);
        loop {
            match next {
                Ok(Some(answer)) => sender.receive(began.elapsed(), &answer),
                Ok(None) => break,
                // The result may have arrived just before.
                Err(error) if sender.outcome().is_none() => return Err(closed(&error)),
                Err(_) => break,
            }
            next = socket.try_recv();
        }
    }
}

fn transfer_failure(error: TransferError) -> Failure {
    let exit = match error {
        TransferError::Silence => Exit::NoPeer,
        TransferError::TooNarrow | TransferError::Refused(_) => Exit::CheckFailed,
    };
    failure(exit, error.to_string())
}

fn closed(error: &RecvError) -> Failure {
    failure(Exit::NoPeer, format!("the file was not transferred: {error}"))
}

/// The output of a received file.
pub(crate) enum Output {
    /// Standard output. Bytes are printed before the hash is checked.
    Standard,
    /// A file, which has the name `part` until it is complete.
    File {
        /// The name of the file.
        file: PathBuf,
        /// The name until the file is complete.
        part: PathBuf,
        /// The open file.
        open: File,
        /// Whether the file replaces an existing file of this name.
        force: bool,
    },
}

impl Output {
    /// Opens the output. Without `force` the file must not exist.
    ///
    /// # Errors
    /// One line: the file exists, or cannot be made.
    pub(crate) fn open(file: Option<&Path>, force: bool) -> Result<Output, Failure> {
        let Some(file) = file else { return Ok(Output::Standard) };
        let shown = file.display();
        if !force && file.symlink_metadata().is_ok() {
            let line = format!("{shown} exists and is not overwritten; --force replaces it");
            return Err(failure(Exit::Refused, line));
        }
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if force {
            let _ = fs::remove_file(&part);
        }
        // Create a new file, so as to neither overwrite a file nor follow a link.
        let open = OpenOptions::new().write(true).create_new(true).open(&part);
        let open = open.map_err(|error| {
            let shown = part.display();
            let line = match error.kind() {
                io::ErrorKind::AlreadyExists => format!(
                    "{shown} exists: another transfer writes it, or one did not end; --force replaces it"
                ),
                _ => format!("cannot make {shown}: {error}"),
            };
            failure(Exit::Refused, line)
        })?;
        Ok(Output::File { file: file.to_owned(), part, open, force })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Standard => io::stdout().write_all(bytes),
            Output::File { open, .. } => open.write_all(bytes),
        }
    }

    /// Gives the file its final name, or flushes standard output.
    fn commit(&mut self) -> io::Result<()> {
        match self {
            Output::Standard => io::stdout().flush(),
            Output::File { file, part, open, force } => {
                open.sync_all()?;
                if *force {
                    return fs::rename(part, file);
                }
                // A hard link, unlike a rename, never replaces a file. Some file systems have no
                // hard links.
                match fs::hard_link(&*part, &*file) {
                    Ok(()) => fs::remove_file(part),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
                    Err(_) => fs::rename(part, file),
                }
            }
        }
    }

    /// Removes an incomplete file.
    pub(crate) fn discard(&self) {
        if let Output::File { part, .. } = self {
            let _ = fs::remove_file(part);
        }
    }
}

/// Receives a file.
///
/// # Errors
/// One line: the peer closed the socket, its bytes have another hash, or they cannot be written.
pub(crate) fn receive(socket: &mut Socket, output: &mut Output) -> Result<Report, Failure> {
    let began = Instant::now();
    let mut receiver = Receiver::new(Duration::ZERO);
    let mut message = Vec::new();
    let mut bytes = 0;
    let mut ended: Option<(Duration, Result<Report, Failure>)> = None;
    loop {
        let now = began.elapsed();
        while receiver.transmit(now, &mut message) {
            // The sender asks again for a lost answer.
            let _ = socket.try_send(&message);
        }
        if let Some((at, _)) = &ended
            && now >= *at + LINGER
        {
            break;
        }
        if ended.is_none() && receiver.is_silent(now) {
            let line = format!(
                "the peer has sent nothing for {} s: it has ended, or no path to it works; the file \
                 is not whole",
                TRANSFER_SILENCE.as_secs()
            );
            return Err(failure(Exit::NoPeer, line));
        }
        let timer = receiver.next_timeout().map(|at| at.saturating_sub(now));
        let wait = timer.unwrap_or(LINGER).min(LINGER);
        // Bound the loop, so that a fast sender does not keep this end from writing.
        for number in 0..RING_DEPTH {
            let next = if number == 0 { socket.recv_timeout(wait) } else { socket.try_recv() };
            match next {
                Ok(Some(arrived)) => {
                    receiver.receive(began.elapsed(), &arrived);
                    if !receiver.has_begun() {
                        let line = "the peer sends lines and no file; receive them without --file";
                        return Err(failure(Exit::Usage, line));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    return ended.map_or_else(|| Err(closed(&error)), |(_, result)| result);
                }
            }
        }
        let new = receiver.take_output();
        bytes += new.len() as u64;
        let now = began.elapsed();
        let written = output.write(&new).and_then(|()| {
            if receiver.is_whole() {
                output.commit()?;
                receiver.finish(Verdict::Complete);
            }
            Ok(())
        });
        if let Err(error) = written {
            receiver.finish(Verdict::NotWritten);
            let line = format!("cannot write the file: {error}");
            ended.get_or_insert((now, Err(failure(Exit::Refused, line))));
        }
        if let (None, Some(verdict)) = (&ended, receiver.verdict()) {
            let result = match verdict {
                Verdict::Complete => Ok(Report { bytes, took: now, repeated: 0 }),
                verdict => Err(transfer_failure(TransferError::Refused(verdict))),
            };
            ended = Some((now, result));
        }
    }
    ended.map_or_else(|| Err(failure(Exit::NoPeer, "no file came")), |(_, result)| result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another user may create a link or a file at the name of the output.
    #[test]
    fn the_name_of_an_unfinished_file_is_never_followed_or_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("file"), folder.path().join("file.part"));
        let other = folder.path().join("other");
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &part).unwrap();
        assert!(Output::open(Some(&file), false).is_err());
        let output = Output::open(Some(&file), true);
        assert!(output.is_ok_and(|mut output| output.write(b"new").is_ok()));
        assert_eq!(fs::read(&other).unwrap(), b"kept");
        assert!(Output::open(Some(&file), false).is_err(), "another transfer writes it");
    }
}
