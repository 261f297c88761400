//! Occasions for notifications in workflows: which those of a commit are, which the store has had since a time, and what a
//! notification about one contains. Records of workflows have no log: an occasion that was over before it was read has no notification.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_core::workflow::{State, Step, Workflow};
use rota_core::{TaskKey, Timestamp, WorkflowKey};
use rota_store::{Commit, Error, WorkflowQuery};

use super::message::{self, Data, Notification, Occasion, cut};
use super::snapshot::{Snapshot, WorkflowSnapshot};
use crate::store_client::StoreClient;
use crate::wire;

/// Rows of a page that is read of the store.
const PAGE: usize = 500;
/// Occasions that one look at the store finds: the oldest ones.
const MAX_FOUND: usize = 1000;

/// Subject of a notification, whose record has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Ended(WorkflowKey),
    /// A step waits for a person.
    Asks(WorkflowKey, u32),
}

/// When something has happened, and what.
pub(super) type Place = (Timestamp, What);

/// Returns the place before all others of a time.
pub(super) fn before(at: Timestamp) -> Place {
    (at - Duration::from_micros(1), What::Asks(WorkflowKey(u64::MAX >> 1), u32::MAX))
}

fn ended(workflow: &Workflow) -> Option<Place> {
    let is_over = workflow.state.is_final() && !workflow.deleted;
    Some((workflow.ended_at.filter(|_| is_over)?, What::Ended(workflow.key)))
}

fn asks(step: &Step) -> Option<Place> {
    // Those of earlier versions have the time only if they have a deadline.
    let since = step.waits_since.or(step.ready_at).filter(|_| step.awaits_decision())?;
    Some((since, What::Asks(step.workflow, step.index)))
}

/// Returns the occasions of a commit. Other records of it are those of steps that have waited before, which pauses change, and of
/// workflows that had ended, which late costs and reruns change.
pub(super) fn of_commit(commit: &Commit) -> Vec<Place> {
    let ends = commit.workflows.iter().filter(|one| commit.workflows_ended.contains(&one.key));
    let ends = ends.filter_map(|workflow| ended(workflow));
    let asking =
        commit.steps.iter().filter(|step| commit.steps_asking.contains(&(step.workflow, step.index)));
    ends.chain(asking.filter_map(|step| asks(step))).collect()
}

/// The oldest occasions after a place.
#[derive(Debug)]
struct Oldest {
    after: Place,
    found: BTreeSet<Place>,
    /// Whether others after the last of them were left out.
    more: bool,
}

impl Oldest {
    fn add(&mut self, place: Place) {
        if place > self.after && self.found.insert(place) && self.found.len() > MAX_FOUND {
            self.found.pop_last();
            self.more = true;
        }
    }

    /// Whether everything from a time on is beyond them.
    fn is_full_before(&self, at: Timestamp) -> bool {
        self.more && self.found.last().is_some_and(|last| last.0 < at)
    }
}

/// Returns the oldest occasions of the store after a place, and whether there are more.
pub(super) async fn since(store: &StoreClient, after: Place) -> Result<(BTreeSet<Place>, bool), Error> {
    let mut oldest = Oldest { after, found: BTreeSet::new(), more: false };
    let mut from = (after.0, WorkflowKey::default());
    loop {
        let query = WorkflowQuery::Ended { after: from, limit: PAGE };
        let rows = store.reads().workflows(query).await?.workflows;
        let Some(last) = rows.last() else { break };
        from = (last.ended_at.unwrap_or(from.0), last.key);
        rows.iter().filter_map(ended).for_each(|place| oldest.add(place));
        if oldest.is_full_before(from.0) {
            break;
        }
    }
    let mut last = None;
    loop {
        let query = WorkflowQuery::Active { after: last, limit: PAGE };
        let rows = store.reads().workflows(query).await?.steps;
        let Some(newest) = rows.last() else { break };
        last = Some((newest.workflow, newest.index));
        rows.iter().filter_map(asks).for_each(|place| oldest.add(place));
    }
    Ok((oldest.found, oldest.more))
}

/// Returns the notification about an occasion; `None` if it is over, or is no occasion for one.
pub(super) async fn notification(store: &StoreClient, place: Place) -> Result<Option<Notification>, Error> {
    let query = match place.1 {
        What::Ended(workflow) => WorkflowQuery::Key(workflow),
        What::Asks(workflow, step) => WorkflowQuery::Work(workflow, vec![step]),
    };
    let rows = match store.reads().workflows(query).await {
        // Reported where it is read for another purpose.
        Err(Error::Corrupt(_)) => return Ok(None),
        rows => rows?,
    };
    let Some(workflow) = rows.workflows.first().filter(|workflow| !workflow.deleted) else { return Ok(None) };
    let step = rows.steps.first();
    Ok(match place.1 {
        What::Ended(_) => {
            occasion(workflow).map(|occasion| Notification::of_workflow(workflow, None, occasion, place))
        }
        What::Asks(..) => step
            .filter(|step| asks(step).is_some())
            .map(|step| Notification::of_workflow(workflow, Some(step), Occasion::Approval, place)),
    })
}

/// Returns what the end of a workflow is to those who are notified. That of one that is a step is the matter of the one around it,
/// unless a person must look at it.
fn occasion(workflow: &Workflow) -> Option<Occasion> {
    match workflow.state {
        State::CompensationFailed => Some(Occasion::CompensationFailed),
        State::Failed if workflow.parent.is_none() => Some(Occasion::WorkflowFailed),
        State::Succeeded if workflow.parent.is_none() => Some(Occasion::WorkflowSucceeded),
        _ => None,
    }
}

impl Notification {
    /// Returns one about the end of a workflow, or about a step of it that waits for a person.
    pub(super) fn of_workflow(
        workflow: &Workflow,
        step: Option<&Step>,
        occasion: Occasion,
        place: Place,
    ) -> Self {
        let (id, namespace) = (workflow.id.to_string(), &workflow.namespace);
        let command = match step {
            Some(step) => format!("rota workflow approve {id} -n {namespace} --step {}", step.name),
            None if occasion == Occasion::CompensationFailed => {
                format!("rota workflow explain {id} -n {namespace}")
            }
            None => format!("rota workflow get {id} -n {namespace}"),
        };
        let data = Data {
            namespace: namespace.to_string(),
            workflow: id.clone(),
            step: step.map_or(&workflow.failed_step, |step| &step.name).clone(),
            round: step.map_or(0, |step| step.round),
            deadline: step.and_then(|step| step.due).map(wire::time::rfc3339),
            alias: workflow.alias.clone().unwrap_or_default(),
            title: cut(&workflow.title),
            message: cut(step.map_or(&workflow.message, |step| &step.question)),
            snapshot: step.is_none().then(|| Snapshot::Workflow(WorkflowSnapshot::new(workflow))),
            command,
            ..Data::default()
        };
        Self {
            subject: TaskKey(workflow.key.0),
            namespace: namespace.clone(),
            occasion,
            id: match step {
                Some(step) => format!("msg_{id}_step_{}", step.index),
                // It ends again once a person has resolved a failed compensation.
                None if workflow.resolved > 0 => format!("msg_{id}_end_{}", workflow.resolved),
                None => format!("msg_{id}_end"),
            },
            subject_id: id,
            place: message::Place::Workflow(place),
            at: place.0,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_core::workflow::{Kind, StepState};
    use rota_core::{Namespace, WorkflowId};
    use uuid::Uuid;

    use super::*;

    fn workflow(state: State) -> Workflow {
        let workflow = Workflow::new(WorkflowId(Uuid::nil()), Namespace::new("n").unwrap());
        Workflow { key: WorkflowKey(7), state, ended_at: Some(Timestamp(5)), ..workflow }
    }

    #[test]
    fn ends_and_questions_are_occasions() {
        assert_eq!(ended(&workflow(State::Failed)), Some((Timestamp(5), What::Ended(WorkflowKey(7)))));
        assert_eq!(ended(&workflow(State::Finalizing)), None);
        assert_eq!(ended(&Workflow { deleted: true, ..workflow(State::Failed) }), None);
        let mut step = Step::new("ask".to_owned(), Kind::Approval { deadline: None, approves: false });
        (step.ready_at, step.waits_since) = (Some(Timestamp(1)), Some(Timestamp(3)));
        assert_eq!(asks(&step), None, "it does not wait yet");
        step.state = StepState::Running;
        assert_eq!(asks(&step).map(|(at, _)| at), Some(Timestamp(3)));
        step.kind = Kind::Signal { timeout: None };
        assert_eq!(asks(&step), None);
        assert_eq!(occasion(&workflow(State::Cancelled)), None);
    }

    #[test]
    fn records_that_are_written_again_are_no_occasions() {
        let mut step = Step::new("ask".to_owned(), Kind::Approval { deadline: None, approves: false });
        (step.state, step.waits_since) = (StepState::Running, Some(Timestamp(3)));
        let key = (step.workflow, step.index);
        let (workflows, steps) = (vec![workflow(State::Failed).into()], vec![step.into()]);
        let mut commit = Commit { workflows, steps, ..Commit::default() };
        assert_eq!(of_commit(&commit), []);
        (commit.workflows_ended, commit.steps_asking) = (vec![WorkflowKey(7)], vec![key]);
        assert_eq!(of_commit(&commit).len(), 2);
    }

    #[test]
    fn oldest_occasions_are_kept() {
        let place = |at: i64| (Timestamp(at), What::Ended(WorkflowKey(1)));
        let mut oldest = Oldest { after: before(Timestamp(10)), found: BTreeSet::new(), more: false };
        (0..2000).rev().for_each(|at| oldest.add(place(at)));
        let last = 9 + i64::try_from(MAX_FOUND).unwrap();
        assert_eq!((oldest.found.first(), oldest.found.last()), (Some(&place(10)), Some(&place(last))));
        assert!(oldest.more && oldest.is_full_before(Timestamp(last + 1)));
        assert!(!oldest.is_full_before(Timestamp(last)));
    }
}
