//! Giving ready tasks to a worker, best rank first over all of its routes.

use rota_core::{RouteId, Timestamp};

use super::queue::Place;
use super::working::Working;
use super::{Answer, Engine};
use crate::{Claim, Error, Refused, Reply, Tables};

impl<T: Tables> Engine<T> {
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
            // Whatever routes were asked for: matching never crosses namespaces.
            if self.load(id)?.is_none_or(|task| task.namespace != claim.namespace) {
                continue;
            }
            let command = self.assign(&claim.namespace, claim.worker.clone());
            given += usize::from(self.apply(id, command, now)?.is_ok());
        }
        Ok(Ok(Reply::Claimed(given).into()))
    }

    /// The first ready tasks of a route: those in the tables, as far as this batch has not touched them,
    /// and those that this batch made ready.
    fn candidates(&mut self, route: RouteId, slots: usize, best: &mut Vec<Place>) -> Result<(), Error> {
        let Working { entries, queues, .. } = &mut self.working;
        let is_touched = |id| entries.contains_key(&id);
        let queue = queues.entry(route).or_default();
        while let Some(wanted) = queue.wants(slots, is_touched) {
            queue.learn(self.tables.ready(route, wanted)?, wanted);
        }
        best.extend(queue.best(slots, is_touched));
        Ok(())
    }
}
