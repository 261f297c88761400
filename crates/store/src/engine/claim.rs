//! Claims: assigns ready tasks to a worker, best rank first over all of its routes.

use rota_core::{RouteId, Timestamp};

use super::queue::RankKey;
use super::write_set::WriteSet;
use super::{Answer, Engine};
use crate::{Claim, Error, Refused, Reply, WriteTxn};

impl<T: WriteTxn> Engine<T> {
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
        Ok(Ok(Reply::Claimed(given).into()))
    }

    /// Adds the first ready tasks of a route: stored ones that this batch has not touched, and those that it made
    /// ready.
    fn candidates(&mut self, route: RouteId, slots: usize, best: &mut Vec<RankKey>) -> Result<(), Error> {
        let WriteSet { entries, queues, .. } = &mut self.write_set;
        let is_touched = |id| entries.contains_key(&id);
        let queue = queues.entry(route).or_default();
        while let Some(wanted) = queue.wanted(slots, is_touched) {
            queue.set_rows(self.txn.ready(route, wanted)?, wanted);
        }
        best.extend(queue.best(slots, is_touched));
        Ok(())
    }
}
