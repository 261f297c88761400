//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use rota_core::{RouteId, Timestamp};

use super::queue::RankKey;
use super::{Answer, Engine};
use crate::{Backend, Claim, Error, Keys, ReadyKey, Refused, Reply};

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
        for (_, id) in best {
            // Matching never crosses namespaces, whatever routes are claimed.
            if self.load(id)?.is_none_or(|task| task.namespace != claim.namespace) {
                continue;
            }
            let Some(command) = self.assignment(&claim.namespace, claim.worker.clone()) else { break };
            given += usize::from(self.apply(id, command, now)?.is_ok());
        }
        if given == 0 {
            self.write_set.recounted.extend(claim.routes);
        }
        Ok(Ok(Reply::Claimed(given).into()))
    }

    /// Adds the first ready tasks of a route, in the current state of the batch.
    fn candidates(&mut self, route: RouteId, slots: usize, best: &mut Vec<RankKey>) -> Result<(), Error> {
        loop {
            let queue = self.write_set.queues.entry(route).or_default();
            let Some(wanted) = queue.wanted(slots) else {
                best.extend(queue.best(slots));
                return Ok(());
            };
            let key = ReadyKey { route, limit: wanted, payloads: true };
            self.fetch(&Keys { ready: vec![key], ..Keys::default() })?;
        }
    }
}
