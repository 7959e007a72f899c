//! Control messages that routing sends and receives through its caller.

use std::collections::VecDeque;

use strowger_wire::{
    control::{Message, MessageError},
    label::AnyLabel,
};

use crate::limits::QUESTIONS_MAX;

/// A control message to send. The caller writes the switch header, with the control flag and
/// [`flow`](Question::flow).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The label, from this node's slot.
    pub to: AnyLabel,
    /// The message (wire.md 5), without the switch header.
    pub message: Vec<u8>,
}

impl Question {
    /// The flow of the packet: the low half of the id of the request, so that an error about it can
    /// be matched (W5-39).
    pub fn flow(&self) -> u16 {
        match self.message.get(6..8) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }
}

/// Questions that wait for the caller to send them, at most [`QUESTIONS_MAX`].
#[derive(Debug, Default)]
pub struct QuestionQueue(VecDeque<Question>);

impl QuestionQueue {
    /// An empty queue.
    pub const fn new() -> QuestionQueue {
        QuestionQueue(VecDeque::new())
    }

    /// The number of questions that can be added.
    pub fn room(&self) -> usize {
        QUESTIONS_MAX - self.0.len()
    }

    /// Adds a question.
    ///
    /// # Errors
    /// Returns the question if the queue is full.
    pub fn push(&mut self, question: Question) -> Result<(), Question> {
        if self.room() == 0 {
            return Err(question);
        }
        self.0.push_back(question);
        Ok(())
    }

    /// The next question to send.
    pub fn pop(&mut self) -> Option<Question> {
        self.0.pop_front()
    }

    /// The number of questions that wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no question waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A control message that arrived at this node's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlReply<'a> {
    /// The label of a reply to the sender of this message: the return path of the message.
    pub from: AnyLabel,
    /// The message.
    pub message: Message<'a>,
}

impl<'a> ControlReply<'a> {
    /// Reads a control packet's payload, which follows the switch header.
    ///
    /// # Errors
    /// [`MessageError`] if the bytes are no control message.
    pub fn parse(from: AnyLabel, payload: &'a [u8]) -> Result<ControlReply<'a>, MessageError> {
        Ok(ControlReply { from, message: Message::parse(payload)? })
    }
}
