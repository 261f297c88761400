//! Questions of a running attempt, and input for it: answers, and messages out of turn.

use bytes::Bytes;

use super::apply::Step;
use super::{Answered, Body, Item, Meaning, Rejected, Reply, State, StateChange};

/// Inputs that one task may be given.
const MAX_INPUTS: u64 = 10_000;
/// Questions that may wait at a time.
const MAX_OPEN_INPUT: usize = 32;
/// FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>): the same on every machine and for ever.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Step<'_> {
    /// Refuses what would leave too many questions open at any time.
    pub(super) fn check_questions(&self, items: &[Item]) -> Result<(), Rejected> {
        let known = self.task.assignment.iter().flat_map(|a| &a.open_input);
        let mut open: Vec<&str> = known.map(|(id, _)| id.as_str()).collect();
        for item in items {
            match &item.meaning {
                Meaning::Asks { request, .. } if !open.contains(&request.as_str()) => open.push(request),
                Meaning::Settles(request) => open.retain(|id| id != request),
                _ => {}
            }
            if open.len() > MAX_OPEN_INPUT {
                return Err(Rejected::TooMany("open questions"));
            }
        }
        Ok(())
    }

    /// INPUT_REQUIRED exactly while a question is open.
    pub(super) fn match_input_state(&mut self) {
        let open = self.task.assignment.as_ref().is_some_and(|a| !a.open_input.is_empty());
        match (self.task.state, open) {
            (State::Running, true) => self.go(StateChange::new(State::InputRequired, "input_required")),
            (State::InputRequired, false) => self.go(StateChange::new(State::Running, "input_settled")),
            _ => {}
        }
    }

    pub(super) fn give_input(&mut self, request: &str, payload: Bytes) -> Result<(), Rejected> {
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
        let Some(assignment) = task.assignment.as_mut().filter(|_| state != State::Assigned) else {
            return Err(Rejected::State(state));
        };
        if task.inputs >= MAX_INPUTS {
            return Err(Rejected::TooMany("inputs"));
        }
        let seq = task.inputs + 1;
        if !request.is_empty() {
            let Some(question) = question else {
                return Err(Rejected::NoSuchQuestion(request.chars().take(80).collect()));
            };
            assignment.open_input.remove(question);
            task.answered.retain(|known| known.request != request);
            if task.answered.len() >= MAX_OPEN_INPUT {
                task.answered.remove(0);
            }
            let fingerprint = fingerprint(&payload);
            task.answered.push(Answered { request: request.to_owned(), fingerprint, seq });
        }
        task.inputs = seq;
        self.log(self.now, Body::Input { seq, payload });
        self.match_input_state();
        self.reply(Reply::InputSeq(seq));
        Ok(())
    }
}
