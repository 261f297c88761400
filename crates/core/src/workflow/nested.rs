//! Workflows that run as steps of others: their place, their ids, and their bounds. The id of one follows from its place, so that
//! the store finds the workflows of a step without an index of them, and none is created twice.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Builder;

use super::{Change, Follow, MAX_ROUNDS, State, Step, StepRef, TaskEnd, Workflow};
use crate::{WorkflowId, WorkflowKey};

/// Workflows that may be within each other, below the outermost one.
pub const MAX_DEPTH: u32 = 4;
/// Workflows that one workflow may have below it, at any depth.
pub const MAX_NESTED: u32 = 1_000;
/// Steps of a workflow that may be workflows.
pub const MAX_NESTING_STEPS: usize = 256;
/// Workflows that one step may have at the same time.
pub const MAX_NESTED_ITEMS: u32 = 256;

/// Place of a workflow in the one of which it is a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub step: StepRef,
    /// Number of workflows around it, from 1.
    pub depth: u32,
    /// The outermost workflow around it, which counts all below it.
    pub root: WorkflowKey,
}

/// What a workflow passes on to those that are its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NestedCommand {
    Cancel,
    /// Also their finally-steps. Earlier versions have stored it under this name.
    #[serde(rename = "cancel_again")]
    CancelFinally,
    Pause {
        suspend: bool,
    },
    Resume,
    /// They are removed, and then the workflow itself.
    Remove,
}

impl Workflow {
    /// Returns the id of the workflow that a step runs in a round for an item.
    pub fn nested_id(&self, step: u32, round: u32, item: u32) -> WorkflowId {
        let place = [step, round, item].map(u32::to_be_bytes).concat();
        let digest = Sha256::new().chain_update(self.id.0.as_bytes()).chain_update(place).finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
        WorkflowId(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Number of workflows around this one.
    pub fn depth(&self) -> u32 {
        self.parent.as_ref().map_or(0, |parent| parent.depth)
    }

    /// Whether it is that step of another workflow. One with the id of such a one may be a foreign one.
    pub fn is_step(&self, workflow: WorkflowKey, step: u32) -> bool {
        let place = self.parent.as_ref().map(|parent| (parent.step.workflow, parent.step.step));
        place == Some((workflow, step))
    }

    /// Returns the outermost workflow around this one: itself, if there is none.
    pub fn root(&self) -> WorkflowKey {
        self.parent.as_ref().map_or(self.key, |parent| parent.root)
    }

    /// Passes a command on to the workflows that are its steps, or to those of one step.
    pub(super) fn pass_on(&self, command: NestedCommand, only: Option<u32>, out: &mut Change) {
        if !self.nests.is_empty() {
            out.follow.push(Follow::Nested { command, only });
        }
    }

    /// Returns how its end counts for the step that it is.
    pub fn end_as_step(&self) -> TaskEnd {
        match self.state {
            State::Succeeded => TaskEnd::Succeeded,
            State::Cancelled => TaskEnd::Cancelled,
            _ => TaskEnd::Failed,
        }
    }

    /// Whether a command of an earlier commit still applies to the workflows that are its steps.
    pub fn still_passes_on(&self, command: NestedCommand) -> bool {
        match command {
            NestedCommand::Pause { .. } => self.is_paused(),
            NestedCommand::Resume => !self.is_paused(),
            NestedCommand::Cancel | NestedCommand::CancelFinally | NestedCommand::Remove => true,
        }
    }
}

impl Step {
    /// Returns the places, by round and item, of the workflows of a step that a command concerns. Earlier rounds of a step
    /// have ended: they are only removed, and had one workflow each.
    pub fn nested(&self, command: NestedCommand) -> impl Iterator<Item = (u32, u32)> + use<> {
        nested_places(Some(self), command)
    }
}

/// Returns the places of [`Step::nested`]. Of a step whose record cannot be decoded they are all that it may have.
pub fn nested_places(
    step: Option<&Step>,
    command: NestedCommand,
) -> impl Iterator<Item = (u32, u32)> + use<> {
    let (earlier, round, created, later) = match step {
        Some(step) => {
            let earlier = if command == NestedCommand::Remove { 1..step.round.max(1) } else { 1..1 };
            (earlier, step.round, if step.reused { 0 } else { step.created }, 1..1)
        }
        None => (1..1, 1, MAX_NESTED_ITEMS, 2..MAX_ROUNDS + 1),
    };
    let of_round = (0..created).map(move |item| (round, item));
    earlier.map(|round| (round, 0)).chain(of_round).chain(later.map(|round| (round, 0)))
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Kind};
    use super::*;
    use crate::{Namespace, Timestamp};

    fn workflow(kind: Kind) -> Workflow {
        let id = WorkflowId(uuid::Uuid::from_u128(7));
        let mut workflow = Workflow::new(id, Namespace::new("n").unwrap());
        workflow.begin(
            &mut [Step::new("a".to_owned(), Kind::Task), Step::new("b".to_owned(), kind)],
            Timestamp(1),
        );
        workflow
    }

    #[test]
    fn ids_follow_from_places() {
        let one = workflow(Kind::Workflow);
        let ids = [(0, 1, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1)]
            .map(|(step, round, item)| one.nested_id(step, round, item));
        let distinct: std::collections::BTreeSet<_> = ids.iter().map(|id| id.0).collect();
        assert_eq!((distinct.len(), one.nested_id(1, 2, 0)), (4, ids[2]));
        assert_eq!(
            ids[0].to_string(),
            "5f2d40e1-2a86-8c1e-a527-28f02467ef85",
            "stored ids stay what they are"
        );
    }

    #[test]
    fn only_workflows_with_others_pass_commands_on() {
        let nested =
            |change: &Change| change.follow.iter().any(|follow| matches!(follow, Follow::Nested { .. }));
        for (kind, expected) in [(Kind::Workflow, true), (Kind::Task, false)] {
            let mut one = workflow(kind);
            let pause = one.apply(Command::Pause { suspend: false }, Timestamp(2)).unwrap();
            let resume = one.apply(Command::RESUME, Timestamp(3)).unwrap();
            let cancel = one.apply(Command::Cancel { reason: String::new() }, Timestamp(4)).unwrap();
            assert_eq!([&pause, &resume, &cancel].map(nested), [expected; 3], "{kind:?}");
        }
    }
}
