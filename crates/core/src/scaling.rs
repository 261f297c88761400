//! Autoscaling rule: how many workers a pool needs, as one pure function for processes on a laptop and pods in a
//! cluster. Knows no tasks, machines or clock.

mod input;

use std::time::Duration;

pub use self::input::{
    Backlog, Bounds, DEFAULT_IDLE_TIMEOUT, ManagedState, ManagedWorker, ReportedWorker, STABLE_AFTER,
    START_TIMEOUT,
};

/// Idle time after which a worker that gets no tasks is replaced, if others are wanted and the ceiling leaves no room.
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
    let all_wanted = pool.queued.saturating_add(u64::from(pool.spare) * slots);
    let wanted = Slots { all: all_wanted, isolating: pool.isolated };

    let missing = wanted.without(free);
    let isolating = if has_tried(pool) { 0 } else { missing.isolating };
    let for_demand = missing.all.max(isolating).div_ceil(slots);
    let for_floor = u64::from(pool.floor).saturating_sub(live);
    if pool.pressed {
        return Plan { start: 0, drain: relieved(pool, live) };
    }
    let start = for_demand.max(for_floor).min(ceiling.saturating_sub(all));
    if start > 0 {
        return Plan { start: u32::try_from(start).unwrap_or(u32::MAX), drain: Vec::new() };
    }
    let mut drain = surplus(pool, ceiling, live, free, wanted, slots);
    if drain.is_empty() && missing.all.max(missing.isolating) > 0 {
        drain.extend(replaced(pool, missing.isolating > 0));
    }
    Plan { start: 0, drain }
}

/// Slots of workers, or tasks for them.
#[derive(Debug, Clone, Copy)]
struct Slots {
    all: u64,
    /// Those of workers that isolate their attempts, or may.
    isolating: u64,
}

impl Slots {
    fn without(self, other: Self) -> Self {
        let all = self.all.saturating_sub(other.all);
        Self { all, isolating: self.isolating.saturating_sub(other.isolating) }
    }

    fn cover(self, wanted: Self) -> bool {
        self.all >= wanted.all && self.isolating >= wanted.isolating
    }
}

impl WorkerView {
    /// Returns these slots as slots of the worker.
    fn slots(&self, count: u64) -> Slots {
        Slots { all: count, isolating: if self.not_isolated { 0 } else { count } }
    }
}

/// Returns the free slots of workers that take tasks.
fn free_slots(pool: &Pool, slots: u64) -> Slots {
    let serving = pool.workers.iter().filter(|worker| !worker.draining && !worker.unavailable);
    serving.fold(Slots { all: 0, isolating: 0 }, |sum, worker| {
        let occupied = u64::from(worker.running.saturating_sub(worker.storing));
        let free = worker.slots(slots.saturating_sub(occupied));
        Slots { all: sum.all + free.all, isolating: sum.isolating + free.isolating }
    })
}

/// Whether more workers are idle that do not isolate than are kept in any case: others were started in vain where machines do not
/// isolate. One of them has to end before the next one is tried.
fn has_tried(pool: &Pool) -> bool {
    let idle = pool.workers.iter().filter(|worker| worker.not_isolated && !worker.draining);
    let idle = idle.filter(|worker| worker.running == 0 && worker.idle_for.is_some()).count() as u64;
    idle > u64::from(pool.floor.max(pool.spare).max(1))
}

/// Returns a worker that makes room for another one: it gets no tasks, or, `for_isolation`, none of those that wait, and would keep its
/// place as long as there is demand. One at a time, since the next may be no better.
fn replaced(pool: &Pool, for_isolation: bool) -> Option<String> {
    if pool.workers.iter().any(|worker| worker.draining || worker.starting) {
        return None;
    }
    // One that has lately shown that it does not isolate: the next one is tried later.
    let is_recent = |worker: &WorkerView| {
        let idle = worker.idle_for.filter(|_| worker.not_isolated && worker.running == 0);
        idle.is_some_and(|idle| idle < REPLACE_AFTER)
    };
    let for_isolation = for_isolation && !pool.workers.iter().any(is_recent);
    let is_useless = |worker: &WorkerView| worker.unavailable || for_isolation && worker.not_isolated;
    let useless =
        (pool.workers.iter()).filter(|worker| worker.connected && is_useless(worker) && worker.running == 0);
    let longest = useless.filter_map(|worker| Some((worker.idle_for?, worker))).max_by_key(|(idle, _)| *idle);
    longest.filter(|(idle, _)| *idle >= REPLACE_AFTER).map(|(_, worker)| worker.name.clone())
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
/// no tasks, then the longest idle.
fn idle(pool: &Pool) -> Vec<(&WorkerView, Duration)> {
    let mut idle: Vec<_> = pool
        .workers
        .iter()
        .filter(|worker| (worker.connected || worker.starting) && !worker.draining && worker.running == 0)
        .filter_map(|worker| Some((worker, worker.idle_for?)))
        .collect();
    let rank = |worker: &WorkerView| (worker.starting, worker.unavailable);
    idle.sort_by(|(a, a_idle), (b, b_idle)| {
        rank(b).cmp(&rank(a)).then(b_idle.cmp(a_idle)).then(a.name.cmp(&b.name))
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
    for (worker, idle_for) in idle(pool) {
        let left = free.without(worker.slots(if worker.unavailable { 0 } else { slots }));
        let too_many = live > ceiling;
        // One that does not isolate has nothing that tasks for isolation miss.
        let suffices = if worker.not_isolated { left.all >= wanted.all } else { left.cover(wanted) };
        // While tasks wait for isolation, it shows that another one may be in vain.
        let shows = pool.isolated > 0 && worker.not_isolated;
        let timeout = if shows { pool.idle_timeout.max(REPLACE_AFTER) } else { pool.idle_timeout };
        let unneeded = live > u64::from(pool.floor) && idle_for >= timeout && suffices;
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
