//! Connecting to a peer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use strowger_connection::{BadProtocolName, ConnectOptions, Destination, ProtocolNames};
use strowger_crypto::Nanos;

use crate::{
    connection,
    error::{ConnectError, ListenError, NodeClosed},
    reply::{Reply, reply},
    shared::{Alive, Request},
    socket::Socket,
    wait::block_on,
};

/// Protocol names as `connect` and `listen` take them: one text, an array or slice of texts with the
/// preferred one first, or [`ProtocolNames`].
pub trait IntoProtocolNames {
    /// The names.
    ///
    /// # Errors
    /// A text that is no protocol name.
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName>;
}

impl IntoProtocolNames for ProtocolNames {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        Ok(self)
    }
}

impl IntoProtocolNames for &str {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new([self])
    }
}

impl IntoProtocolNames for &String {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new([self])
    }
}

impl<N: AsRef<str>, const COUNT: usize> IntoProtocolNames for [N; COUNT] {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new(self)
    }
}

impl<N: AsRef<str>> IntoProtocolNames for &[N] {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new(self)
    }
}

impl<N: AsRef<str>> IntoProtocolNames for Vec<N> {
    fn into_names(self) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new(self)
    }
}

enum State {
    /// Not started.
    New(Box<(Destination, ProtocolNames, ConnectOptions)>),
    Waiting(Reply<Result<Socket, connection::ConnectError>>),
    Failed(ConnectError),
    Ended,
}

/// An attempt to connect, from [`Node::connect`](crate::Node::connect): a future, and
/// [`wait`](Self::wait) for code without async.
///
/// The attempt starts with the first poll, or with `wait`. Dropping the future ends it.
#[must_use = "an attempt begins when it is awaited, or with `wait`"]
pub struct Connecting {
    alive: Arc<Alive>,
    state: State,
}

impl Connecting {
    pub(crate) fn new(
        alive: Arc<Alive>,
        to: Destination,
        names: Result<ProtocolNames, BadProtocolName>,
    ) -> Self {
        let state = match names {
            Ok(names) => State::New(Box::new((to, names, ConnectOptions::new()))),
            Err(error) => State::Failed(error.into()),
        };
        Self { alive, state }
    }

    fn change(mut self, change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Self {
        if let State::New(parts) = &mut self.state {
            parts.2 = change(std::mem::take(&mut parts.2));
        }
        self
    }

    /// Sets the time after which the attempt fails; 9 s without this call. Has no effect on an
    /// attempt that has started.
    pub fn timeout(self, timeout: Duration) -> Self {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.change(|options| options.timeout(Nanos(nanos)))
    }

    /// Sends this message in the first packet, if the peer's static key is known and the peer
    /// accepts such messages, and otherwise as any other message. An early message needs no round
    /// trip. A relay may record it and deliver a copy to another process of the peer, so it must be
    /// idempotent.
    pub fn early(self, message: &[u8]) -> Self {
        self.change(|options| options.early(message.to_vec()))
    }

    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Result<Socket, ConnectError>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::New(parts) => {
                    let (to, names, options) = *parts;
                    let (responder, waiting) = reply();
                    let to = Box::new(to);
                    let request = Request::Connect { to, names, options, reply: responder };
                    match self.alive.0.request(request) {
                        Ok(()) => self.state = State::Waiting(waiting),
                        Err(why) => return Poll::Ready(Err(why.into())),
                    }
                }
                State::Waiting(mut waiting) => {
                    let polled = Pin::new(&mut waiting).poll(cx);
                    return match polled {
                        Poll::Pending => {
                            self.state = State::Waiting(waiting);
                            Poll::Pending
                        }
                        Poll::Ready(Ok(Ok(socket))) => Poll::Ready(Ok(socket)),
                        Poll::Ready(Ok(Err(error))) => Poll::Ready(Err(error.into())),
                        Poll::Ready(Err(NodeClosed)) => Poll::Ready(Err(NodeClosed.into())),
                    };
                }
                State::Failed(error) => return Poll::Ready(Err(error)),
                State::Ended => return Poll::Ready(Err(NodeClosed.into())),
            }
        }
    }

    /// Blocks until the socket is open or the attempt has failed, at most for the time set by
    /// [`timeout`](Self::timeout).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn wait(mut self) -> Result<Socket, ConnectError> {
        block_on(None, |cx| self.poll_connect(cx)).unwrap_or(Err(NodeClosed.into()))
    }
}

impl Future for Connecting {
    type Output = Result<Socket, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_connect(cx)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let State::Waiting(waiting) = std::mem::replace(&mut self.state, State::Ended) {
            drop(waiting);
            self.alive.0.request_sweep();
        }
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

/// Waits for the driver's answer to a request to listen. A program that runs the driver itself must
/// not wait, because the driver would not run meanwhile; it gets the error when it uses the object.
pub(crate) fn answer_of(
    alive: &Alive,
    waiting: Reply<Result<(), connection::ListenError>>,
) -> Result<(), ListenError> {
    if alive.0.is_manual {
        return Ok(());
    }
    Ok(waiting.wait_forever()??)
}
