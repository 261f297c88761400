//! Waits for a person without a slot: the questions of an attempt stay with its task, which is claimable again once all of
//! them are answered. The next attempt gets the answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::command::AttemptRef;
use super::run::FenceCheck;
use super::{Desired, Rejected, Reply, State, StateChange, Task};
use crate::AgentName;

/// Bytes of the answers that are kept for the next attempt.
const MAX_ANSWERS: usize = 512 << 10;

/// Question of an attempt that has released its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Id of the input request.
    pub request: String,
    /// Encoded `InputRequest` of the API.
    pub asked: Bytes,
    /// Agent that asks; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Encoded `TaskInput` of the API, once it is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Bytes>,
}

impl Task {
    /// Returns the questions that wait for an answer, with their ids: of the running attempt, or of one that has released its slot.
    pub fn open_questions(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        let of_attempt = self.assignment.iter().flat_map(|assignment| &assignment.open_input);
        let released = self.questions.iter().filter(|question| question.answer.is_none());
        let of_attempt = of_attempt.map(|(request, asked)| (request.as_str(), asked));
        of_attempt.chain(released.map(|question| (question.request.as_str(), &question.asked)))
    }

    /// Returns the agent that has asked a question: that of the attempt that has released its slot, or else of the one that runs.
    pub fn asking_agent(&self, request: &str) -> Option<&AgentName> {
        let released = self.questions.iter().find(|question| question.request == request);
        let running = || self.assignment.as_ref()?.agent.as_ref();
        released.and_then(|question| question.agent.as_ref()).or_else(running).or_else(|| self.agent())
    }

    /// Whether it waits for an answer without a slot.
    pub fn waits_for_answer(&self) -> bool {
        self.questions.iter().any(|question| question.answer.is_none())
    }
}

impl Step<'_> {
    /// Takes the task off its worker, which has stored from where another attempt continues. Rejected if other questions are open
    /// than the worker knows: an answer that came meanwhile is for the attempt that runs.
    pub(super) fn release(&mut self, attempt: &AttemptRef, requests: &[String]) -> Result<(), Rejected> {
        if let FenceCheck::Stale = self.check_fence(attempt)? {
            self.reply(Reply::Stale);
            return Ok(());
        }
        let task = &mut *self.task;
        let state = task.state;
        let wanted = state == State::InputRequired && task.desired != Desired::Cancelled;
        let Some(assignment) = task.assignment.as_mut().filter(|_| wanted) else {
            return Err(Rejected::State(state));
        };
        let open = &assignment.open_input;
        let same = open.len() == requests.len() && open.iter().all(|(id, _)| requests.contains(id));
        // Without a checkpoint of its own, the question would have to be asked again.
        let stored = task.checkpointed == assignment.attempt && task.checkpointed > task.concluded;
        if !same || !stored || assignment.work_ended || assignment.stopping.is_some() {
            return Err(Rejected::State(state));
        }
        let open = std::mem::take(&mut assignment.open_input);
        let (worker, agent) = (assignment.worker.clone(), assignment.agent.clone());
        let question = |(request, asked)| Question { request, asked, agent: agent.clone(), answer: None };
        task.questions = open.into_iter().map(question).collect();
        let message = "no worker is needed until the answer";
        self.go(StateChange::new(State::Pending, RELEASED).message(message).worker(&worker));
        Ok(())
    }

    /// Rejects an answer for which there is no room.
    pub(super) fn check_answer(&self, payload: &Bytes) -> Result<(), Rejected> {
        let kept = self.task.questions.iter().flat_map(|question| &question.answer);
        match kept.map(Bytes::len).sum::<usize>() + payload.len() {
            ..=MAX_ANSWERS => Ok(()),
            _ => Err(Rejected::TooMany("bytes of answers")),
        }
    }
}

/// Reason of the step by which an attempt leaves its worker until a question is answered.
pub(super) const RELEASED: &str = "released";
