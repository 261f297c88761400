//! Compensations: of what has succeeded, the last first, one after the other, between all other steps and those of `finally`.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::workflow::TaskEnd;
use rota_proto::v1::{OnStepFailure, StepState, StepStatus, WorkflowState};

use super::{Ended, Part, time};

/// Adds the compensation of an item. Returns one that may not exist besides it: a person may have let one that has failed run again.
pub(super) fn insert(
    parts: &mut BTreeMap<i32, Part>,
    item: i32,
    part: Part,
    step: &StepStatus,
) -> Option<Part> {
    let Some(other) = parts.remove(&item) else {
        parts.insert(item, part);
        return None;
    };
    let (earlier, later) = if other.created < part.created { (other, part) } else { (part, other) };
    parts.insert(item, later);
    let is_retried = step.compensation_failures > 0 && earlier.end != Some(TaskEnd::Succeeded);
    (!is_retried).then_some(earlier)
}

/// Whether a person has resolved the last failure of its compensation.
fn is_resolved(step: &StepStatus) -> bool {
    step.resolved_compensation.is_some() && step.compensation() != StepState::Failed
}

impl Ended {
    /// W7: after a failure that compensates, each step that has succeeded is compensated once, in the reverse order of their ends, and
    /// elements of a list from the last to the first; nothing else is.
    pub(super) fn check_compensations(&self, violated: &mut impl FnMut(&str, String)) {
        let mut ran: Vec<_> = self.compensations.iter().enumerate().flat_map(of_step).collect();
        ran.sort_by_key(|(_, _, part)| part.created);
        self.check_order_of_compensations(&ran, violated);
        let has_failed = |part: &Part| part.end != Some(TaskEnd::Succeeded);
        let failed = ran.iter().any(|(step, _, part)| has_failed(part) && !is_resolved(&self.steps[*step]));
        if failed != (self.state == WorkflowState::CompensationFailed) {
            violated("?", format!("W7: {:?}, while a compensation has failed: {failed}", self.state));
        }
        let main = &self.steps[..self.spec.steps.len()];
        let stopped =
            main.iter().any(|step| matches!(step.state(), StepState::Failed | StepState::Cancelled));
        let compensates = self.spec.on_failure() == OnStepFailure::Compensate
            && (stopped || self.state == WorkflowState::Cancelled);
        for (index, step) in self.steps.iter().enumerate() {
            let found: BTreeSet<_> = self.compensations[index].keys().copied().collect();
            let meant = if compensates { self.compensable(index) } else { BTreeSet::new() };
            // A failure leaves the rest to a person, and a second cancellation ends them.
            let is_complete = stopped && !failed && self.state != WorkflowState::Cancelled;
            let is_resolved = is_resolved(step);
            if !found.is_subset(&meant) || is_complete && !is_resolved && found != meant {
                violated(&step.name, format!("W7: compensated {found:?}, and not {meant:?}"));
            }
            let all =
                !found.is_empty() && found == meant && !self.compensations[index].values().any(has_failed);
            if !is_resolved && all != (step.compensation() == StepState::Succeeded) {
                violated(&step.name, format!("W7: its compensation is {:?}: {found:?}", step.compensation()));
            }
        }
    }

    /// Returns the elements of a step that its compensation reverses; 0 for a step without a list.
    fn compensable(&self, index: usize) -> BTreeSet<i32> {
        let (spec, step) = (&self.specs[index], &self.steps[index]);
        if spec.compensate.is_none() || step.finally {
            return BTreeSet::new();
        }
        if spec.for_each.is_none() {
            return (step.state() == StepState::Succeeded).then_some(0).into_iter().collect();
        }
        let last = self.parts[index].range((step.round, 0)..);
        let succeeded = last.filter(|(_, part)| part.end == Some(TaskEnd::Succeeded));
        succeeded.map(|((_, item), _)| *item).collect()
    }

    fn check_order_of_compensations(
        &self,
        ran: &[(usize, i32, &Part)],
        violated: &mut impl FnMut(&str, String),
    ) {
        let (Some((_, _, first)), Some((_, _, last))) = (ran.first(), ran.last()) else { return };
        for (index, step) in self.steps.iter().enumerate() {
            let is_early = time(step.end_time.as_ref()) > first.created;
            if index < self.spec.steps.len() && is_early {
                violated(&step.name, "W7: ran when a compensation had begun".to_owned());
            }
            // What a person has resolved is compensated after the end of the workflow.
            let is_reopened = self.steps.iter().any(|step| step.resolved_compensation.is_some());
            let starts = time(step.start_time.as_ref()).filter(|_| step.finally && !is_reopened);
            if starts.is_some_and(|start| Some(start) < last.ended) {
                violated(&step.name, "W7: started before the last compensation had ended".to_owned());
            }
        }
        for pair in ran.windows(2) {
            let ([(step, item, part), (next, next_item, after)], name) = (pair, &self.steps[pair[1].0].name)
            else {
                continue;
            };
            let in_order = match step == next {
                true => item > next_item,
                // Steps that one commit has ended are in any order.
                false => {
                    time(self.steps[*step].end_time.as_ref()) >= time(self.steps[*next].end_time.as_ref())
                }
            };
            if !in_order {
                violated(name, format!("W7: compensated after {}, item {item}", self.steps[*step].name));
            }
            if part.ended.is_none() || after.created < part.ended {
                violated(name, format!("W7: compensated before {} had ended", part.name));
            }
        }
    }
}

fn of_step((index, parts): (usize, &BTreeMap<i32, Part>)) -> impl Iterator<Item = (usize, i32, &Part)> {
    parts.iter().map(move |(item, part)| (index, *item, part))
}
