//! Plans for pools of every shape.

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
    Pool { floor, ceiling, slots: 1, queued, workers, idle_timeout, ..Pool::default() }
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

/// Returns an idle worker that does not isolate.
fn open(name: &str, seconds: u64) -> WorkerView {
    WorkerView { not_isolated: true, ..idle(name, seconds) }
}

/// Returns a pool without a floor for which only tasks wait that demand isolation.
fn isolated(queued: u64, workers: Vec<WorkerView>) -> Pool {
    Pool { isolated: queued, ..pool(0, 5, queued, workers) }
}

#[test]
fn free_slots_without_isolation_are_no_room_for_it() {
    assert_eq!(start(&isolated(1, vec![open("a", 1)])), 1);
    assert_eq!(start(&isolated(3, vec![open("a", 1)])), 3);
    assert_eq!(start(&isolated(1, vec![idle("a", 1), open("b", 1)])), 0, "the first one takes it");
    assert_eq!(start(&isolated(1, vec![open("a", 1), starting("b")])), 0, "it may isolate");
    assert_eq!(start(&isolated(1, vec![busy("a", 1), open("b", 1)])), 1);
    let several = WorkerView { not_isolated: true, ..busy("a", 1) };
    assert_eq!(start(&Pool { slots: 4, ..isolated(5, vec![several]) }), 2);
    let mixed = Pool { isolated: 1, ..pool(0, 5, 3, vec![open("a", 1)]) };
    assert_eq!(start(&mixed), 2, "one of those that demand none runs on the first worker");
    assert_eq!(start(&pool(0, 5, 1, vec![open("a", 1)])), 0, "the task demands none");
}

#[test]
fn workers_without_isolation_are_few_where_no_machine_isolates() {
    let two = || vec![open("a", 9), open("b", 1)];
    assert_eq!(start(&isolated(1, two())), 0);
    assert_eq!(start(&Pool { floor: 2, ..isolated(1, two()) }), 1, "these are there in any case");
    let foreign = |name| WorkerView { idle_for: None, ..open(name, 0) };
    assert_eq!(start(&isolated(1, vec![foreign("a"), foreign("b")])), 1, "the pool did not start them");
    // The next one is tried once another has been idle for two minutes.
    assert_eq!(drain(&isolated(1, vec![open("a", 120), open("b", 1)])), ["a"]);
    let late = WorkerView { starting: true, connected: false, ..idle("b", 70) };
    let drained = drain(&isolated(1, vec![open("a", 120), late]));
    assert_eq!(drained, ["a"], "the task waits for the other one");
}

#[test]
fn tries_without_isolation_are_rare() {
    for (ceiling, queued, timeout) in [(1, 1, 60), (5, 1, 0), (20, 10, 60), (20, 100, 60)] {
        let (mut started, mut starts) = (Vec::<(u32, u64)>::new(), 0);
        for now in 0..3600 {
            let worker = |(name, at): &(u32, u64)| match (now - at).checked_sub(5) {
                Some(idle) => open(&name.to_string(), idle),
                None => starting(&name.to_string()),
            };
            let workers = started.iter().map(worker).collect();
            let idle_timeout = Duration::from_secs(timeout);
            let plan = plan(&Pool { ceiling, idle_timeout, ..isolated(queued, workers) });
            started.retain(|(name, _)| !plan.drain.contains(&name.to_string()));
            started.extend((starts..starts + plan.start).map(|name| (name, now)));
            starts += plan.start;
        }
        assert!(starts <= ceiling + 60, "{starts} starts in an hour: {ceiling} {queued} {timeout}");
    }
}

#[test]
fn workers_without_isolation_are_replaced_at_the_ceiling() {
    let full = |workers| Pool { ceiling: 2, ..isolated(2, workers) };
    assert_eq!(drain(&full(vec![open("a", 119), open("b", 1)])), [""; 0]);
    assert_eq!(drain(&full(vec![open("a", 120), open("b", 130)])), ["b"], "one at a time");
    assert_eq!(drain(&full(vec![busy("a", 1), open("b", 130)])), ["b"]);
    assert_eq!(drain(&Pool { isolated: 0, ..full(vec![open("a", 120), open("b", 130)]) }), [""; 0]);
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
                    assert_eq!(plan(&p), Plan::default(), "{floor} {ceiling} {queued} {spare}: {first:?}");
                    assert!(!first.drain.contains(&"y".to_owned()));
                }
            }
        }
    }
}

#[test]
fn ceiling_follows_spec() {
    let of = |replicas, max| ceiling(replicas, max);
    assert_eq!([of(0, None), of(3, None), of(3, Some(2)), of(0, Some(4)), of(0, Some(0))], [1, 3, 3, 4, 0]);
}
