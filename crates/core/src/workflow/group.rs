//! Concurrency groups: limits on what runs at the same time, across workflows. A workflow waits for its place before its first step
//! and leaves the group with its end; a step waits before its first round and leaves with its end. Who is next is not decided
//! here: the store admits members in the order of their creation. Workflows and steps have separate groups, so that nothing waits for
//! what waits for it.

use serde::{Deserialize, Serialize};

use super::{Change, Follow, State, Step, StepState, Workflow, no};

/// Largest limit of a group.
pub const MAX_GROUP_LIMIT: u32 = 256;

/// Concurrency group of a workflow or a step, with its place there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    /// Members that may hold it when this one is admitted, with this one.
    pub limit: u32,
    /// Whether all other members are cancelled in its favor.
    #[serde(default, skip_serializing_if = "no")]
    pub replaces: bool,
    #[serde(default)]
    pub place: Place,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    #[default]
    Outside,
    Waiting,
    Holding,
}

fn is_waiting(group: Option<&Group>) -> bool {
    group.is_some_and(|group| group.place == Place::Waiting)
}

fn leave(group: Option<&mut Group>) -> bool {
    group.is_some_and(|group| std::mem::take(&mut group.place) != Place::Outside)
}

impl Step {
    /// Whether it starts once it has a place in its group.
    pub fn waits_for_group(&self) -> bool {
        is_waiting(self.group.as_deref())
    }

    /// Lets it wait for a place, if it has a group. Returns whether it has.
    pub(super) fn join(&mut self, out: &mut Change) -> bool {
        let Some(group) = self.group.as_deref_mut() else { return false };
        group.place = Place::Waiting;
        out.follow.push(Follow::Join { step: Some(self.index) });
        true
    }

    pub(super) fn leave(&mut self, out: &mut Change) {
        if leave(self.group.as_deref_mut()) {
            out.follow.push(Follow::Leave { step: Some(self.index) });
        }
    }
}

impl Workflow {
    /// Whether its steps start once it has a place in its group.
    pub fn waits_for_group(&self) -> bool {
        is_waiting(self.group.as_deref())
    }

    /// Whether nothing may start, since it has no place in its group.
    pub(super) fn lacks_group(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.place != Place::Holding)
    }

    /// Waits for its place, unless it is paused: then others go first.
    pub(super) fn join(&mut self, out: &mut Change) {
        let may_join = match self.state {
            State::Running => !self.paused,
            // It continues after its end.
            state => state == State::Compensating,
        };
        if let Some(group) = self.group.as_deref_mut()
            && may_join
            && group.place == Place::Outside
        {
            group.place = Place::Waiting;
            out.follow.push(Follow::Join { step: None });
        }
    }

    pub(super) fn leave(&mut self, out: &mut Change) {
        if leave(self.group.as_deref_mut()) {
            out.follow.push(Follow::Leave { step: None });
        }
    }

    /// Takes back a step that would have a place while the workflow is paused: others go first.
    pub(super) fn hold_back(&mut self, step: &mut Step, out: &mut Change) {
        step.leave(out);
        step.state = StepState::Held;
        step.round = 0;
        self.active = self.active.saturating_sub(1);
        *self.held(step) += 1;
    }
}
