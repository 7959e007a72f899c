//! Translates errors of sockets for programs: a stable name, and a text that says what to do.

use strowger_gateway::api_message::{ErrorName, Failed};
use strowger_socket::{
    CloseReason, ConnectError, ListenError, SendError,
    connection::{self, ConnectStage},
};

use crate::{
    node::{connect_failure, unsupported},
    target::Target,
};

/// The failure for an error of connecting.
pub(super) fn of_connect(target: &Target, protocols: &str, error: &ConnectError) -> Failed {
    use connection::ConnectError as Why;
    let name = match error {
        ConnectError::BadName(_) => ErrorName::BadProtocol,
        ConnectError::Busy => ErrorName::Busy,
        ConnectError::Failed(why) => match why {
            Why::NoRoute | Why::Timeout { stage: ConnectStage::Lookup } => ErrorName::NoRoute,
            Why::Timeout { .. } | Why::NotAuthenticated { .. } => ErrorName::Timeout,
            Why::WrongPeer { .. } => ErrorName::WrongPeer,
            Why::Unsupported => ErrorName::Unsupported,
            Why::Dropped { .. } => ErrorName::Dropped,
            Why::Disagreement => ErrorName::Disagreement,
            Why::Refused(_) | Why::TooEarly { .. } => ErrorName::Refused,
            Why::PathTooNarrow { .. } => ErrorName::PathTooNarrow,
            Why::NotAllowed | Why::Ourselves => ErrorName::NotAllowed,
            Why::AlreadyOpen => ErrorName::AlreadyOpen,
            Why::TableFull | Why::TooMany => ErrorName::Busy,
            Why::EarlyTooLong { .. } => ErrorName::TooLong,
            Why::Closed => ErrorName::NodeClosed,
        },
        _ => ErrorName::NodeClosed,
    };
    let failed = match error {
        ConnectError::BadName(_) => Failed::new(name, error.to_string()),
        _ => Failed::new(name, connect_failure(target, protocols, error).line),
    };
    let failed = failed.with("peer", target.peer.to_string());
    match error {
        ConnectError::Failed(Why::WrongPeer { found }) => failed.with("found", found.to_string()),
        ConnectError::Failed(Why::Dropped { why }) => failed.with("why", why.to_string()),
        ConnectError::Failed(Why::Timeout { stage }) => failed.with("stage", stage.name()),
        ConnectError::Failed(Why::NotAuthenticated { responses }) => {
            failed.with("stage", ConnectStage::Handshake.name()).with("responses", *responses)
        }
        ConnectError::Failed(Why::TooEarly { seconds }) => failed.with("retry_after_s", *seconds),
        ConnectError::Failed(Why::Refused(goodbye)) => failed
            .with("code", goodbye.code().0)
            .with("retry_after_s", goodbye.seconds())
            .with("goodbye", goodbye.message()),
        _ => failed,
    }
}

/// The failure for an error of listening.
pub(super) fn of_listen(error: &ListenError) -> Failed {
    use connection::ListenError as Why;
    let name = match error {
        ListenError::BadName(_) => ErrorName::BadProtocol,
        ListenError::Failed(Why::AlreadyTaken(_)) => ErrorName::AlreadyTaken,
        ListenError::Failed(Why::TableFull) | ListenError::Busy => ErrorName::Busy,
        _ => ErrorName::NodeClosed,
    };
    Failed::new(name, error.to_string())
}

/// The failure for a message that was not sent. `None` if the socket is closed, or if the message
/// may be sent later.
pub(super) fn of_send(protocol: &str, error: &SendError) -> Option<Failed> {
    let (name, max) = match error {
        SendError::TooLong { max } => (ErrorName::TooLong, Some(*max)),
        SendError::NoPath => (ErrorName::NoPath, None),
        SendError::Unsupported => (ErrorName::Unsupported, None),
        _ => return None,
    };
    let text = match error {
        SendError::Unsupported => unsupported(protocol),
        error => error.to_string(),
    };
    let failed = Failed::new(name, text);
    Some(match max {
        Some(max) => failed.with("max", max),
        None => failed,
    })
}

/// A stable name for the reason why a socket was closed.
pub(super) fn close_name(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::ByUs => "by_us",
        CloseReason::ByPeer(_) => "by_peer",
        CloseReason::TableConflict => "table_conflict",
        CloseReason::Idle => "idle",
        CloseReason::TooMany => "too_many",
        CloseReason::NotConfirmed => "not_confirmed",
        CloseReason::NotAllowed => "not_allowed",
    }
}
