//! Timeline of the database's server, which grows with each promotion of a standby: a primary that a failover has replaced, and
//! that comes back, has an older one than its successor. Knows servers of one origin only: the timelines of others do not compare.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_postgres::Client;

use crate::errors::Fault;
use crate::sql;

/// Timeline of a server, among those whose data have one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timeline {
    system: i64,
    number: i64,
}

/// The newest timeline that this process has seen, over all of its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewestTimeline(Arc<Mutex<Option<Timeline>>>);

impl NewestTimeline {
    /// Refuses a server with an older timeline than was seen: its successor may have acknowledged commits that it lacks.
    pub(crate) async fn check(&self, client: &Client) -> Result<(), Fault> {
        match client.query_one(sql::TIMELINE, &[]).await {
            Ok(row) => self.see(Timeline { system: row.try_get(0)?, number: row.try_get(1)? }),
            Err(error) => {
                let fault = Fault::from(error);
                if fault.is_lost() {
                    return Err(fault);
                }
                // A service without these functions.
                tracing::debug!(error = %fault.into_error(), "the timeline of the database is not known");
                Ok(())
            }
        }
    }

    fn see(&self, found: Timeline) -> Result<(), Fault> {
        let mut newest = self.0.lock();
        if let Some(newest) = *newest
            && newest.system == found.system
            && newest.number > found.number
        {
            return Err(Fault::OldTimeline { found: found.number, newest: newest.number });
        }
        *newest = Some(found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_timelines_of_one_origin_are_refused() {
        let newest = NewestTimeline::default();
        for (system, number) in [(1, 1), (1, 2), (1, 2)] {
            newest.see(Timeline { system, number }).unwrap();
        }
        let refused = newest.see(Timeline { system: 1, number: 1 });
        assert!(matches!(refused, Err(Fault::OldTimeline { found: 1, newest: 2 })), "{refused:?}");
        // A new server, as after an upgrade of PostgreSQL.
        newest.see(Timeline { system: 2, number: 1 }).unwrap();
    }
}
