//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use std::sync::Arc;

use rota_core::{RouteId, Timestamp};

use super::budgets::Funds;
use super::quota::Use;
use super::{Answer, Engine};
use crate::{Backend, Claim, Error, Load, Place, ReadyPage, Refused, Reply};

/// Tasks of one route that avoid the worker and are passed over.
const MAX_PASSED_OVER: usize = 256;

impl<B: Backend> Engine<B> {
    pub(super) fn claim(
        &mut self,
        mut claim: Claim,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        if !self.has_session(&claim.namespace, &claim.worker) {
            return Ok(Err(Refused::Superseded));
        }
        let (mut given, mut cooling, mut passed_over) = (0, 0, false);
        // Tasks whose credentials cool down make room for the next ones.
        loop {
            let before = cooling;
            self.give(&mut claim, now, [&mut given, &mut cooling], &mut passed_over)?;
            if claim.slots == 0 || cooling == before || cooling >= MAX_PASSED_OVER {
                break;
            }
        }
        if given == 0 && passed_over {
            return Ok(Ok(Reply::PassedOver.into()));
        }
        if given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(given).into()))
    }

    /// Assigns the first ready tasks to the slots of a claim, which are used up. Counts those that were assigned, and those
    /// that wait for their credentials from now on.
    fn give(
        &mut self,
        claim: &mut Claim,
        now: Timestamp,
        [given, cooling]: [&mut usize; 2],
        passed_over: &mut bool,
    ) -> Result<(), Error> {
        let mut best = Vec::new();
        *passed_over = false;
        for &route in &claim.routes.clone() {
            *passed_over |= self.candidates(route, claim, now, &mut best)?;
        }
        best.sort_unstable();
        best.dedup();
        best.truncate(claim.slots);
        let Some(agent) = self.agent_of(&claim.namespace, &claim.worker) else { return Ok(()) };
        for (_, key) in best {
            // Matching never crosses namespaces, whatever routes are claimed.
            let Some(task) = self.load(key)?.filter(|task| task.namespace == claim.namespace) else {
                continue;
            };
            // The deletion of an agent reaches its last ready tasks some commits later.
            if let Some(agent) = task.agent().cloned()
                && self.agent(&(claim.namespace.clone(), agent)).is_none()
            {
                self.without_agent(key);
                continue;
            }
            if self.cools_down(key, now)? {
                *cooling += 1;
                continue;
            }
            let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { continue };
            let of_agent = self.use_of(&task, claim.probes, now);
            if of_agent == Use::Forbidden {
                continue;
            }
            let reserved = match self.fund(key, &agent, now)? {
                Funds::Enough(reserved) => reserved,
                Funds::Waits => {
                    *cooling += 1;
                    continue;
                }
                Funds::Elsewhere => {
                    *passed_over = true;
                    continue;
                }
            };
            let command = self.assignment(&claim.namespace, claim.worker.clone(), agent.clone(), reserved);
            let assigned = usize::from(self.apply(key, command, now)?.is_ok());
            if let (Use::AsProbe, 1, Some(credential)) = (of_agent, assigned, claim.probes) {
                self.begin_probe(key, credential, now);
            }
            *given += assigned;
            claim.slots -= assigned;
        }
        Ok(())
    }

    /// Adds the first ready tasks of a route, in the current state of the batch. Returns whether some avoid the worker and
    /// were passed over.
    fn candidates(
        &mut self,
        route: RouteId,
        claim: &Claim,
        now: Timestamp,
        best: &mut Vec<Place>,
    ) -> Result<bool, Error> {
        let shared = claim.shared.contains(&route);
        let mut slots = claim.slots;
        loop {
            let queue = self.write_set.queues.entry(route).or_default();
            if let Some(wanted) = queue.wanted(slots) {
                let page = ReadyPage { route, after: None, limit: wanted, payloads: true };
                self.fetch(&Load { ready: vec![page], ..Load::default() })?;
                continue;
            }
            let found: Vec<_> = queue.best(slots).collect();
            if !shared {
                best.extend(found);
                return Ok(false);
            }
            let mut fit = Vec::with_capacity(claim.slots);
            for place in &found {
                let task = self.load(place.1)?;
                if !task.is_some_and(|task| task.avoids(&claim.worker.worker, now)) {
                    fit.push(*place);
                }
            }
            let avoiding = found.len() - fit.len();
            let whole = found.len() < slots;
            if fit.len() >= claim.slots || whole || avoiding >= MAX_PASSED_OVER {
                best.extend(fit.into_iter().take(claim.slots));
                return Ok(avoiding > 0);
            }
            slots = claim.slots + avoiding;
        }
    }
}
