//! Message traits with the names of go-msgio, for code that should not depend on sockets.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    message::Message,
    socket::{Socket, SocketReceiver, SocketSender},
};

/// A source of messages.
pub trait ReadMsg {
    /// Returns the next message, or registers the task's waker if there is none.
    ///
    /// # Errors
    /// The source is closed, or has failed.
    fn poll_read_msg(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Message>>;

    /// Waits for the next message. If the future is dropped, it has taken no message.
    fn read_msg(&mut self) -> ReadOne<'_, Self>
    where
        Self: Sized,
    {
        ReadOne(self)
    }
}

/// A sink of messages.
pub trait WriteMsg {
    /// Sends a message whole, or registers the task's waker.
    ///
    /// # Errors
    /// The sink is closed, has failed, or refuses the message.
    fn poll_write_msg(&mut self, cx: &mut Context<'_>, message: &[u8]) -> Poll<io::Result<()>>;

    /// Sends a message. If the future is dropped, all of the message was sent or nothing.
    fn write_msg<'a>(&'a mut self, message: &'a [u8]) -> WriteOne<'a, Self>
    where
        Self: Sized,
    {
        WriteOne { sink: self, message }
    }
}

/// The future of [`ReadMsg::read_msg`].
#[derive(Debug)]
pub struct ReadOne<'a, R>(&'a mut R);

impl<R: ReadMsg> Future for ReadOne<'_, R> {
    type Output = io::Result<Message>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_read_msg(cx)
    }
}

/// The future of [`WriteMsg::write_msg`].
#[derive(Debug)]
pub struct WriteOne<'a, W> {
    sink: &'a mut W,
    message: &'a [u8],
}

impl<W: WriteMsg> Future for WriteOne<'_, W> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.sink.poll_write_msg(cx, this.message)
    }
}

impl ReadMsg for SocketReceiver {
    fn poll_read_msg(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Message>> {
        self.poll_recv(cx).map_err(io::Error::from)
    }
}

impl WriteMsg for SocketSender {
    fn poll_write_msg(&mut self, cx: &mut Context<'_>, message: &[u8]) -> Poll<io::Result<()>> {
        self.poll_send(cx, message).map_err(io::Error::from)
    }
}

impl ReadMsg for Socket {
    fn poll_read_msg(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Message>> {
        self.poll_recv(cx).map_err(io::Error::from)
    }
}

impl WriteMsg for Socket {
    fn poll_write_msg(&mut self, cx: &mut Context<'_>, message: &[u8]) -> Poll<io::Result<()>> {
        self.poll_send(cx, message).map_err(io::Error::from)
    }
}
