//! Input requests of a running attempt and the input given to it: answers, and unsolicited messages.

use std::hash::Hasher;

use bytes::Bytes;
use fnv::FnvHasher;

use super::apply::Step;
use super::{
    Answered, Body, EventEffect, Grant, Item, MAX_LOGGED_REPORTS, Question, Rejected, Reply, State,
    StateChange, Task,
};
use crate::Timestamp;

const MAX_INPUTS: u64 = 10_000;
/// Open input requests per task.
pub const MAX_OPEN_REQUESTS: usize = 32;
/// Rules that are allowed for one task.
const MAX_GRANTED: usize = 64;
/// Reports after which an attempt whose log is full may still ask.
const MAX_LATE_REPORTS: u64 = 10_000;

/// Messages to running attempts that a later one gets, and their bytes: the newest.
const MAX_MESSAGES: usize = 32;
const MAX_MESSAGE_BYTES: usize = 80 << 10;

/// Returns the digest of an answer, by which one that is sent again is recognized. It is stored, hence FNV-1a: the same on
/// every machine and in every version.
fn fingerprint(answer: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(answer);
    hasher.finish()
}

fn no_such_question(request: &str) -> Rejected {
    Rejected::NoSuchQuestion(request.chars().take(80).collect())
}

impl Step<'_> {
    /// Rejects a report that would leave too many input requests open at any point.
    pub(super) fn check_questions(&self, items: &[Item]) -> Result<(), Rejected> {
        let known = self.task.assignment.iter().flat_map(|a| &a.open_input);
        let mut open: Vec<&str> = known.map(|(id, _)| id.as_str()).collect();
        // Each one changes the state, which the log shows also when it takes no more reports.
        let reports = self.task.assignment.as_ref().map_or(0, |assignment| assignment.attempt_seq);
        for item in items {
            let asks = matches!(item.effect, EventEffect::InputRequested { .. });
            if asks && reports > MAX_LOGGED_REPORTS + MAX_LATE_REPORTS {
                return Err(Rejected::TooMany("reports to ask further questions"));
            }
            match &item.effect {
                EventEffect::InputRequested { request, .. } if !open.contains(&request.as_str()) => {
                    open.push(request)
                }
                EventEffect::InputResolved(request) => open.retain(|id| id != request),
                _ => {}
            }
            if open.len() > MAX_OPEN_REQUESTS {
                return Err(Rejected::TooMany("open input requests"));
            }
        }
        Ok(())
    }

    /// Moves between RUNNING and INPUT_REQUIRED, which holds exactly while an input request is open. The total time has
    /// stood still, or run, since `at`; it stands as well while the attempt is `held_up`.
    pub(super) fn match_input_state(&mut self, at: Timestamp, held_up: bool) {
        let open = self.task.assignment.as_mut().is_some_and(|assignment| {
            let open = !assignment.open_input.is_empty();
            assignment.pause(open || assignment.work_ended || held_up, at);
            open
        });
        match (self.task.state, open) {
            (State::Running, true) => self.go(StateChange::new(State::InputRequired, "input_required")),
            (State::InputRequired, false) => self.go(StateChange::new(State::Running, "input_settled")),
            _ => {}
        }
    }

    pub(super) fn give_input(
        &mut self,
        request: &str,
        payload: Bytes,
        grant: Option<Grant>,
    ) -> Result<(), Rejected> {
        let task = &mut *self.task;
        let question =
            task.assignment.as_ref().and_then(|a| a.open_input.iter().position(|(id, _)| id == request));
        if question.is_none()
            && let Some(known) = task.answered.iter().find(|known| known.request == request)
            && known.fingerprint == fingerprint(&payload)
        {
            let seq = known.seq;
            self.reply(Reply::InputSeq(seq));
            return Ok(());
        }
        let state = task.state;
        if state.is_final() {
            return Err(Rejected::Final(state));
        }
        let waiting = |known: &Question| known.request == request && known.answer.is_none();
        let released = task.questions.iter().position(waiting).filter(|_| !state.is_on_worker());
        if released.is_none() && (task.assignment.is_none() || state == State::Assigned) {
            return Err(if task.waits_for_answer() && !request.is_empty() {
                no_such_question(request)
            } else {
                Rejected::State(state)
            });
        }
        if task.inputs >= MAX_INPUTS {
            return Err(Rejected::TooMany("inputs"));
        }
        let seq = task.inputs + 1;
        if !request.is_empty() {
            if question.is_none() && released.is_none() {
                return Err(no_such_question(request));
            }
            if released.is_some() {
                self.check_answer(&payload)?;
            }
            let task = &mut *self.task;
            if let Some(Grant { asked, rules }) = grant {
                // What the person has seen is what is granted.
                if task.open_questions().all(|(id, payload)| id != request || *payload != asked) {
                    return Err(no_such_question(request));
                }
                let new: Vec<_> = rules.into_iter().filter(|rule| !task.granted.contains(rule)).collect();
                if task.granted.len() + new.len() > MAX_GRANTED {
                    return Err(Rejected::TooMany("rules that are allowed for the task"));
                }
                task.granted.extend(new);
            }
            if let Some(waiting) = released.and_then(|at| task.questions.get_mut(at)) {
                waiting.answer = Some(payload.clone());
            }
            if let (Some(assignment), Some(at)) = (task.assignment.as_mut(), question) {
                assignment.open_input.remove(at);
            }
            task.answered.retain(|known| known.request != request);
            if task.answered.len() >= MAX_OPEN_REQUESTS {
                task.answered.remove(0);
            }
            let fingerprint = fingerprint(&payload);
            task.answered.push(Answered { request: request.to_owned(), fingerprint, seq });
        } else {
            task.messages.push(payload.clone());
            let is_over = |messages: &[Bytes]| {
                messages.len() > MAX_MESSAGES
                    || messages.iter().map(Bytes::len).sum::<usize>() > MAX_MESSAGE_BYTES
            };
            while is_over(&task.messages) {
                task.messages.remove(0);
            }
        }
        self.task.inputs = seq;
        self.log(self.now, Body::Input { seq, payload });
        if !request.is_empty() {
            self.match_input_state(self.now, false);
        }
        self.settle();
        self.reply(Reply::InputSeq(seq));
        Ok(())
    }
}

impl Task {
    /// Returns the input behind which those begin that the worker misses, which knows the attempt's inputs up to `known`;
    /// `None` if it misses none.
    pub fn missed_inputs(&self, known: u64) -> Option<u64> {
        let known = known.max(self.assignment.as_ref()?.inputs_before);
        (self.inputs > known).then_some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored records depend on these values.
    #[test]
    fn fingerprint_is_fnv_1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
