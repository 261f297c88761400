//! Schedules: tasks and workflows that are created at recurring times.
//!
//! - `timetable`: a cron expression in a time zone; `plan`: which times are due and run. Both are pure.
//! - `registry`: the schedules and their next times, in memory, as of the last applied commit.
//! - `driver`: the background task that sleeps until the next time, and starts and ends runs (`runs`, `ends`).
//! - `outcomes`: what has become of the task or workflow of a run.
//! - `record`: what is stored. A schedule is a document, and its status is another one that only the driver writes.
//!
//! A run is stored in the status before its task or workflow is created, with the id of that and an idempotency key made of the
//! schedule's identity and the time. A control plane that is killed in between creates it after its next start, or finds it.

mod changes;
mod clock;
mod driver;
mod ends;
mod outcomes;
mod plan;
mod record;
mod registry;
mod runs;
mod timetable;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use rota_store::DocumentKind;

use crate::documents;
use crate::metrics::Metrics;
use crate::store_client::StoreClient;

pub use clock::WallClock;
pub(crate) use driver::Driver;
pub(crate) use outcomes::observe;
pub(crate) use record::{StoredSchedule, StoredStatus};
pub(crate) use registry::{Entry, Registry, ScheduleKey};
pub(crate) use runs::label;
pub(crate) use timetable::Timetable;

/// Returns the schedules of a store.
pub(crate) async fn restore(
    store: &StoreClient,
    clock: WallClock,
    metrics: &Metrics,
) -> Result<Arc<Registry>, rota_store::Error> {
    let registry = Registry::new(clock);
    let mut damaged = BTreeMap::new();
    let schedules = documents::all(store, DocumentKind::Schedule, &mut damaged).await?;
    registry.restore(schedules, &documents::all(store, DocumentKind::ScheduleStatus, &mut damaged).await?);
    metrics.undecodable(damaged.iter().map(|(key, reason)| (key as &dyn Display, reason)));
    Ok(Arc::new(registry))
}

/// Ended runs of each kind that a status shows unless the schedule sets other numbers.
pub(crate) const DEFAULT_HISTORY: i32 = 10;
