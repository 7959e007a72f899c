//! Pings and traces that clients of the control socket requested. For a bounded number of them,
//! keeps the replies until clients fetch them.

use std::collections::VecDeque;

use strowger_engine::{
    control::messages::{Answer, QuestionId},
    limits::HOPS_MAX,
};

use crate::limits::QUESTIONS_KEPT_MAX;

#[derive(Debug)]
struct PendingQuestion {
    id: QuestionId,
    answers: Vec<Answer>,
    done: bool,
}

/// The pings and traces whose replies are kept.
#[derive(Debug, Default)]
pub(super) struct Questions(VecDeque<PendingQuestion>);

impl Questions {
    /// Adds a ping or trace. If there are too many, the oldest is removed.
    pub(super) fn add(&mut self, id: QuestionId) {
        if self.0.len() >= QUESTIONS_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PendingQuestion { id, answers: Vec::new(), done: false });
    }

    /// Adds a reply to the ping or trace that it belongs to.
    pub(super) fn take(&mut self, id: QuestionId, answer: Answer) {
        let Some(question) = self.0.iter_mut().find(|question| question.id == id) else { return };
        question.done |= !matches!(answer, Answer::Hop(_));
        if question.answers.len() <= usize::from(HOPS_MAX) {
            question.answers.push(answer);
        }
    }

    /// Ends all pings and traces: no more replies will arrive.
    pub(super) fn give_up(&mut self) {
        for question in self.0.iter_mut().filter(|question| !question.done) {
            question.answers.push(Answer::Silence);
            question.done = true;
        }
    }

    /// Returns the replies since the last call, and whether they are complete. Returns `None` if
    /// the ping or trace is unknown, or if all of its replies were fetched.
    pub(super) fn fetch(&mut self, id: QuestionId) -> Option<(Vec<Answer>, bool)> {
        let place = self.0.iter().position(|question| question.id == id)?;
        let question = &mut self.0[place];
        let fetched = (std::mem::take(&mut question.answers), question.done);
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
    fn answers_are_fetched_once_and_the_oldest_question_is_removed() {
        let mut questions = Questions::default();
        for id in 0..QUESTIONS_KEPT_MAX as u32 + 1 {
            questions.add(QuestionId(id));
        }
        assert_eq!(questions.fetch(QuestionId(0)), None, "the oldest");
        assert_eq!(questions.fetch(QuestionId(7)), Some((vec![], false)));
        questions.take(QuestionId(7), Answer::Silence);
        assert_eq!(questions.fetch(QuestionId(7)), Some((vec![Answer::Silence], true)));
        assert_eq!(questions.fetch(QuestionId(7)), None);
        questions.give_up();
        assert_eq!(questions.fetch(QuestionId(8)), Some((vec![Answer::Silence], true)));
    }
}
