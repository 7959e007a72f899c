//! The state file. It keeps the scheme, the users of slot numbers and of former numbers, and an
//! upper bound of handshake timestamps across restarts and crashes. It is replaced atomically. A
//! damaged file is refused as a whole and left unchanged.
//!
//! The first line is `strowger-state VERSION CRC32 BYTES`, with the checksum and length of the JSON
//! object that follows.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_engine::{
    Now,
    control::{Former, Kept, RestoreError, Snapshot, Switch, Who},
};
use strowger_wire::Slot;
use strowger_wire::{
    Scheme,
    hex::{self, Hex},
};

use crate::{
    clock::Clock,
    error::StateError,
    files::{self, Opener},
    untrusted::Untrusted,
};

/// The version of the format that this program writes and reads.
const VERSION: u32 = 1;
const WORD: &str = "strowger-state";

/// A state file, and the content that was last written to it.
pub(crate) struct StateFile {
    path: PathBuf,
    written: Written,
    generation: u64,
    stamps_until: u64,
    /// The time of the last failed write; `None` after a successful one.
    failed: Option<Instant>,
    /// The lock that prevents another relay from using the file. `None` if no file can be made in
    /// the folder.
    _lock: Option<File>,
}

/// The slot numbers and former numbers that were written, with their users and without durations: a
/// changed duration alone does not require a write.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    numbers: Vec<(Slot, Option<Who>)>,
    former: Vec<(Slot, Who)>,
}

impl Written {
    fn of(snapshot: &Snapshot) -> Self {
        let numbers = snapshot.numbers.iter().map(|kept| (kept.slot, kept.who.clone())).collect();
        let former = snapshot.former.iter().map(|it| (it.slot, it.who.clone())).collect();
        Self { numbers, former }
    }
}

/// The interval at which a failed write is retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl StateFile {
    /// Restores the file in the switch, before anything is attached. A missing file counts as
    /// empty. From then on the switch opens a new slot only after an attempt to write it to the
    /// file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or belongs to a running relay.
    pub(crate) fn load(
        path: &Path,
        opener: &Opener,
        switch: &mut Switch,
        clock: Clock,
    ) -> Result<(Self, Option<Snapshot>), StateError> {
        let lock =
            opener.lock(path).map_err(|why| StateError::Unusable { path: path.to_owned(), why })?;
        let snapshot = Self::read(path, opener)?;
        if let Some(snapshot) = &snapshot {
            Self::restore(path, snapshot, switch, clock.now())?;
        }
        switch.wait_for_writing();
        let path = path.to_owned();
        let (written, generation, stamps_until) = (Written::default(), 0, 0);
        let kept = Self { path, written, generation, stamps_until, failed: None, _lock: lock };
        Ok((kept, snapshot))
    }

    /// Reads the file without changing anything. Returns `None` if the file does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(crate) fn read(path: &Path, opener: &Opener) -> Result<Option<Snapshot>, StateError> {
        let damaged = |why| StateError::Damaged { path: path.to_owned(), why };
        match opener.state(path) {
            Ok(None) => Ok(None),
            Err(error) => Err(damaged(format!("cannot be read: {error}"))),
            Ok(Some(bytes)) => parse(&bytes).map(Some).map_err(damaged),
        }
    }

    /// Restores a snapshot in the switch.
    ///
    /// # Errors
    /// The switch refuses the snapshot, for example because the configured scheme encodes slots
    /// differently.
    pub(crate) fn restore(
        path: &Path,
        snapshot: &Snapshot,
        switch: &mut Switch,
        now: Now,
    ) -> Result<(), StateError> {
        switch.restore(snapshot, now).map_err(|source| {
            let hint = match source {
                RestoreError::Scheme(_) => {
                    let scheme = &snapshot.scheme;
                    let bytes = Hex(scheme.serialize().as_bytes()).to_string();
                    let name = scheme.name().map_or(bytes, str::to_owned);
                    format!("; write scheme = \"{name}\" in [switch], as before")
                }
                _ => String::new(),
            };
            StateError::Restore { path: path.to_owned(), hint, source }
        })
    }

    /// The time at which a failed write is retried; `None` if the last write succeeded.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.failed.map(|failed| failed + RETRY_AFTER)
    }

    /// Whether the file must be written: slots have changed, timestamps are close to the written
    /// bound, or the retry of a failed write is due.
    pub(crate) fn is_behind(&self, switch: &Switch, clock: Clock) -> bool {
        match self.failed {
            Some(at) => at.elapsed() >= RETRY_AFTER,
            None => {
                switch.generation() != self.generation
                    || switch.stamps_until(clock.now()) != self.stamps_until
            }
        }
    }

    /// Returns a message for each slot for which the configuration overrides the file, and one if
    /// the scheme has grown.
    pub(crate) fn overruled(file: &Snapshot, now: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        for (slot, who) in file.numbers.iter().filter_map(|k| Some((k.slot, k.who.as_ref()?))) {
            let has = now.numbers.iter().find(|kept| kept.who.as_ref() == Some(who));
            match has {
                Some(kept) if kept.slot != slot => lines.push(format!(
                    "state: {} had slot {slot}; by the configuration it has slot {}",
                    user_text(who),
                    kept.slot
                )),
                Some(_) => (),
                None => lines.push(format!(
                    "state: slot {slot} belonged to {}; by the configuration it has another user, and \
                     opens when no packet for the former user can arrive any more",
                    user_text(who)
                )),
            }
        }
        if file.scheme != now.scheme {
            lines.push(
                "state: the scheme has grown; existing labels are decoded as before".to_owned(),
            );
        }
        lines
    }

    /// Writes the file if the users of numbers, the generation of the switch, or the bound of
    /// timestamps differ from those in the file. The relay continues after a failed write. Returns
    /// only the first of consecutive failures, and then the first success.
    pub(crate) fn keep(&mut self, switch: &mut Switch, clock: Clock) -> Option<StateChange> {
        let snapshot = switch.snapshot(clock.now());
        let news = Written::of(&snapshot);
        if news == self.written
            && snapshot.generation == self.generation
            && snapshot.stamps_until == self.stamps_until
        {
            return None;
        }
        let done = files::replace(&self.path, text(&snapshot).as_bytes());
        // Count the generation as written even after a failure, so that new slots open and the
        // relay continues.
        switch.set_written(snapshot.generation);
        match done {
            Ok(()) => {
                (self.written, self.generation) = (news, snapshot.generation);
                self.stamps_until = snapshot.stamps_until;
                self.failed.take().map(|_| StateChange::Written(self.path.clone()))
            }
            Err(_) if self.failed.replace(Instant::now()).is_some() => None,
            Err(error) => Some(StateChange::Failed(self.path.clone(), error)),
        }
    }
}

/// A failed write, or the first success after one.
#[derive(Debug)]
pub(crate) enum StateChange {
    Failed(PathBuf, io::Error),
    Written(PathBuf),
}

impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(path) => write!(f, "state file {}: is written again", path.display()),
            Self::Failed(path, error) => write!(
                f,
                "warning: state file {}: cannot be written: {error}; after a restart slots will be those \
                 of the old file",
                path.display()
            ),
        }
    }
}

fn user_text(who: &Who) -> String {
    match who {
        Who::Key(key) => format!("the peer with key {}", Hex(key)),
        Who::Name(name) => format!("\"{}\"", Untrusted(name)),
    }
}

/// The JSON object of a slot, its user, and a duration.
fn of_slot(slot: u32, who: Option<&Who>, duration: (&str, u64)) -> Value {
    let mut object = json!({ "slot": slot, duration.0: duration.1 });
    match who {
        Some(Who::Key(key)) => object["key"] = json!(Hex(key).to_string()),
        Some(Who::Name(name)) => object["name"] = json!(name),
        None => (),
    }
    object
}

fn text(snapshot: &Snapshot) -> String {
    let numbers = snapshot.numbers.iter().map(|Kept { slot, who, rests_ns, unknown }| {
        let mut object = of_slot((*slot).number(), who.as_ref(), ("rests_ns", *rests_ns));
        if *unknown {
            object["unknown"] = json!(true);
        }
        object
    });
    let numbers: Vec<Value> = numbers.collect();
    // The former numbers have a separate key, so that earlier versions of the program can read the
    // rest.
    let former = snapshot.former.iter();
    let former = former.map(|it| of_slot(it.slot.number(), Some(&it.who), ("left_ns", it.left_ns)));
    let former: Vec<Value> = former.collect();
    let scheme = Hex(snapshot.scheme.serialize().as_bytes()).to_string();
    let object = json!({
        "scheme": scheme,
        "generation": snapshot.generation,
        "stamps_until": snapshot.stamps_until,
        "numbers": numbers,
        "former": former,
    });
    let body = format!("{object:#}\n");
    format!("{WORD} {VERSION} {:08x} {}\n{body}", crc32(body.as_bytes()), body.len())
}

fn parse(bytes: &[u8]) -> Result<Snapshot, String> {
    let damaged = || "damaged: its checksum does not fit".to_owned();
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
    let (first, body) = (&bytes[..end], &bytes[end + 1..]);
    let first = std::str::from_utf8(first).map_err(|_| damaged())?;
    let mut words = first.split(' ');
    if words.next() != Some(WORD) {
        return Err(format!("not a state file: it does not begin with {WORD}"));
    }
    let version = words.next().and_then(|word| word.parse::<u32>().ok()).ok_or_else(damaged)?;
    if version != VERSION {
        return Err(format!("has version {version}, and this program reads version {VERSION}"));
    }
    let sum = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let len = words.next().and_then(|word| word.parse::<usize>().ok());
    if sum != Some(crc32(body)) || len != Some(body.len()) || words.next().is_some() {
        return Err(damaged());
    }
    let object: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    read(&object).ok_or_else(|| "damaged: a slot number in it is invalid".to_owned())
}

fn read(object: &Value) -> Option<Snapshot> {
    let scheme = {
        let bytes: Result<Vec<u8>, _> = hex::bytes(object["scheme"].as_str()?).collect();
        Scheme::parse(&bytes.ok()?).ok()?
    };
    let who = |value: &Value| match (&value["key"], &value["name"]) {
        (Value::String(key), Value::Null) => Some(Some(Who::Key(hex::array(key).ok()?))),
        (Value::Null, Value::String(name)) => Some(Some(Who::Name(name.clone()))),
        (Value::Null, Value::Null) => Some(None),
        _ => None,
    };
    let slot = |value: &Value| u32::try_from(value["slot"].as_u64()?).ok().map(Slot::new);
    let number = |value: &Value| {
        let unknown = value["unknown"] == true;
        let (slot, rests_ns) = (slot(value)?, value["rests_ns"].as_u64()?);
        Some(Kept { slot, who: who(value)?, rests_ns, unknown })
    };
    let former = |value: &Value| {
        let (slot, left_ns) = (slot(value)?, value["left_ns"].as_u64()?);
        Some(Former { slot, who: who(value)??, left_ns })
    };
    let numbers = object["numbers"].as_array()?.iter().map(number).collect::<Option<_>>()?;
    // Files of earlier versions do not have this field.
    let former = match &object["former"] {
        Value::Null => Vec::new(),
        all => all.as_array()?.iter().map(former).collect::<Option<_>>()?,
    };
    // Files of earlier versions do not have this field. Without it the timestamps depend only on
    // the wall clock.
    let stamps_until = match &object["stamps_until"] {
        Value::Null => 0,
        until => until.as_u64()?,
    };
    let generation = object["generation"].as_u64()?;
    Some(Snapshot { scheme, generation, numbers, former, stamps_until })
}

/// CRC-32 (ISO 3309), computed bit by bit, because the file is short and rarely written.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn some() -> Snapshot {
        let kept = |slot, who| Kept { slot, who, rests_ns: 7, unknown: slot == Slot::new(0) };
        let former = |slot, who| Former { slot, who, left_ns: 5 };
        Snapshot {
            scheme: Scheme::default(),
            generation: 9,
            stamps_until: 1 << 60,
            numbers: vec![
                kept(Slot::new(0), Some(Who::Key([0xab; 32]))),
                kept(Slot::new(2), Some(Who::Name("a \"name\"\n".to_owned()))),
                kept(Slot::new(3), None),
                kept(Slot::new(4), None),
            ],
            former: vec![
                former(Slot::new(3), Who::Key([0xab; 32])),
                former(Slot::new(4), Who::Name("a \"name\"\n".to_owned())),
            ],
        }
    }

    #[test]
    fn a_written_file_is_read() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(parse(text(&some()).as_bytes()), Ok(some()));
    }

    #[test]
    fn a_file_without_timestamps_and_former_numbers_is_read() {
        let whole = text(&some());
        let (_, body) = whole.split_once('\n').expect("a first line");
        let mut object: Value = serde_json::from_str(body).expect("the file's own content");
        object.as_object_mut().expect("an object").remove("stamps_until").expect("present");
        assert_eq!(read(&object), Some(Snapshot { stamps_until: 0, ..some() }));
        object.as_object_mut().expect("an object").remove("former").expect("present");
        let (stamps_until, former) = (0, Vec::new());
        assert_eq!(read(&object), Some(Snapshot { stamps_until, former, ..some() }));
        object["stamps_until"] = json!(-1);
        assert_eq!(read(&object), None);
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_refused() {
        let whole = text(&some()).into_bytes();
        for at in 0..whole.len() {
            parse(&whole[..at]).expect_err("cut");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                // The flipped bit may have changed only the case of a checksum digit. Such a file
                // is valid.
                if let Ok(read) = parse(&bytes) {
                    assert_eq!(read, some(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        files::replace(&path, b"old").expect("written");
        // The write fails because a folder has the name of the new file.
        fs::create_dir(folder.path().join("state.new")).expect("made");
        files::replace(&path, b"new").expect_err("refused");
        assert_eq!(fs::read_to_string(&path).expect("there"), "old");
    }
}
