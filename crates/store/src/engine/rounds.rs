//! A round of follow-ups of workflows and of agents: all of them load what they visit in one call.

use std::iter::Zip;
use std::vec::IntoIter;

use rota_core::{RouteId, Timestamp, WorkflowKey};

use super::collect::Pages;
use super::removal::{self, Part};
use super::{AgentKey, Engine, KeySet};
use crate::{
    Backend, Error, FollowUp, Load, Place, ReadyPage, RoutePlace, StepKey, StepPage, StepTasksPage, TaskRow,
};

/// Part of the budget of a commit that the removal of a page of tasks takes.
pub(super) const REMOVAL_COST: usize = 64;
/// Least part of the budget for any other follow-up: a page of one row would not show that it is the last one.
const LEAST_COST: usize = 2;

/// What the follow-ups of a round have loaded: each takes its pages in turn.
struct Turn {
    needing: IntoIter<Vec<(u32, bool)>>,
    held: Zip<IntoIter<StepPage>, IntoIter<Vec<u32>>>,
    active: IntoIter<Vec<u32>>,
    step_tasks: IntoIter<Vec<TaskRow>>,
    ready: Zip<IntoIter<ReadyPage>, IntoIter<Vec<Place>>>,
    removals: IntoIter<Part>,
    /// Tasks that the removals may remove.
    removable: KeySet,
}

impl Turn {
    fn new(load: Load, pages: Pages, removals: Vec<Part>, removable: KeySet) -> Self {
        Self {
            needing: pages.needing.into_iter(),
            held: load.workflows.held.into_iter().zip(pages.held),
            active: pages.active.into_iter(),
            step_tasks: pages.step_tasks.into_iter(),
            ready: load.ready.into_iter().zip(pages.ready),
            removals: removals.into_iter(),
            removable,
        }
    }
}

/// Takes the pages of the removals of a round.
fn removals(visits: &[(Option<u64>, FollowUp)], pages: &mut Pages) -> Vec<Part> {
    let mut rows = std::mem::take(&mut pages.removals).into_iter();
    let mut tasks = std::mem::take(&mut pages.step_tasks).into_iter();
    let mut parts = Vec::new();
    for (_, follow_up) in visits {
        match follow_up {
            FollowUp::StepTasks { .. } => pages.step_tasks.extend(tasks.next()),
            FollowUp::RemoveWorkflow { after, .. } if removal::visits_tasks(*after) => {
                parts.extend(tasks.next().map(Part::Tasks));
            }
            FollowUp::RemoveWorkflow { .. } => parts.extend(rows.next().map(Part::Rows)),
            _ => {}
        }
    }
    parts
}

/// Returns the least part of the budget that a follow-up of a round takes; `None` for one that loads by itself.
fn least_cost(follow_up: &FollowUp) -> Option<usize> {
    match follow_up {
        FollowUp::Agent { .. }
        | FollowUp::StepEnded { .. }
        | FollowUp::ReleaseSteps { .. }
        | FollowUp::HaltSteps { .. }
        | FollowUp::ResumeSteps { .. }
        | FollowUp::StepTasks { .. }
        | FollowUp::Nested { .. }
        | FollowUp::AdmitMembers { .. }
        | FollowUp::ReplaceMembers { .. } => Some(LEAST_COST),
        FollowUp::RemoveWorkflow { .. } => Some(REMOVAL_COST),
        FollowUp::Ended { .. }
        | FollowUp::Found { .. }
        | FollowUp::Lifted { .. }
        | FollowUp::Funded { .. }
        | FollowUp::Cycle { .. }
        | FollowUp::ClockJumped { .. } => None,
    }
}

impl<B: Backend> Engine<B> {
    /// Visits what the next follow-ups of workflows and agents concern. Returns whether there were any.
    pub(super) fn visit_round(&mut self, now: Timestamp) -> Result<bool, Error> {
        let pending = &mut self.write_set.pending;
        let (budget, mut cost) = (pending.budget(), 0);
        let fits = |(_, follow_up): &&(_, FollowUp)| {
            let Some(least) = least_cost(follow_up) else { return false };
            let is_first = cost == 0;
            cost += least;
            is_first || cost <= budget
        };
        let count = pending.queue.iter().take_while(fits).count();
        if count == 0 {
            return Ok(false);
        }
        let visits: Vec<_> = pending.queue.drain(..count).collect();
        let limit = (budget / count).max(1);
        let mut load = Load::default();
        let asked: Vec<_> = visits.iter().map(|(_, one)| self.ask(one, limit, &mut load)).collect();
        load.workflows.deduplicate();
        let mut pages = self.fetch(&load)?;
        let removals = removals(&visits, &mut pages);
        let removable = self.with_small_logs(removals.iter().flat_map(Part::tasks).collect())?;
        self.load_members(visits.iter().map(|(_, follow_up)| follow_up), limit)?;
        self.load_nested(visits.iter().map(|(_, follow_up)| follow_up), limit)?;
        let mut turn = Turn::new(load, pages, removals, removable);
        for ((number, follow_up), asked) in visits.into_iter().zip(asked) {
            // An earlier one may have used up what was left: the next commit visits this one.
            if self.write_set.pending.budget() == 0 {
                self.write_set.pending.queue.push_back((number, follow_up));
                continue;
            }
            self.visit_one(number, follow_up, (asked, limit), &mut turn, now)?;
        }
        Ok(true)
    }

    /// Adds the pages that a follow-up visits, and returns their number.
    fn ask(&self, follow_up: &FollowUp, limit: usize, load: &mut Load) -> usize {
        let set = &self.write_set.workflows;
        let wanted = &mut load.workflows;
        let mut record = |workflow: &WorkflowKey| {
            let is_known = set.records.contains_key(workflow);
            if !is_known {
                wanted.keys.push(*workflow);
            }
            is_known
        };
        match follow_up {
            FollowUp::StepEnded { workflow, step, from } => {
                record(workflow);
                if !set.steps.contains_key(&(*workflow, *step)) {
                    wanted.steps.push((*workflow, *step));
                }
                wanted.dependents.push(StepPage { workflow: *workflow, step: *step, from: *from, limit });
                1
            }
            FollowUp::ReleaseSteps { workflow } => {
                let (room, indexes) = self.releasable(*workflow);
                let limit = room.min(limit);
                if !record(workflow) || limit == 0 {
                    return 0;
                }
                wanted.held.push(StepPage { workflow: *workflow, step: 0, from: indexes.all.start, limit });
                1
            }
            FollowUp::HaltSteps { workflow, from } | FollowUp::ResumeSteps { workflow, from } => {
                record(workflow);
                wanted.active.push(StepPage { workflow: *workflow, step: 0, from: *from, limit });
                1
            }
            FollowUp::StepTasks { workflow, after, .. } => {
                record(workflow);
                wanted.tasks.push(StepTasksPage { workflow: *workflow, after: *after, open: true, limit });
                1
            }
            FollowUp::RemoveWorkflow { workflow, after } => {
                if !removal::visits_tasks(*after) {
                    record(workflow);
                }
                removal::ask(*workflow, *after, load);
                1
            }
            FollowUp::Nested { workflow, .. } => {
                record(workflow);
                0
            }
            FollowUp::AdmitMembers { group } | FollowUp::ReplaceMembers { group, .. } => {
                if !set.groups.contains_key(group) {
                    wanted.groups.push(group.clone());
                }
                0
            }
            FollowUp::Agent { namespace, name, after, .. } => {
                let pages = self.agent_pages(&(namespace.clone(), name.clone()), *after, limit);
                load.ready.extend_from_slice(&pages);
                pages.len()
            }
            _ => 0,
        }
    }

    /// Returns pages of the ready tasks of an agent from a place on: of the first route as many as may be visited, and a few of
    /// each of the next ones. Many routes have only one task.
    fn agent_pages(&self, agent: &AgentKey, after: Option<RoutePlace>, limit: usize) -> Vec<ReadyPage> {
        let from = after.map_or(RouteId(0), |(route, ..)| route);
        // One more than may be visited, since an empty route costs a visit too.
        let routes: Vec<_> = self.memory.agent_routes(agent, from).take(limit).collect();
        let few = limit / routes.len().max(1) + 1;
        let page = |(index, route): (usize, &RouteId)| ReadyPage {
            route: *route,
            after: after.filter(|(at, ..)| at == route).map(|(_, rank, key)| (rank, key)),
            limit: if index == 0 { limit } else { few.min(limit) },
            payloads: false,
        };
        routes.iter().enumerate().map(page).collect()
    }

    fn visit_one(
        &mut self,
        number: Option<u64>,
        follow_up: FollowUp,
        (asked, limit): (usize, usize),
        turn: &mut Turn,
        now: Timestamp,
    ) -> Result<(), Error> {
        let halts = matches!(follow_up, FollowUp::HaltSteps { .. });
        match follow_up {
            FollowUp::StepEnded { workflow, step, .. } => {
                let dependents = turn.needing.next().unwrap_or_default();
                self.visit_needing(number, (workflow, step), &dependents, limit);
            }
            FollowUp::ReleaseSteps { workflow } => {
                let page = if asked == 0 { None } else { turn.held.next() };
                return self.release(number, workflow, page);
            }
            FollowUp::HaltSteps { workflow, from } | FollowUp::ResumeSteps { workflow, from } => {
                let active = turn.active.next().unwrap_or_default();
                self.visit_active(number, (workflow, from), halts, &active, limit);
            }
            FollowUp::StepTasks { workflow, hold, only, .. } => {
                let rows = turn.step_tasks.next().unwrap_or_default();
                self.visit_tasks(number, workflow, (hold, only), rows, limit);
            }
            FollowUp::RemoveWorkflow { workflow, after } => {
                let part = turn.removals.next().unwrap_or_else(|| Part::Tasks(Vec::new()));
                return self.visit_removal(number, workflow, after, part, &turn.removable);
            }
            FollowUp::Nested { workflow, command, only, after } => {
                return self.visit_nested(number, workflow, (command, only), (after, limit), now);
            }
            FollowUp::AdmitMembers { group } => return self.visit_group(number, group, now),
            FollowUp::ReplaceMembers { group, joined, by } => {
                return self.visit_replaced(number, group, (by, joined), now);
            }
            FollowUp::Agent { namespace, name, after, end } => {
                let pages = turn.ready.by_ref().take(asked).collect();
                return self.visit_agent(number, (namespace, name), (after, end), pages);
            }
            _ => {}
        }
        Ok(())
    }

    /// Starts held steps of a workflow. Without a page of its present phase, the next round does.
    fn release(
        &mut self,
        number: Option<u64>,
        workflow: WorkflowKey,
        page: Option<(StepPage, Vec<u32>)>,
    ) -> Result<(), Error> {
        let (room, indexes) = self.releasable(workflow);
        match page.filter(|(page, _)| page.from == indexes.all.start) {
            Some(page) => return self.visit_held(number, workflow, page),
            None if room == 0 => {
                self.write_set.workflows.releasing.remove(&workflow);
                self.write_set.pending.finish(number, None);
            }
            None => self.write_set.pending.go_on(number, FollowUp::ReleaseSteps { workflow }),
        }
        self.write_set.pending.spend(1);
        Ok(())
    }

    /// Loads the members that the groups of a round concern, in one call.
    fn load_members<'a>(
        &mut self,
        follow_ups: impl Iterator<Item = &'a FollowUp>,
        limit: usize,
    ) -> Result<(), Error> {
        let mut members: Vec<StepKey> = Vec::new();
        for follow_up in follow_ups {
            match follow_up {
                FollowUp::AdmitMembers { group } => members.extend(self.next_members(group, limit)),
                FollowUp::ReplaceMembers { group, by, joined } => {
                    if let Some(by) = self.replacing(group, *by, *joined) {
                        members.extend(self.other_members(group, by).iter().map(|one| one.member));
                        members.push(by);
                    }
                }
                _ => {}
            }
        }
        self.load_steps(members)
    }
}
