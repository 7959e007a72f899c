//! Pings and traces that clients of the control socket had asked: what has come of each is kept until it
//! is fetched. It never waits for a client, and keeps a fixed number.

use std::collections::VecDeque;

use strowger_engine::{
    control::messages::{Answer, QuestionId},
    limits::HOPS_MAX,
};

use crate::limits::KEPT_MAX;

#[derive(Debug)]
struct Asked {
    id: QuestionId,
    answers: Vec<Answer>,
    done: bool,
}

/// What clients had asked.
#[derive(Debug, Default)]
pub(super) struct Questions(VecDeque<Asked>);

impl Questions {
    /// Keeps a place for what will come of a question.
    pub(super) fn expect(&mut self, id: QuestionId) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Asked { id, answers: Vec::new(), done: false });
    }

    /// Takes what has come of one.
    pub(super) fn take(&mut self, id: QuestionId, answer: Answer) {
        let Some(asked) = self.0.iter_mut().find(|asked| asked.id == id) else { return };
        asked.done |= !matches!(answer, Answer::Hop(_));
        if asked.answers.len() <= usize::from(HOPS_MAX) {
            asked.answers.push(answer);
        }
    }

    /// Nothing more will come of any of them.
    pub(super) fn give_up(&mut self) {
        for asked in self.0.iter_mut().filter(|asked| !asked.done) {
            asked.answers.push(Answer::Silence);
            asked.done = true;
        }
    }

    /// What has come since this was last asked, and whether that is all; `None` if nobody asked such
    /// a question, or its answers were fetched already.
    pub(super) fn fetch(&mut self, id: QuestionId) -> Option<(Vec<Answer>, bool)> {
        let place = self.0.iter().position(|asked| asked.id == id)?;
        let asked = &mut self.0[place];
        let fetched = (std::mem::take(&mut asked.answers), asked.done);
        if fetched.1 {
            self.0.remove(place);
        }
        Some(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_fetched_once_and_forgotten_questions_make_room() {
        let mut questions = Questions::default();
        for id in 0..KEPT_MAX as u32 + 1 {
            questions.expect(QuestionId(id));
        }
        assert_eq!(questions.fetch(QuestionId(0)), None, "the oldest made room");
        assert_eq!(questions.fetch(QuestionId(7)), Some((vec![], false)));
        questions.take(QuestionId(7), Answer::Silence);
        assert_eq!(questions.fetch(QuestionId(7)), Some((vec![Answer::Silence], true)));
        assert_eq!(questions.fetch(QuestionId(7)), None);
        questions.give_up();
        assert_eq!(questions.fetch(QuestionId(8)), Some((vec![Answer::Silence], true)));
    }
}
