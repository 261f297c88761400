//! Builds the scaling input of a pool from an agent's bounds, the workers that a pool manager started, and the workers
//! that the control plane reports. Shared by the operator, `rota-local` and task explanation, which must agree. Knows no
//! wire format: callers convert the reported demand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Pool, WorkerView, ceiling};

/// Idle time after which a worker above the floor is drained, unless its agent sets another.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time within which a started worker process has to connect.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Lifetime from which the exit of a worker no longer counts as a failed start.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Scaling bounds as an agent's spec carries them: 0 means unset, negative numbers count as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    pub replicas: i32,
    pub max_replicas: Option<i32>,
    pub spare_workers: i32,
    pub slots: i32,
    pub idle_timeout: Option<Duration>,
}

/// Tasks that wait for a slot of the pool, as the control plane reports them: negative numbers count as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub queued: i64,
    /// How many of the queued tasks demand a worker that isolates its attempts.
    pub isolated: i64,
}

/// Worker that the pool manager started, whether or not the control plane knows it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedWorker {
    pub name: String,
    pub state: ManagedState,
}

/// Lifecycle state of a managed worker, as far as its manager observes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedState {
    /// Started, and never connected so far.
    Starting,
    /// Connected now or in the past.
    Serving,
    /// Asked to stop; accepts no new task.
    Draining,
    /// Exited. Neither capacity nor part of the ceiling, even while the control plane still reports it.
    Ended,
}

/// Worker as the control plane reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedWorker {
    pub name: String,
    pub running: u32,
    /// How many of the running tasks hold no slot.
    pub storing: u32,
    pub draining: bool,
    pub connected: bool,
    /// Whether it gets no tasks although it is connected.
    pub unavailable: bool,
    /// Whether it does not isolate its attempts, by its last statement; false while none is known.
    pub not_isolated: bool,
    /// Time since it was started, or, as the control plane sees it, since it connected; `None` if unknown.
    pub age: Option<Duration>,
    /// Whether the pool's manager has started it, and its template is not known to be older. False in pools without templates.
    pub is_current: bool,
    pub idle_for: Option<Duration>,
}

/// Returns whether a worker has stated that it does not isolate its attempts. A disconnected one without a reason has stated nothing
/// since the control plane started.
pub fn is_not_isolated(isolated: bool, connected: bool, reason: &str) -> bool {
    !isolated && (connected || !reason.is_empty())
}

/// Returns whether the control plane assigns tasks to a worker now.
pub fn takes_tasks(connected: bool, draining: bool, unavailable: bool) -> bool {
    connected && !draining && !unavailable
}

/// Returns whether a worker isolates its attempts, if it has shown that. One that takes no tasks shows only that it does not.
pub fn isolates(not_isolated: bool, takes_tasks: bool) -> Option<bool> {
    (not_isolated || takes_tasks).then_some(!not_isolated)
}

/// Returns the age of the last worker that was tried for isolation, if it does not isolate. `shown` has the ages of the workers that have
/// shown whether they isolate: the youngest decides, and of the same age one that does not.
pub fn last_try(shown: impl Iterator<Item = (Duration, bool)>) -> Option<Duration> {
    shown.min().and_then(|(age, isolates)| (!isolates).then_some(age))
}

impl Pool {
    /// Builds the input of the manager that started `managed`. Connected workers of other managers count as
    /// capacity, but are never drained; disconnected ones may not exist any more and are ignored. The manager knows more of the
    /// `last_try` than the workers that are left show.
    pub fn managed(
        bounds: &Bounds,
        backlog: Backlog,
        managed: &[ManagedWorker],
        reported: &[ReportedWorker],
        last_try: Option<Duration>,
    ) -> Self {
        let mut foreign: BTreeMap<_, _> =
            reported.iter().map(|worker| (worker.name.as_str(), worker)).collect();
        let mut workers = Vec::with_capacity(managed.len());
        for ManagedWorker { name, state } in managed {
            let report = foreign.remove(name.as_str());
            if *state == ManagedState::Ended {
                continue;
            }
            workers.push(WorkerView {
                name: name.clone(),
                running: report.map_or(0, |report| report.running),
                storing: report.map_or(0, |report| report.storing),
                draining: *state == ManagedState::Draining || report.is_some_and(|report| report.draining),
                connected: report.is_some_and(|report| report.connected),
                unavailable: report.is_some_and(|report| report.unavailable),
                not_isolated: report.is_some_and(|report| report.not_isolated),
                starting: *state == ManagedState::Starting,
                age: report.and_then(|report| report.age),
                is_current: report.is_some_and(|report| report.is_current),
                idle_for: report.and_then(|report| report.idle_for),
            });
        }
        let foreign = foreign.into_values().filter(|worker| worker.connected);
        workers.extend(foreign.map(|worker| WorkerView {
            is_current: false,
            idle_for: None,
            ..WorkerView::from(worker)
        }));
        Self::new(bounds, backlog, workers, last_try)
    }

    /// Builds the input as seen from the control plane. Only workers that a manager started may have an idle time.
    pub fn observed(bounds: &Bounds, backlog: Backlog, reported: &[ReportedWorker]) -> Self {
        let workers: Vec<_> = reported.iter().map(WorkerView::from).collect();
        let last_try = last_try(workers.iter().filter_map(WorkerView::shown));
        Self::new(bounds, backlog, workers, last_try)
    }

    fn new(bounds: &Bounds, backlog: Backlog, workers: Vec<WorkerView>, last_try: Option<Duration>) -> Self {
        let floor = count(bounds.replicas);
        Self {
            floor,
            ceiling: ceiling(floor, bounds.max_replicas.map(count)),
            spare: count(bounds.spare_workers),
            slots: count(bounds.slots).max(1),
            queued: u64::try_from(backlog.queued).unwrap_or_default(),
            isolated: u64::try_from(backlog.isolated).unwrap_or_default(),
            workers,
            last_try,
            idle_timeout: bounds.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
            pressed: false,
        }
    }
}

impl From<&ReportedWorker> for WorkerView {
    fn from(worker: &ReportedWorker) -> Self {
        Self {
            name: worker.name.clone(),
            running: worker.running,
            storing: worker.storing,
            draining: worker.draining,
            connected: worker.connected,
            unavailable: worker.unavailable,
            not_isolated: worker.not_isolated,
            starting: false,
            age: worker.age,
            is_current: worker.is_current,
            idle_for: worker.idle_for,
        }
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(name: &str, running: u32) -> ReportedWorker {
        let idle_for = (running == 0).then_some(Duration::from_secs(999));
        ReportedWorker { name: name.into(), running, connected: true, idle_for, ..Default::default() }
    }

    fn managed(name: &str, state: ManagedState) -> ManagedWorker {
        ManagedWorker { name: name.into(), state }
    }

    fn of_started(managed: &[ManagedWorker], reported: &[ReportedWorker]) -> Pool {
        Pool::managed(&Bounds::default(), Backlog::default(), managed, reported, None)
    }

    #[test]
    fn unset_bounds_have_defaults() {
        let backlog = Backlog { queued: -1, isolated: -1 };
        let pool = Pool::managed(&Bounds { replicas: -1, ..Bounds::default() }, backlog, &[], &[], None);
        assert_eq!((pool.floor, pool.ceiling, pool.spare, pool.slots), (0, 1, 0, 1));
        assert_eq!((pool.queued, pool.isolated, pool.idle_timeout), (0, 0, DEFAULT_IDLE_TIMEOUT));
    }

    #[test]
    fn managed_workers_join_their_reports() {
        let managed = [managed("a", ManagedState::Serving), managed("b", ManagedState::Starting)];
        let pool = of_started(&managed, &[reported("a", 2)]);
        assert_eq!(pool.workers.len(), 2);
        assert_eq!((pool.workers[0].running, pool.workers[0].connected), (2, true));
        assert!(pool.workers[1].starting && !pool.workers[1].connected);
    }

    #[test]
    fn foreign_workers_count_and_are_never_idle() {
        let lost = ReportedWorker { connected: false, ..reported("lost", 0) };
        let pool = of_started(&[], &[reported("guest", 0), lost]);
        assert_eq!(pool.workers.len(), 1);
        assert_eq!((pool.workers[0].name.as_str(), pool.workers[0].idle_for), ("guest", None));
    }

    #[test]
    fn last_worker_shows_whether_machines_isolate() {
        // Ages, with what the workers have stated and whether they take tasks.
        let (open, confined, sick, sick_open) = ((true, true), (false, true), (false, false), (true, false));
        for (workers, expected) in [
            (vec![], None),
            (vec![(50, confined)], None),
            (vec![(30, open), (20, open), (50, confined)], Some(20)),
            (vec![(30, open), (20, open), (3, confined)], None),
            (vec![(20, confined), (20, open)], Some(20)),
            (vec![(20, open), (3, sick)], Some(20)),
            (vec![(20, confined), (3, sick_open)], Some(3)),
        ] {
            let shown = workers.iter().filter_map(|(seconds, (not_isolated, takes_tasks))| {
                Some((Duration::from_secs(*seconds), isolates(*not_isolated, *takes_tasks)?))
            });
            assert_eq!(last_try(shown), expected.map(Duration::from_secs), "{workers:?}");
        }
        let serving = [(true, false, false), (false, false, false), (true, true, false), (true, false, true)];
        let taking = serving.map(|(connected, draining, sick)| takes_tasks(connected, draining, sick));
        assert_eq!(taking, [true, false, false, false]);
    }

    #[test]
    fn only_workers_of_the_pool_are_tries() {
        let open = |name, seconds, is_current| ReportedWorker {
            not_isolated: true,
            age: Some(Duration::from_secs(seconds)),
            is_current,
            ..reported(name, 0)
        };
        let all = [open("a", 300, true), open("b", 200, true), open("guest", 2, false)];
        let observed = Pool::observed(&Bounds::default(), Backlog::default(), &all);
        assert_eq!(observed.last_try, Some(Duration::from_secs(200)));
    }

    #[test]
    fn ended_workers_do_not_count() {
        let ended = [managed("a", ManagedState::Ended)];
        assert_eq!(of_started(&ended, &[reported("a", 0)]).workers, []);
    }

    #[test]
    fn observed_pools_keep_disconnected_workers() {
        let cut = ReportedWorker { connected: false, ..reported("cut", 0) };
        assert_eq!(Pool::observed(&Bounds::default(), Backlog::default(), &[cut]).workers.len(), 1);
    }
}
