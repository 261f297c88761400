//! Steps that are added to a workflow that runs.

use std::sync::Arc;

use rota_core::Timestamp;
use rota_core::workflow::{Rejected, Step};

use super::workflow_set::StepEntry;
use super::{Answer, Engine};
use crate::{AddStep, Backend, Error, NewStep, Refused, Reply, WORKFLOW_MEMBER};

impl<B: Backend> Engine<B> {
    pub(super) fn add_step(
        &mut self,
        add: AddStep,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let AddStep { namespace, id, total, step: NewStep { mut step, spec, needs }, stops } = add;
        let Some(key) = self.find_workflow(&(namespace, id))? else {
            return Ok(Err(Refused::NoWorkflow(id)));
        };
        let needed = needs.iter().map(|need| (key, need.step));
        self.load_steps(needed.chain([(key, WORKFLOW_MEMBER)]))?;
        let set = &mut self.write_set.workflows;
        let is_current = set.workflow(key).is_some_and(|workflow| workflow.total() == total);
        if !is_current {
            return Ok(Err(set.refusal(key, None, Rejected::Outdated)));
        }
        (step.needs, step.doomed) = (0, false);
        let mut open = Vec::new();
        for need in needs {
            match set.step((key, need.step)) {
                None => return Ok(Err(set.refusal(key, Some(need.step), Rejected::Outdated))),
                // What follows from its end was decided, and does not reach a step that is new.
                Some(ended) if ended.state.is_final() => step.doomed |= !ended.satisfies(need.continues),
                Some(_) => open.push(need),
            }
        }
        step.needs = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let Some(Some(entry)) = set.records.get_mut(&key) else {
            return Ok(Err(Refused::Workflow(Rejected::Outdated)));
        };
        let change = match entry.workflow.add(&mut step, now) {
            Ok(change) => change,
            Err(rejected) => return Ok(Err(Refused::Workflow(rejected))),
        };
        let index = step.index;
        for need in open {
            set.changes.edges.push(((key, need.step), index, need.continues));
            if let Some(Some(needed)) = set.steps.get_mut(&(key, need.step)) {
                needed.step.has_dependents = true;
                let stops = stops.iter().find(|(step, _)| *step == need.step);
                needed.step.stops = stops.map_or(needed.step.stops, |(_, stops)| *stops);
            }
            set.change_step((key, need.step));
        }
        let step = Step { workflow: key, ..step };
        let entry = StepEntry { step: step.clone(), new: Some(spec), changed: false };
        set.steps.insert((key, index), Some(entry));
        set.change_step((key, index));
        set.change_workflow(key);
        set.extended.insert(key);
        self.follow_workflow(key, change);
        Ok(Ok(Reply::Step(Arc::new(step)).into()))
    }
}
