//! Claims: assigns ready tasks to a worker, best rank first over all of its routes. Each pass loads what it lacks of all routes in one
//! call, and payloads only once a task is found that is assigned.

use std::sync::Arc;

use rota_core::{RouteId, TaskKey, Timestamp};
use rustc_hash::FxHashMap;

use super::funding::Funds;
use super::quota::Use;
use super::{Answer, Engine, KeySet};
use crate::{Backend, Claim, Error, Load, Place, ReadyPage, Refused, Reply};

/// Tasks of one route that avoid the worker and are passed over, and tasks of all routes that get no slot otherwise.
const MAX_PASSED_OVER: usize = 256;
/// Ready tasks that are looked for on all routes together when others get no slot, besides one for each slot, and as many on each route
/// as it has left to other agents.
const MAX_AHEAD: usize = 256;
/// Times that one claim looks for tasks: nearly four times as many as lead to [`MAX_PASSED_OVER`] if each finds as many as all before. They
/// may find fewer where the best tasks are all on one of many routes; no claim finds what is behind those.
const MAX_PASSES: usize = 32;

/// Bytes of payloads that the claims of one batch load: tasks beyond them are left to the next claim.
const MAX_PAYLOADS: u64 = 32 * 1024 * 1024;
/// Bytes of payloads that are loaded with the first tasks, some of which may be left to other agents. The rest is for those that are next.
pub(super) const MAX_EARLY_PAYLOADS: u64 = MAX_PAYLOADS / 2;

/// What a claim has done so far.
#[derive(Debug, Default)]
struct Progress {
    given: usize,
    /// Tasks that wait for a credential or a budget from now on.
    waiting: usize,
    /// Ready tasks that are left to other agents, which have money, whose agent is damaged, or whose wait for money would be over before
    /// it begins, since the clock was set back.
    left: KeySet,
    /// Whether ready tasks were passed over.
    passed_over: bool,
}

impl Progress {
    fn skipped(&self) -> usize {
        self.waiting + self.left.len()
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn claim(
        &mut self,
        mut claim: Claim,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        if !self.has_session(&claim.namespace, &claim.worker) {
            return Ok(Err(Refused::Superseded));
        }
        let mut progress = Progress::default();
        // Tasks that wait from now on, and those that are left to other agents, make room for the next ones.
        for _ in 0..MAX_PASSES {
            let before = progress.skipped();
            self.give(&mut claim, now, &mut progress)?;
            let skipped = progress.skipped();
            if claim.slots == 0 || skipped == before || skipped >= MAX_PASSED_OVER {
                break;
            }
        }
        // One that let tasks wait is made again, for those behind them: each time, fewer are ready.
        if progress.given == 0 && progress.passed_over && progress.waiting == 0 {
            return Ok(Ok(Reply::PassedOver.into()));
        }
        if progress.given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(progress.given).into()))
    }

    /// Assigns the first ready tasks to the slots of a claim, which are used up.
    fn give(&mut self, claim: &mut Claim, now: Timestamp, progress: &mut Progress) -> Result<(), Error> {
        let best = self.candidates(claim, now, progress)?;
        let Some(agent) = self.agent_of(&claim.namespace, &claim.worker) else { return Ok(()) };
        self.load_payers(&best)?;
        for (index, &key) in best.iter().enumerate() {
            if claim.slots == 0 {
                break;
            }
            // Matching never crosses namespaces, whatever routes are claimed.
            let Some(task) = self.load(key)?.filter(|task| task.namespace == claim.namespace) else {
                continue;
            };
            // The deletion of an agent reaches its last ready tasks some commits later.
            if let Some(agent) = task.agent().cloned()
                && let agent = (claim.namespace.clone(), agent)
                && self.agent(&agent).is_none()
            {
                if self.is_damaged(&agent) {
                    progress.left.insert(key);
                    progress.passed_over = true;
                } else {
                    self.without_agent(key);
                }
                continue;
            }
            if self.cools_down(key, now)? {
                progress.waiting += 1;
                continue;
            }
            let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { continue };
            let of_agent = self.use_of(&task, claim.probes, now);
            if of_agent == Use::Forbidden {
                continue;
            }
            let reserved = match self.fund(key, &agent, &claim.not_isolating, now)? {
                Funds::Enough(reserved) => reserved,
                Funds::Waits => {
                    progress.waiting += 1;
                    continue;
                }
                Funds::Elsewhere => {
                    progress.left.insert(key);
                    progress.passed_over = true;
                    continue;
                }
            };
            if self.lacks_payload(key) {
                self.load_payloads(&best[index..], claim.slots)?;
                if self.lacks_payload(key) {
                    break;
                }
            }
            let command = self.assignment(&claim.namespace, claim.worker.clone(), agent.clone(), reserved);
            let assigned = usize::from(self.apply(key, command, now)?.is_ok());
            if let (Use::AsProbe, 1, Some(credential)) = (of_agent, assigned, claim.probes) {
                self.begin_probe(key, credential, now);
            }
            progress.given += assigned;
            claim.slots -= assigned;
        }
        Ok(())
    }

    fn lacks_payload(&self, key: TaskKey) -> bool {
        self.write_set.get(key).is_some_and(|entry| entry.payload.is_none())
    }

    /// Loads the payloads of the first of these tasks in one call, in order, as far as the batch may.
    fn load_payloads(&mut self, keys: &[TaskKey], most: usize) -> Result<(), Error> {
        let mut load = Load::default();
        self.collect_payloads(&keys[..most.min(keys.len())], MAX_PAYLOADS, &mut load);
        self.fetch(&load).map(drop)
    }

    /// Adds the payloads of tasks to a load, in order, as far as the batch has loaded fewer bytes than a limit.
    pub(super) fn collect_payloads(&self, keys: &[TaskKey], limit: u64, load: &mut Load) {
        let left = limit.saturating_sub(self.write_set.payload_bytes);
        let lacking = keys.iter().copied().filter(|key| left > 0 && self.lacks_payload(*key));
        load.payloads.extend(lacking);
        load.payload_bytes = if load.payloads.is_empty() { 0 } else { left };
    }

    /// Returns the first ready tasks of the routes of a claim, in the current state of the batch, but for those that are left to
    /// other agents and those that avoid the worker.
    fn candidates(
        &mut self,
        claim: &Claim,
        now: Timestamp,
        progress: &mut Progress,
    ) -> Result<Vec<TaskKey>, Error> {
        let (left, skipped) = (&progress.left, progress.skipped());
        let mut left_of: FxHashMap<RouteId, usize> = FxHashMap::default();
        for entry in left.iter().filter_map(|key| self.write_set.get(*key)) {
            *left_of.entry(entry.route).or_default() += 1;
        }
        // Where many get no slot, more are looked at each time.
        let most = claim.slots.max(skipped.min(MAX_PASSED_OVER.saturating_sub(skipped)));
        let share = claim.slots.max(skipped.min(MAX_AHEAD / claim.routes.len().max(1)));
        // Tasks that a route has left to others, and how many are looked for behind them: all may come from one route, but rarely do.
        let part = |route: RouteId| {
            let left = left_of.get(&route).copied().unwrap_or_default();
            (left, most.min(share.max(left)))
        };
        let (mut best, mut passed_over) = (Vec::new(), !left.is_empty());
        // The last place up to which the tasks of all routes are known. A pass takes none behind it: one that is not known may come
        // first. Each route has found its part up to there, or all of its tasks; one that has stopped at as many as may avoid the
        // worker does not count, since it would hide the tasks of others.
        let mut end: Option<Place> = None;
        let rows = |route: RouteId| {
            let (left, each) = part(route);
            (route, left + each)
        };
        let mut wanted: Vec<_> = claim.routes.iter().copied().map(rows).collect();
        wanted.sort_unstable();
        wanted.dedup();
        while !wanted.is_empty() {
            self.load_ready(&wanted)?;
            let mut again = Vec::new();
            for (route, slots) in wanted {
                let Some(queue) = self.write_set.queues.get(&route) else { continue };
                // The batch has changed some of those that were loaded.
                if queue.wanted(slots).is_some() {
                    again.push((route, slots));
                    continue;
                }
                let (left_here, each) = part(route);
                let limit = slots.max(most + left_here);
                let found: Vec<_> = queue.best(limit).collect();
                let is_all = found.len() < limit && queue.count().is_some();
                let is_shared = claim.shared.contains(&route);
                let avoids = |key: TaskKey| {
                    let entry = self.write_set.get(key).filter(|_| is_shared);
                    entry.is_some_and(|entry| entry.task.avoids(&claim.worker.worker, now))
                };
                let not_left = found.iter().filter(|(_, key)| !left.contains(key));
                let (avoiding, fit): (Vec<Place>, Vec<Place>) =
                    not_left.copied().partition(|(_, key)| avoids(*key));
                if fit.len() < each && !is_all && avoiding.len() < MAX_PASSED_OVER {
                    again.push((route, (each + left_here + avoiding.len()).max(2 * slots)));
                    continue;
                }
                if fit.len() >= each && !is_all {
                    end = end.into_iter().chain(found.last().copied()).min();
                }
                passed_over |= !avoiding.is_empty();
                best.extend(fit);
            }
            wanted = again;
        }
        progress.passed_over = passed_over;
        best.retain(|place| end.is_none_or(|end| *place <= end));
        best.sort_unstable();
        best.truncate(most);
        Ok(best.into_iter().map(|(_, key)| key).collect())
    }

    /// Loads ready tasks of the routes of which fewer are known than wanted, in one call.
    fn load_ready(&mut self, wanted: &[(RouteId, usize)]) -> Result<(), Error> {
        let queues = &mut self.write_set.queues;
        let page = |(route, slots): &(RouteId, usize)| {
            let limit = queues.entry(*route).or_default().wanted(*slots)?;
            Some(ReadyPage { route: *route, after: None, limit, payloads: false })
        };
        let ready = wanted.iter().filter_map(page).collect();
        self.fetch(&Load { ready, ..Load::default() }).map(drop)
    }
}
