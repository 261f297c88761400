//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use std::sync::Arc;

use rota_core::{RouteId, TaskKey, Timestamp};

use super::funding::Funds;
use super::quota::Use;
use super::{Answer, Engine, KeySet};
use crate::{Backend, Claim, Error, Load, Place, ReadyPage, Refused, Reply};

/// Tasks of one route that avoid the worker and are passed over, and tasks of all routes that get no slot otherwise.
const MAX_PASSED_OVER: usize = 256;

/// Bytes of payloads that the claims of one batch load: tasks beyond them are left to the next claim.
pub(super) const MAX_PAYLOADS: u64 = 32 * 1024 * 1024;

/// What a claim has done so far.
#[derive(Debug, Default)]
struct Progress {
    given: usize,
    /// Tasks that wait for a credential or a budget from now on.
    waiting: usize,
    /// Ready tasks that are left to other agents, which have money, or whose agent is damaged.
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
        loop {
            let before = progress.skipped();
            self.give(&mut claim, now, &mut progress)?;
            let skipped = progress.skipped();
            if claim.slots == 0 || skipped == before || skipped >= MAX_PASSED_OVER {
                break;
            }
        }
        if progress.given == 0 && progress.passed_over {
            return Ok(Ok(Reply::PassedOver.into()));
        }
        if progress.given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(progress.given).into()))
    }

    /// Assigns the first ready tasks to the slots of a claim, which are used up.
    fn give(&mut self, claim: &mut Claim, now: Timestamp, progress: &mut Progress) -> Result<(), Error> {
        let mut best = Vec::new();
        progress.passed_over = !progress.left.is_empty();
        // Where many are left to other agents, more are looked at each time.
        let most = claim.slots.max(progress.left.len());
        for &route in &claim.routes.clone() {
            progress.passed_over |= self.candidates(route, claim, most, now, &progress.left, &mut best)?;
        }
        best.sort_unstable();
        best.dedup();
        best.truncate(most);
        let Some(agent) = self.agent_of(&claim.namespace, &claim.worker) else { return Ok(()) };
        self.load_payloads(best.iter().take(claim.slots).map(|(_, key)| *key))?;
        for (_, key) in best {
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
            if self.write_set.get(key).is_none_or(|entry| entry.payload.is_none()) {
                break;
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

    fn payload_room(&self) -> u64 {
        MAX_PAYLOADS.saturating_sub(self.write_set.payload_bytes)
    }

    /// Loads the payloads of tasks in one call, in order, as far as the batch may.
    fn load_payloads(&mut self, keys: impl Iterator<Item = TaskKey>) -> Result<(), Error> {
        let lacks = |key: &TaskKey| self.write_set.get(*key).is_some_and(|entry| entry.payload.is_none());
        let payloads: Vec<_> = keys.filter(lacks).collect();
        if payloads.is_empty() {
            return Ok(());
        }
        let payload_bytes = self.payload_room();
        self.fetch(&Load { payloads, payload_bytes, ..Load::default() }).map(drop)
    }

    /// Adds the first ready tasks of a route, in the current state of the batch, but for those that are left to other agents.
    /// Returns whether some avoid the worker and were passed over.
    fn candidates(
        &mut self,
        route: RouteId,
        claim: &Claim,
        most: usize,
        now: Timestamp,
        left: &KeySet,
        best: &mut Vec<Place>,
    ) -> Result<bool, Error> {
        let shared = claim.shared.contains(&route);
        let mut slots = most + left.len();
        loop {
            let queue = self.write_set.queues.entry(route).or_default();
            if let Some(wanted) = queue.wanted(slots) {
                let payload_bytes = self.payload_room();
                let payloads = claim.routes.len() == 1;
                let page = ReadyPage { route, after: None, limit: wanted, payloads };
                self.fetch(&Load { ready: vec![page], payload_bytes, ..Load::default() })?;
                continue;
            }
            let found: Vec<_> = queue.best(slots).collect();
            let (mut fit, mut avoiding) = (Vec::with_capacity(most), 0);
            for place in found.iter().filter(|place| !left.contains(&place.1)) {
                if shared && self.load(place.1)?.is_some_and(|task| task.avoids(&claim.worker.worker, now)) {
                    avoiding += 1;
                } else {
                    fit.push(*place);
                }
            }
            let whole = found.len() < slots;
            if fit.len() >= most || whole || avoiding >= MAX_PASSED_OVER {
                best.extend(fit.into_iter().take(most));
                return Ok(avoiding > 0);
            }
            slots = most + left.len() + avoiding;
        }
    }
}
