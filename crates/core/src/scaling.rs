//! Autoscaling rule: how many workers a pool needs, as one pure function for processes on a laptop and pods in a
//! cluster. Knows no tasks, machines or clock.

mod input;

use std::time::Duration;

pub use self::input::{
    Bounds, DEFAULT_IDLE_TIMEOUT, ManagedState, ManagedWorker, ReportedWorker, STABLE_AFTER, START_TIMEOUT,
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
    let free: u64 = pool
        .workers
        .iter()
        .filter(|worker| !worker.draining && !worker.unavailable)
        .map(|worker| slots.saturating_sub(u64::from(worker.running.saturating_sub(worker.storing))))
        .sum();
    let wanted = pool.queued.saturating_add(u64::from(pool.spare) * slots);

    let for_demand = wanted.saturating_sub(free).div_ceil(slots);
    let for_floor = u64::from(pool.floor).saturating_sub(live);
    if pool.pressed {
        return Plan { start: 0, drain: relieved(pool, live) };
    }
    let start = for_demand.max(for_floor).min(ceiling.saturating_sub(all));
    if start > 0 {
        return Plan { start: u32::try_from(start).unwrap_or(u32::MAX), drain: Vec::new() };
    }
    let mut drain = surplus(pool, ceiling, live, free, wanted, slots);
    if drain.is_empty() && for_demand > 0 {
        drain.extend(replaced(pool));
    }
    Plan { start: 0, drain }
}

/// Returns a worker that makes room for another one: it gets no tasks, and would keep its place as long as there is demand.
/// One at a time, since the next may be no better.
fn replaced(pool: &Pool) -> Option<String> {
    if pool.workers.iter().any(|worker| worker.draining || worker.starting) {
        return None;
    }
    let sick =
        pool.workers.iter().filter(|worker| worker.connected && worker.unavailable && worker.running == 0);
    let longest = sick.filter_map(|worker| Some((worker.idle_for?, worker))).max_by_key(|(idle, _)| *idle);
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
fn surplus(pool: &Pool, ceiling: u64, mut live: u64, mut free: u64, wanted: u64, slots: u64) -> Vec<String> {
    let mut drain = Vec::new();
    for (worker, idle_for) in idle(pool) {
        let slots = if worker.unavailable { 0 } else { slots };
        let too_many = live > ceiling;
        let unneeded = live > u64::from(pool.floor)
            && idle_for >= pool.idle_timeout
            && free.saturating_sub(slots) >= wanted;
        if !too_many && !unneeded {
            continue;
        }
        drain.push(worker.name.clone());
        live -= 1;
        free = free.saturating_sub(slots);
    }
    drain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(name: &str, seconds: u64) -> WorkerView {
        WorkerView {
            name: name.into(),
            connected: true,
            idle_for: Some(Duration::from_secs(seconds)),
            ..Default::default()
        }
    }

    fn busy(name: &str, running: u32) -> WorkerView {
        WorkerView { name: name.into(), running, connected: true, ..Default::default() }
    }

    fn starting(name: &str) -> WorkerView {
        WorkerView { name: name.into(), starting: true, ..Default::default() }
    }

    fn pool(floor: u32, ceiling: u32, queued: u64, workers: Vec<WorkerView>) -> Pool {
        let idle_timeout = Duration::from_secs(60);
        Pool { floor, ceiling, spare: 0, slots: 1, queued, workers, idle_timeout, pressed: false }
    }

    fn start(pool: &Pool) -> u32 {
        let plan = plan(pool);
        assert_eq!(plan.drain, [""; 0]);
        plan.start
    }

    fn drain(pool: &Pool) -> Vec<String> {
        let plan = plan(pool);
        assert_eq!(plan.start, 0);
        plan.drain
    }

    #[test]
    fn empty_demand_plans_nothing() {
        assert_eq!(plan(&pool(0, 5, 0, vec![])), Plan::default());
        assert_eq!(plan(&Pool::default()), Plan::default());
    }

    #[test]
    fn floor_is_always_running() {
        assert_eq!(start(&pool(2, 5, 0, vec![])), 2);
        assert_eq!(start(&pool(2, 5, 0, vec![starting("a")])), 1);
        assert_eq!(start(&pool(3, 1, 0, vec![])), 3, "a ceiling below the floor counts as the floor");
        assert_eq!(drain(&pool(1, 5, 0, vec![idle("a", 900)])), [""; 0]);
    }

    #[test]
    fn demand_starts_workers_up_to_ceiling() {
        assert_eq!(start(&pool(0, 5, 3, vec![])), 3);
        assert_eq!(start(&pool(0, 5, 30, vec![busy("a", 1)])), 4);
        assert_eq!(start(&pool(0, 5, 3, vec![starting("a"), starting("b")])), 1, "starting ones are coming");
        assert_eq!(start(&pool(0, 5, 1, vec![idle("a", 1)])), 0, "a free slot is there");
        assert_eq!(start(&pool(0, 5, u64::MAX, vec![])), 5);
    }

    #[test]
    fn slots_count_as_capacity() {
        let mut p = pool(0, 9, 10, vec![busy("a", 3)]);
        p.slots = 4;
        assert_eq!(start(&p), 3, "one free slot, nine tasks more");
        p.workers = vec![busy("a", 9)];
        p.queued = 1;
        assert_eq!(start(&p), 1, "more running than slots is no negative capacity");
    }

    #[test]
    fn stored_files_hold_no_slot_and_keep_their_worker() {
        let storing = |name, running| WorkerView { storing: 1, ..busy(name, running) };
        assert_eq!(start(&pool(0, 5, 1, vec![storing("a", 1)])), 0, "it takes the task");
        assert_eq!(start(&pool(0, 5, 1, vec![storing("a", 2)])), 1);
        let mut p = pool(0, 5, 0, vec![storing("a", 1)]);
        p.spare = 1;
        assert_eq!(start(&p), 0, "it is the spare one");
        // Its disk may end with it.
        p.workers.push(WorkerView { idle_for: Some(Duration::from_secs(900)), ..storing("b", 1) });
        p.workers.push(idle("c", 900));
        assert_eq!(drain(&p), ["c"]);
        p.ceiling = 1;
        assert_eq!(drain(&p), ["c"], "even of too many");
    }

    #[test]
    fn spare_workers_are_kept() {
        let mut p = pool(0, 5, 0, vec![busy("a", 1)]);
        p.spare = 2;
        assert_eq!(start(&p), 2);
        p.workers = vec![busy("a", 1), idle("b", 900), idle("c", 900)];
        assert_eq!(drain(&p), [""; 0]);
        p.workers.push(idle("d", 901));
        assert_eq!(drain(&p), ["d"]);
    }

    #[test]
    fn draining_workers_count_only_for_ceiling() {
        let mut leaving = busy("a", 1);
        leaving.draining = true;
        assert_eq!(start(&pool(1, 1, 1, vec![leaving.clone()])), 0);
        assert_eq!(start(&pool(1, 2, 5, vec![leaving])), 1);
    }

    #[test]
    fn disconnected_worker_is_capacity_and_kept() {
        let mut cut = idle("a", 900);
        cut.connected = false;
        assert_eq!(plan(&pool(1, 5, 1, vec![cut.clone()])), Plan::default());
        assert_eq!(plan(&pool(0, 5, 0, vec![cut])), Plan::default());
    }

    #[test]
    fn unavailable_workers_are_no_capacity_and_end_first() {
        let sick = |name, seconds| WorkerView { unavailable: true, ..idle(name, seconds) };
        assert_eq!(start(&pool(0, 5, 1, vec![sick("a", 1)])), 1);
        assert_eq!(start(&pool(0, 1, 1, vec![sick("a", 1)])), 0, "it counts for the ceiling");
        assert_eq!(start(&pool(1, 5, 0, vec![sick("a", 1)])), 0, "and for the floor");
        let workers = vec![idle("a", 900), sick("b", 70), sick("c", 10)];
        assert_eq!(drain(&pool(0, 5, 1, workers.clone())), ["b"], "the healthy one is needed");
        assert_eq!(drain(&pool(0, 5, 0, workers)), ["b", "a"]);
    }

    #[test]
    fn pressed_machine_starts_none_and_ends_idle_workers() {
        let sick = |name, seconds| WorkerView { unavailable: true, ..idle(name, seconds) };
        let pressed =
            |floor, spare, queued, workers| Pool { pressed: true, spare, ..pool(floor, 9, queued, workers) };
        assert_eq!(drain(&pressed(0, 0, 9, vec![sick("a", 1)])), [""; 0], "it reports the recovery");
        assert_eq!(drain(&pressed(0, 0, 0, vec![sick("a", 1)])), ["a"], "nothing waits for a recovery");
        assert_eq!(drain(&pressed(2, 0, 9, vec![sick("a", 1)])), [""; 0], "not even for the floor");
        let workers = vec![busy("a", 1), sick("b", 1), idle("c", 2), idle("d", 3)];
        assert_eq!(drain(&pressed(0, 0, 9, workers.clone())), ["b", "d", "c"], "immediately");
        assert_eq!(drain(&pressed(0, 1, 9, workers.clone())), ["b", "d"], "a spare one stays");
        assert_eq!(drain(&pressed(3, 0, 9, workers.clone())), ["b"], "the floor stays");
        assert_eq!(start(&Pool { pressed: false, ..pressed(0, 0, 9, workers) }), 5, "it has recovered");
    }

    #[test]
    fn unavailable_workers_at_the_ceiling_are_replaced() {
        let sick = |name, seconds| WorkerView { unavailable: true, ..idle(name, seconds) };
        assert_eq!(drain(&pool(0, 1, 1, vec![sick("a", 119)])), [""; 0], "it may recover");
        assert_eq!(drain(&pool(0, 1, 1, vec![sick("a", 120)])), ["a"]);
        assert_eq!(drain(&pool(2, 2, 9, vec![sick("a", 200), sick("b", 300)])), ["b"], "one at a time");
        let leaving = WorkerView { draining: true, ..sick("b", 300) };
        assert_eq!(drain(&pool(0, 2, 9, vec![sick("a", 200), leaving])), [""; 0]);
        assert_eq!(drain(&pool(0, 2, 9, vec![sick("a", 200), starting("b")])), [""; 0]);
        assert_eq!(drain(&pool(1, 1, 0, vec![sick("a", 900)])), [""; 0], "without demand it stays");
        assert_eq!(drain(&pool(0, 2, 1, vec![busy("a", 1), sick("b", 200)])), ["b"]);
    }

    #[test]
    fn only_idle_workers_drain_after_timeout() {
        let workers = vec![idle("a", 70), busy("b", 1), idle("c", 59), idle("d", 80), starting("e")];
        assert_eq!(drain(&pool(0, 9, 0, workers.clone())), ["d", "a"]);
        assert_eq!(drain(&pool(4, 9, 0, workers.clone())), ["d"]);
        assert_eq!(drain(&pool(0, 9, 3, workers)), ["d"], "three free slots must stay");
    }

    #[test]
    fn unneeded_starts_are_withdrawn_first() {
        let pending = |name, seconds| WorkerView { connected: false, starting: true, ..idle(name, seconds) };
        let workers = vec![idle("a", 500), pending("b", 70), pending("c", 59)];
        assert_eq!(drain(&pool(0, 9, 2, workers.clone())), ["b"]);
        assert_eq!(drain(&pool(0, 9, 3, workers.clone())), [""; 0]);
        assert_eq!(drain(&pool(1, 1, 1, workers)), ["b", "c"], "the ceiling was lowered");
    }

    #[test]
    fn lowered_ceiling_drains_idle_immediately() {
        let workers = vec![idle("a", 1), busy("b", 1), idle("c", 2)];
        assert_eq!(drain(&pool(0, 2, 0, workers.clone())), ["c"]);
        assert_eq!(drain(&pool(0, 0, 9, workers)), ["c", "a"]);
    }

    #[test]
    fn plan_reaches_a_fixed_point() {
        // Whatever it does leaves nothing more to do, once it is done.
        for floor in 0..3 {
            for ceiling in 0..4 {
                for queued in 0..4 {
                    for spare in 0..3 {
                        let mut p =
                            pool(floor, ceiling, queued, vec![idle("x", 99), busy("y", 1), idle("z", 99)]);
                        p.spare = spare;
                        let first = plan(&p);
                        p.workers.retain(|worker| !first.drain.contains(&worker.name));
                        p.workers.extend((0..first.start).map(|n| starting(&n.to_string())));
                        assert_eq!(
                            plan(&p),
                            Plan::default(),
                            "{floor} {ceiling} {queued} {spare}: {first:?}"
                        );
                        assert!(!first.drain.contains(&"y".to_owned()));
                    }
                }
            }
        }
    }

    #[test]
    fn ceiling_follows_spec() {
        let of = |replicas, max| ceiling(replicas, max);
        assert_eq!(
            [of(0, None), of(3, None), of(3, Some(2)), of(0, Some(4)), of(0, Some(0))],
            [1, 3, 3, 4, 0]
        );
    }
}
