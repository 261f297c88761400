//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use rota_core::{RouteId, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, Claim, Error, Load, Place, ReadyPage, Refused, Reply};

/// Tasks of one route that avoid the worker and are passed over.
const MAX_PASSED_OVER: usize = 256;

impl<B: Backend> Engine<B> {
    pub(super) fn claim(&mut self, claim: Claim, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        if !self.has_session(&claim.namespace, &claim.worker) {
            return Ok(Err(Refused::Superseded));
        }
        let mut best = Vec::new();
        let mut passed_over = false;
        for &route in &claim.routes {
            passed_over |= self.candidates(route, &claim, now, &mut best)?;
        }
        best.sort_unstable();
        best.dedup();
        best.truncate(claim.slots);
        let mut given = 0;
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
            let Some(command) = self.assignment(&claim.namespace, claim.worker.clone()) else { break };
            given += usize::from(self.apply(key, command, now)?.is_ok());
        }
        if given == 0 && passed_over {
            return Ok(Ok(Reply::PassedOver.into()));
        }
        if given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(given).into()))
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
