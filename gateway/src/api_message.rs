//! Datagrams between the local API and a program: messages, and JSON objects of one key.
//!
//! The first byte distinguishes them: a message follows a byte `00`, and a JSON object begins with
//! `{`. So no message of a peer can be taken for an answer of the API.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// The first byte of a datagram with a message.
pub const MESSAGE: u8 = 0;
/// Maximum length of a JSON object from a program, in bytes: far more than a request needs.
pub const JSON_BYTES_MAX: usize = 4_096;
/// Maximum number of protocol names in a request: a connection offers no more.
pub const PROTOCOLS_MAX: usize = strowger_connection::limits::NAMES_MAX;
/// The time limit of connecting, unless the request states another one.
pub const TIMEOUT: Duration = Duration::from_secs(9);
/// The longest time limit that a request may state. A longer one is probably an error of the
/// program.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A datagram of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromProgram<'a> {
    /// A message for the peer.
    Message(&'a [u8]),
    /// A request for the API.
    Request(Request),
}

/// A request of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Connect to a peer.
    Connect {
        /// A PeerId, a name of the address book, or an address.
        peer: String,
        /// The protocols, best first.
        protocols: Vec<String>,
        /// The time that connecting may take.
        timeout: Duration,
    },
    /// Accept these protocols.
    Listen {
        /// The protocols.
        protocols: Vec<String>,
    },
    /// Return the identity of this node.
    Id,
    /// Return the counters of this connection's socket.
    Info,
}

macro_rules! error_names {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The kind of a failure, with a stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorName {
            $($(#[$doc])* $name,)+
        }

        impl ErrorName {
            /// All names.
            pub const ALL: &'static [ErrorName] = &[$(ErrorName::$name,)+];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorName::$name => $text,)+ }
            }
        }
    };
}

error_names! {
    /// A datagram that is neither a message nor a JSON object, or is too long.
    BadDatagram = "bad_datagram",
    /// Text that is not JSON, or not an object of one key.
    BadJson = "bad_json",
    /// A key that no request has.
    UnknownRequest = "unknown_request",
    /// A field that is missing, unknown, or has a wrong value.
    BadRequest = "bad_request",
    /// A request or message that does not fit the state of the connection.
    WrongState = "wrong_state",
    /// A text that names no peer.
    UnknownPeer = "unknown_peer",
    /// A text that is no protocol name.
    BadProtocol = "bad_protocol",
    /// No label to the peer is known.
    NoRoute = "no_route",
    /// No answer of the peer in time.
    Timeout = "timeout",
    /// Another peer answers at the label.
    WrongPeer = "wrong_peer",
    /// The peer accepts none of the protocols, or not from this node.
    Unsupported = "unsupported",
    /// The peer refused the connection.
    Refused = "refused",
    /// A switch on the path drops the packets: the label is old or wrong.
    Dropped = "dropped",
    /// The two nodes have no common version, suite or option.
    Disagreement = "disagreement",
    /// The policy of this node does not allow the peer.
    NotAllowed = "not_allowed",
    /// The path delivers no packets as long as a handshake.
    PathTooNarrow = "path_too_narrow",
    /// A socket for this peer and protocol is open already.
    AlreadyOpen = "already_open",
    /// Another program accepts the protocol already.
    AlreadyTaken = "already_taken",
    /// The API or the node has too many programs, sockets or requests.
    Busy = "busy",
    /// The message is too long for the path, and was not sent.
    TooLong = "too_long",
    /// There is no path now, and the message was not sent.
    NoPath = "no_path",
    /// The node has ended, because its relay has ended or the API stops.
    NodeClosed = "node_closed",
}

/// A failure in the form that a program receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The kind of the failure.
    pub name: ErrorName,
    /// One sentence with the remedy.
    pub text: String,
    /// Further fields, for example the longest message.
    pub fields: Map<String, Value>,
}

impl Failed {
    /// A failure without further fields.
    pub fn new(name: ErrorName, text: impl Into<String>) -> Self {
        Self { name, text: text.into(), fields: Map::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    /// The object for the program.
    pub fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("name".to_owned(), self.name.as_str().into());
        fields.insert("text".to_owned(), self.text.as_str().into());
        json!({ "error": fields })
    }
}

/// Reads a datagram of a program.
///
/// # Errors
/// The failure to send to the program as the answer.
pub fn read(datagram: &[u8]) -> Result<FromProgram<'_>, Failed> {
    match datagram.split_first() {
        Some((&MESSAGE, message)) => Ok(FromProgram::Message(message)),
        Some((b'{', _)) => read_request(datagram).map(FromProgram::Request),
        _ => Err(Failed::new(
            ErrorName::BadDatagram,
            "a datagram begins with the byte 00, before a message, or is a JSON object, which begins \
             with {",
        )),
    }
}

const REQUESTS: &str = "connect, listen, id, info";

fn read_request(text: &[u8]) -> Result<Request, Failed> {
    if text.len() > JSON_BYTES_MAX {
        let text = format!("a JSON object has at most {JSON_BYTES_MAX} bytes");
        return Err(Failed::new(ErrorName::BadDatagram, text));
    }
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| Failed::new(ErrorName::BadJson, format!("not JSON: {error}")))?;
    let only = value.as_object().filter(|object| object.len() == 1);
    let Some((verb, fields)) = only.and_then(|object| object.iter().next()) else {
        let text = format!("a request is an object of one key, one of {REQUESTS}");
        return Err(Failed::new(ErrorName::BadJson, text));
    };
    let known: &[&str] = match verb.as_str() {
        "connect" => &["peer", "protocol", "timeout_s"],
        "listen" => &["protocol"],
        "id" | "info" => &[],
        "stream" => {
            let text = "streams need QUIC, which this version does not have; use connect";
            return Err(Failed::new(ErrorName::UnknownRequest, text));
        }
        other => {
            let text = format!("there is no request {}; requests are {REQUESTS}", shown(other));
            return Err(Failed::new(ErrorName::UnknownRequest, text));
        }
    };
    let bad = |text: String| Failed::new(ErrorName::BadRequest, text);
    let fields = Fields::new(verb, fields, known).map_err(bad)?;
    match verb.as_str() {
        "connect" => Ok(Request::Connect {
            peer: fields.peer().map_err(bad)?,
            protocols: fields.protocols().map_err(bad)?,
            timeout: fields.timeout().map_err(bad)?,
        }),
        "listen" => Ok(Request::Listen { protocols: fields.protocols().map_err(bad)? }),
        "id" => Ok(Request::Id),
        _ => Ok(Request::Info),
    }
}

/// A text of the program, cut and quoted for an error.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    format!("{cut:?}")
}

struct Fields<'a> {
    verb: &'a str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn new(verb: &'a str, fields: &'a Value, known: &[&str]) -> Result<Self, String> {
        let object =
            fields.as_object().ok_or_else(|| format!("{verb} takes an object, as {{}}"))?;
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("{verb} has no field {}; its fields: {known}", shown(key)));
        }
        Ok(Self { verb, object })
    }

    fn peer(&self) -> Result<String, String> {
        let peer = self.object.get("peer").and_then(Value::as_str);
        peer.map(str::to_owned).ok_or_else(|| {
            format!("{} needs peer: a PeerId, a name of the address book, or an address", self.verb)
        })
    }

    /// One name, or a list of names.
    fn protocols(&self) -> Result<Vec<String>, String> {
        let texts = match self.object.get("protocol") {
            Some(Value::String(name)) => Some(vec![name.clone()]),
            Some(Value::Array(names)) if (1..=PROTOCOLS_MAX).contains(&names.len()) => {
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        texts.ok_or_else(|| {
            format!(
                "{} needs protocol: a name as \"/chat/1\", or a list of 1 to {PROTOCOLS_MAX} names, \
                 the best one first",
                self.verb
            )
        })
    }

    fn timeout(&self) -> Result<Duration, String> {
        let Some(value) = self.object.get("timeout_s") else { return Ok(TIMEOUT) };
        let seconds = value.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok());
        seconds.filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX).ok_or_else(|| {
            format!("timeout_s is a number of seconds above 0, {} at most", TIMEOUT_MAX.as_secs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(datagram: &[u8]) -> Failed {
        read(datagram).expect_err("it is refused")
    }

    #[test]
    fn messages_and_requests_are_told_apart_by_the_first_byte() {
        assert_eq!(read(&[0]), Ok(FromProgram::Message(&[])));
        let request = br#"{"listen":{"protocol":"/echo/1"}}"#;
        // The same bytes after a byte `00` are a message.
        let message = [&[0], &request[..]].concat();
        assert_eq!(read(&message), Ok(FromProgram::Message(request)));
        let protocols = vec!["/echo/1".to_owned()];
        assert_eq!(read(request), Ok(FromProgram::Request(Request::Listen { protocols })));
        let both = br#"{"connect":{"peer":"bob","protocol":["/a/2","/a/1"],"timeout_s":0.5}}"#;
        let connect = Request::Connect {
            peer: "bob".to_owned(),
            protocols: vec!["/a/2".to_owned(), "/a/1".to_owned()],
            timeout: Duration::from_millis(500),
        };
        assert_eq!(read(both), Ok(FromProgram::Request(connect)));
        assert_eq!(read(br#"{"id":{}}"#), Ok(FromProgram::Request(Request::Id)));
        assert_eq!(read(br#"{"info":{}}"#), Ok(FromProgram::Request(Request::Info)));
    }

    #[test]
    fn each_fault_has_its_name_and_says_what_to_do() {
        let long = format!("{{\"id\":{{\"{}\":1}}}}", "x".repeat(JSON_BYTES_MAX));
        for (datagram, name, words) in [
            ("", "bad_datagram", "the byte 00"),
            ("hello", "bad_datagram", "the byte 00"),
            (&long, "bad_datagram", "4096 bytes"),
            ("{", "bad_json", "not JSON"),
            ("{}", "bad_json", "one of connect, listen"),
            (r#"{"id":{},"info":{}}"#, "bad_json", "one key"),
            (r#"{"close":{}}"#, "unknown_request", "connect, listen"),
            (r#"{"stream":{}}"#, "unknown_request", "QUIC"),
            (r#"{"id":1}"#, "bad_request", "takes an object"),
            (r#"{"id":{"peer":"x"}}"#, "bad_request", "no field \"peer\""),
            (r#"{"connect":{"protocol":"/a"}}"#, "bad_request", "needs peer"),
            (r#"{"connect":{"peer":"bob"}}"#, "bad_request", "needs protocol"),
            (r#"{"listen":{"protocol":[]}}"#, "bad_request", "list of 1 to"),
            (r#"{"listen":{"protocol":[1]}}"#, "bad_request", "needs protocol"),
            (
                r#"{"connect":{"peer":"b","protocol":"/a","timeout_s":-1}}"#,
                "bad_request",
                "seconds above 0",
            ),
            (
                r#"{"connect":{"peer":"b","protocol":"/a","timeout_s":1e300}}"#,
                "bad_request",
                "300 at most",
            ),
        ] {
            let failed = refused(datagram.as_bytes());
            assert_eq!(failed.name.as_str(), name, "{datagram}");
            assert!(failed.text.contains(words), "{datagram}: {}", failed.text);
            let json = failed.to_json();
            assert_eq!(json["error"]["name"], name);
            assert!(json.to_string().len() < 1_000, "a fault does not repeat the request");
        }
    }

    #[test]
    fn the_page_lists_every_error_name() {
        let page = include_str!("../../docs/api.md");
        for name in ErrorName::ALL {
            assert!(page.contains(&format!("| `{}` |", name.as_str())), "{}", name.as_str());
        }
    }
}
