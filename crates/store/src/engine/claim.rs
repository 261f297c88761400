//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use rota_core::{RouteId, Timestamp};

use super::{Answer, Engine};
use crate::{Backend, Claim, Error, Load, Place, ReadyPage, Refused, Reply};

impl<B: Backend> Engine<B> {
    pub(super) fn claim(&mut self, claim: Claim, now: Timestamp) -> Result<Result<Answer, Refused>, Error> {
        if !self.has_session(&claim.namespace, &claim.worker) {
            return Ok(Err(Refused::Superseded));
        }
        let mut best = Vec::new();
        for &route in &claim.routes {
            self.candidates(route, claim.slots, &mut best)?;
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
        if given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(given).into()))
    }

    /// Adds the first ready tasks of a route, in the current state of the batch.
    fn candidates(&mut self, route: RouteId, slots: usize, best: &mut Vec<Place>) -> Result<(), Error> {
        loop {
            let queue = self.write_set.queues.entry(route).or_default();
            let Some(wanted) = queue.wanted(slots) else {
                best.extend(queue.best(slots));
                return Ok(());
            };
            let page = ReadyPage { route, after: None, limit: wanted, payloads: true };
            self.fetch(&Load { ready: vec![page], ..Load::default() })?;
        }
    }
}
