//! Autoscaling rule: how many workers a pool needs, as one pure function for processes on a laptop and pods in a
//! cluster. Knows no tasks, machines or clock.

mod input;

use std::time::Duration;

pub use self::input::{
    Backlog, Bounds, DEFAULT_IDLE_TIMEOUT, ManagedState, ManagedWorker, ReportedWorker, STABLE_AFTER,
    START_TIMEOUT, is_not_isolated, isolates, last_try, takes_tasks,
};

/// Idle time after which a worker that gets no tasks is replaced, if others are wanted and the ceiling leaves no room. Also the age
/// of a worker that does not isolate its attempts at which the next one is tried.
pub const REPLACE_AFTER: Duration = Duration::from_secs(120);

/// State of a pool and its demand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Number of workers that always run.
    pub floor: u32,
    /// Largest number of workers, including draining ones. A ceiling below the floor counts as the floor.
    pub ceiling: u32,
    /// Idle workers kept ahead of demand, within the ceiling.
    pub spare: u32,
    /// Concurrent tasks per worker; 0 counts as 1.
    pub slots: u32,
    /// Tasks that wait for a slot of this pool, regardless of its capacity.
    pub queued: u64,
    /// How many of these only workers that isolate their attempts may take.
    pub isolated: u64,
    pub workers: Vec<WorkerView>,
    /// Age of the youngest worker that the manager of the pool has started and that does not isolate its attempts, even if it has
    /// ended; `None` if none is known, or if a younger one isolates and takes tasks.
    pub last_try: Option<Duration>,
    /// Idle time after which a worker beyond the floor is drained.
    pub idle_timeout: Duration,
    /// Whether the workers share a machine that has too little disk or memory for any of them: another one would not help, and
    /// each takes some of it.
    pub pressed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerView {
    pub name: String,
    /// Tasks on the worker: while it has one, it is not idle.
    pub running: u32,
    /// How many of these only wait until a storage takes their files: they hold no slot.
    pub storing: u32,
    pub draining: bool,
    /// Whether its session is open.
    pub connected: bool,
    /// Whether it gets no tasks although it is connected, for example since its disk is full. Its slots are no capacity.
    pub unavailable: bool,
    /// Whether it has shown that it does not isolate its attempts. One that has never been connected may.
    pub not_isolated: bool,
    /// Whether it was started and has never been connected.
    pub starting: bool,
    /// Time since it was started; `None` if unknown.
    pub age: Option<Duration>,
    /// Whether the manager of this pool is known to have started it from the present template: the next one would be like it.
    pub is_current: bool,
    /// Time without a task; `None` while it has one, or if unknown. Of a starting worker: the time since it was started,
    /// if its manager can withdraw it.
    pub idle_for: Option<Duration>,
}

/// Scaling decision: workers to start or to drain, never both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub start: u32,
    /// Workers to drain, starting ones first. Each was idle when this was planned, and must be drained only if it
    /// still is.
    pub drain: Vec<String>,
    /// Whether the drained worker makes room for one that may isolate its attempts.
    pub for_isolation: bool,
}

/// Returns the ceiling of an agent with these `replicas` and `max_replicas`: never below the floor, and if it is not set at
/// least one, since a managed pool without workers could execute nothing.
pub fn ceiling(replicas: u32, max_replicas: Option<u32>) -> u32 {
    max_replicas.unwrap_or(1).max(replicas)
}

/// Plans the next scaling step of a pool.
///
/// Starting and briefly disconnected workers count as capacity: a restarted control plane must not double every pool.
/// The idle timeout keeps the pool from oscillating, and it shrinks only where the remaining workers meet the demand.
pub fn plan(pool: &Pool) -> Plan {
    let slots = u64::from(pool.slots.max(1));
    let ceiling = u64::from(pool.ceiling.max(pool.floor));
    let all = pool.workers.len() as u64;
    let live = pool.workers.iter().filter(|worker| !worker.draining).count() as u64;
    let free = free_slots(pool, slots);
    let other = pool.queued.saturating_sub(pool.isolated).saturating_add(u64::from(pool.spare) * slots);
    let wanted = Slots { isolating: pool.isolated, other };

    let missing = wanted.missing(free);
    if pool.pressed {
        return Plan { drain: relieved(pool, live), ..Plan::default() };
    }
    // Once a worker has shown that it does not isolate, the next ones are tried one by one, with at most two more workers than the
    // other tasks need.
    let is_due = missing.isolating > 0 && is_try_due(pool);
    let is_full = has_enough_tries(pool, other, slots) || all >= ceiling;
    let for_isolation = match pool.last_try {
        None => missing.all().div_ceil(slots),
        Some(_) => u64::from(is_due && !is_full),
    };
    let for_demand = missing.other.div_ceil(slots).max(for_isolation);
    let for_floor = u64::from(pool.floor).saturating_sub(live);
    let start = for_demand.max(for_floor).min(ceiling.saturating_sub(all));
    if start > 0 {
        return Plan { start: u32::try_from(start).unwrap_or(u32::MAX), ..Plan::default() };
    }
    let drain = surplus(pool, ceiling, live, free, wanted, slots);
    if !drain.is_empty() || missing.all() == 0 {
        return Plan { drain, ..Plan::default() };
    }
    replaced(pool, is_due && is_full && live > u64::from(pool.floor))
}

/// Slots of workers, or tasks for them.
#[derive(Debug, Clone, Copy)]
struct Slots {
    /// Those of workers that isolate their attempts, or may; of tasks, those that demand it.
    isolating: u64,
    other: u64,
}

impl Slots {
    fn all(self) -> u64 {
        self.isolating.saturating_add(self.other)
    }

    fn without(self, other: Self) -> Self {
        Self {
            isolating: self.isolating.saturating_sub(other.isolating),
            other: self.other.saturating_sub(other.other),
        }
    }

    /// Returns the tasks for which `free` has no room. Those that demand no isolation may have what the others leave.
    fn missing(self, free: Self) -> Self {
        let left = free.isolating.saturating_sub(self.isolating);
        self.without(Self { other: free.other + left, ..free })
    }
}

impl WorkerView {
    /// Returns these slots as slots of the worker.
    fn slots(&self, count: u64) -> Slots {
        let (isolating, other) = if self.not_isolated { (0, count) } else { (count, 0) };
        Slots { isolating, other }
    }

    /// Returns its age and whether it isolates its attempts, if it shows that of the next worker.
    fn shown(&self) -> Option<(Duration, bool)> {
        let takes_tasks = takes_tasks(self.connected, self.draining, self.unavailable);
        let isolates = isolates(self.not_isolated, takes_tasks).filter(|_| self.is_current)?;
        Some((self.age?, isolates))
    }

    fn occupied(&self) -> u64 {
        u64::from(self.running.saturating_sub(self.storing))
    }
}

/// Returns the free slots of workers that take tasks.
fn free_slots(pool: &Pool, slots: u64) -> Slots {
    let serving = pool.workers.iter().filter(|worker| !worker.draining && !worker.unavailable);
    serving.fold(Slots { isolating: 0, other: 0 }, |sum, worker| {
        let free = worker.slots(slots.saturating_sub(worker.occupied()));
        Slots { isolating: sum.isolating + free.isolating, other: sum.other + free.other }
    })
}

/// Whether the last worker that was tried for isolation is old enough for the next one, and none is about to show whether it isolates.
fn is_try_due(pool: &Pool) -> bool {
    let is_starting = pool.workers.iter().any(|worker| worker.starting && !worker.draining);
    !is_starting && pool.last_try.is_none_or(|age| age >= REPLACE_AFTER)
}

/// Returns whether at least two workers beyond need show whether the next one would isolate: no further one is started to show that.
/// All but the tasks that wait for isolation need workers; `other` of these wait or may come.
fn has_enough_tries(pool: &Pool, other: u64, slots: u64) -> bool {
    let own = || pool.workers.iter().filter(|worker| !worker.draining && worker.is_current);
    let occupied: u64 = own().map(WorkerView::occupied).sum();
    let needed = occupied.saturating_add(other).div_ceil(slots).max(pool.floor.into());
    own().count() as u64 > needed.saturating_add(1)
}

/// Returns whether a worker has lately been tried in vain for the tasks that wait for isolation.
fn was_tried(pool: &Pool, worker: &WorkerView) -> bool {
    let is_recent = worker.age.is_some_and(|age| age < REPLACE_AFTER);
    pool.isolated > 0 && worker.not_isolated && worker.is_current && is_recent
}

/// Drains a worker that makes room for another one: it gets no tasks, or, `for_isolation`, none of those that wait, and would keep its
/// place as long as there is demand. One at a time, since the next may be no better.
fn replaced(pool: &Pool, for_isolation: bool) -> Plan {
    if pool.workers.iter().any(|worker| worker.draining || worker.starting) {
        return Plan::default();
    }
    let idle = idle(pool);
    let unavailable = idle.iter().find(|(worker, idle)| worker.unavailable && *idle >= REPLACE_AFTER);
    // Any other one shows nothing of the next one.
    let is_try = |worker: &WorkerView| worker.not_isolated && worker.is_current;
    let not_isolated = || idle.iter().find(|(worker, _)| for_isolation && is_try(worker));
    let Some((worker, _)) = unavailable.or_else(not_isolated) else { return Plan::default() };
    Plan { drain: vec![worker.name.clone()], for_isolation: !worker.unavailable, ..Plan::default() }
}

/// Returns the workers whose end relieves their machine: all idle ones but the spare ones and the floor. While tasks wait, one
/// stays, which reports when the machine has recovered.
fn relieved(pool: &Pool, live: u64) -> Vec<String> {
    let idle = idle(pool);
    let busy = live.saturating_sub(idle.len() as u64);
    let witness = u64::from(busy == 0 && pool.queued > 0);
    let kept = u64::from(pool.floor).saturating_sub(busy).max(u64::from(pool.spare)).max(witness);
    let ended = (idle.len() as u64).saturating_sub(kept);
    let ended = usize::try_from(ended).unwrap_or(usize::MAX);
    idle.into_iter().take(ended).map(|(worker, _)| worker.name.clone()).collect()
}

/// Returns the workers that run nothing, in the order in which they are drained: those that have not started yet, those that get
/// no tasks, and those of an older template, which would be replaced; then the youngest, so that what was tried in vain ends before
/// the floor. Where ages are unknown, the longest idle.
fn idle(pool: &Pool) -> Vec<(&WorkerView, Duration)> {
    let mut idle: Vec<_> = pool
        .workers
        .iter()
        .filter(|worker| (worker.connected || worker.starting) && !worker.draining && worker.running == 0)
        .filter_map(|worker| Some((worker, worker.idle_for?)))
        .collect();
    let rank = |worker: &WorkerView| (worker.starting, worker.unavailable, !worker.is_current);
    idle.sort_by(|(a, a_idle), (b, b_idle)| {
        rank(b).cmp(&rank(a)).then(a.age.cmp(&b.age)).then(b_idle.cmp(a_idle)).then(a.name.cmp(&b.name))
    });
    idle
}

/// Returns the workers that are not needed, or too many.
fn surplus(
    pool: &Pool,
    ceiling: u64,
    mut live: u64,
    mut free: Slots,
    wanted: Slots,
    slots: u64,
) -> Vec<String> {
    let mut drain = Vec::new();
    let floor = u64::from(pool.floor);
    // While tasks wait for isolation, those that are tried stay for a while, to show the cause, and hold no place of the floor.
    let is_starting = |worker: &&WorkerView| pool.isolated > 0 && worker.starting;
    let workers = pool.workers.iter().filter(|worker| !worker.draining);
    let tried = workers.filter(|worker| is_starting(worker) || was_tried(pool, worker)).count() as u64;
    for (worker, idle_for) in idle(pool) {
        let left = free.without(worker.slots(if worker.unavailable { 0 } else { slots }));
        let too_many = live > ceiling;
        let missing = wanted.missing(left);
        // One that does not isolate has nothing that tasks for isolation miss.
        let suffices = missing.other == 0 && (worker.not_isolated || missing.isolating == 0);
        let kept = if worker.starting { floor } else { floor.saturating_add(tried) };
        let unneeded = live > kept && idle_for >= pool.idle_timeout && suffices && !was_tried(pool, worker);
        if !too_many && !unneeded {
            continue;
        }
        drain.push(worker.name.clone());
        live -= 1;
        free = left;
    }
    drain
}

#[cfg(test)]
mod tests;
