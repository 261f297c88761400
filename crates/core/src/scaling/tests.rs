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

/// Returns a worker that does not isolate, and has been idle since it was started.
fn open(name: &str, seconds: u64) -> WorkerView {
    let age = Some(Duration::from_secs(seconds));
    WorkerView { not_isolated: true, age, is_current: true, ..idle(name, seconds) }
}

/// Returns the same, idle for a second only.
fn rested(name: &str, seconds: u64) -> WorkerView {
    WorkerView { idle_for: Some(Duration::from_secs(1)), ..open(name, seconds) }
}

/// Returns the same with tasks.
fn loaded(name: &str, seconds: u64, running: u32) -> WorkerView {
    WorkerView { running, idle_for: None, ..open(name, seconds) }
}

/// Returns a pool without a floor for which only tasks wait that demand isolation.
fn isolated(queued: u64, workers: Vec<WorkerView>) -> Pool {
    let last_try = last_try(workers.iter().filter_map(WorkerView::shown));
    Pool { isolated: queued, last_try, ..pool(0, 5, queued, workers) }
}

#[test]
fn free_slots_without_isolation_are_no_room_for_it() {
    assert_eq!(start(&isolated(1, vec![open("a", 120)])), 1);
    assert_eq!(start(&isolated(3, vec![])), 3);
    assert_eq!(start(&isolated(1, vec![idle("a", 1), open("b", 1)])), 0, "the first one takes it");
    assert_eq!(start(&isolated(1, vec![open("a", 1), starting("b")])), 0, "it may isolate");
    assert_eq!(start(&isolated(1, vec![busy("a", 1), open("b", 120)])), 1);
    assert_eq!(start(&Pool { slots: 4, ..isolated(5, vec![loaded("a", 120, 1)]) }), 1);
    let mixed = Pool { queued: 3, ..isolated(1, vec![open("a", 1)]) };
    assert_eq!(start(&mixed), 1, "one of those that demand none runs on the first worker");
    assert_eq!(start(&pool(0, 5, 1, vec![open("a", 1)])), 0, "the task demands none");
}

#[test]
fn tries_for_isolation_are_paced_by_age() {
    for (seconds, expected) in [(119, 0), (120, 1)] {
        let sick = WorkerView { unavailable: true, ..rested("a", seconds) };
        let cut = WorkerView { connected: false, ..open("a", seconds) };
        for worker in [rested("a", seconds), loaded("a", seconds, 1), sick, cut] {
            assert_eq!(start(&isolated(9, vec![worker.clone()])), expected, "{worker:?}");
        }
        let ended = Pool { last_try: Some(Duration::from_secs(seconds)), ..isolated(9, vec![]) };
        assert_eq!(start(&ended), expected);
    }
    assert_eq!(start(&isolated(9, vec![rested("a", 900), starting("b")])), 0, "it may isolate");
    assert_eq!(start(&isolated(1, vec![rested("a", 900), rested("b", 5)])), 0);
    let foreign = |name| WorkerView { is_current: false, idle_for: None, ..open(name, 0) };
    let pool = isolated(1, vec![foreign("a"), foreign("b")]);
    assert_eq!(start(&pool), 1, "the pool did not start them");
    assert_eq!(start(&Pool { last_try: Some(Duration::from_secs(900)), ..pool }), 1, "nor can it end them");
}

#[test]
fn workers_beyond_need_are_replaced_for_isolation() {
    let two = || vec![rested("a", 900), rested("b", 120)];
    let plan = plan(&isolated(1, two()));
    assert_eq!((plan.start, plan.drain.as_slice()), (0, ["b".to_owned()].as_slice()), "one is not needed");
    assert!(plan.for_isolation);
    assert_eq!(start(&Pool { spare: 1, ..isolated(1, two()) }), 1);
    assert_eq!(drain(&Pool { spare: 1, ceiling: 2, ..isolated(1, two()) }), ["b"], "there is no room");
    assert_eq!(drain(&Pool { isolated: 0, ..isolated(1, two()) }), [""; 0]);
    let leaving = WorkerView { draining: true, ..rested("c", 900) };
    let full = vec![rested("a", 900), rested("b", 900), leaving];
    assert_eq!(drain(&isolated(1, full)), [""; 0], "one at a time");
    let late = WorkerView { starting: true, connected: false, ..idle("b", 70) };
    assert_eq!(
        drain(&isolated(2, vec![rested("a", 120), late])),
        [""; 0],
        "the tasks wait for the other one"
    );
}

#[test]
fn full_pool_makes_room_despite_a_younger_isolating_worker() {
    let confined = WorkerView { not_isolated: false, ..loaded("c", 60, 1) };
    let full = |c| Pool { spare: 2, ceiling: 3, ..isolated(1, vec![rested("a", 900), rested("b", 800), c]) };
    assert_eq!(drain(&full(confined.clone())), ["b"]);
    assert_eq!(drain(&full(WorkerView { not_isolated: true, ..confined })), [""; 0], "the next try waits");
}

#[test]
fn sick_workers_that_isolate_lift_no_pace() {
    let sick = WorkerView { not_isolated: false, unavailable: true, ..open("b", 5) };
    assert_eq!(start(&isolated(9, vec![open("a", 90), sick])), 0);
    let well = WorkerView { unavailable: false, ..loaded("b", 5, 1) };
    assert_eq!(start(&isolated(9, vec![open("a", 90), WorkerView { not_isolated: false, ..well }])), 3);
}

#[test]
fn plain_tasks_do_not_end_tries() {
    let spread = vec![rested("a", 900), rested("b", 900), loaded("c", 900, 1)];
    assert_eq!(drain(&isolated(1, spread)), ["a"], "it is idle between two tasks");
    assert_eq!(start(&isolated(1, vec![rested("a", 900), loaded("c", 900, 1)])), 1);
    let of = |count: u32| {
        let tasks = |n: u32| 20 / count + u32::from(n < 20 % count);
        let workers = (0..count).map(|n| loaded(&n.to_string(), 900, tasks(n))).collect();
        Pool { ceiling: 40, slots: 4, ..isolated(1, workers) }
    };
    assert_eq!([start(&of(5)), start(&of(6)), start(&of(7))], [1, 1, 0], "tasks are spread over all workers");
    assert_eq!(start(&Pool { spare: 2, ..of(7) }), 1);
}

#[test]
fn floor_is_not_ended_for_isolation() {
    let floor = |others: Vec<WorkerView>| {
        let workers = ["a", "b", "c"].map(|name| open(name, 900)).into_iter().chain(others).collect();
        Pool { floor: 3, ceiling: 10, ..isolated(1, workers) }
    };
    assert_eq!(plan(&Pool { ceiling: 3, ..floor(vec![]) }), Plan::default());
    assert_eq!(plan(&floor(vec![starting("d")])), Plan::default());
    assert_eq!(plan(&floor(vec![open("d", 70)])), Plan::default(), "it shows the cause");
    assert_eq!(start(&floor(vec![open("d", 120)])), 1);
    assert_eq!(drain(&floor(vec![open("d", 125), starting("e")])), ["d"]);
    let older = WorkerView { is_current: false, ..open("d", 70) };
    assert_eq!(drain(&Pool { ceiling: 4, ..floor(vec![older]) }), ["d"], "it shows nothing");
}

#[test]
fn tries_in_vain_end_after_two_minutes() {
    let names: Vec<_> = (0..20).map(|n| format!("{n:02}")).collect();
    let full = |queued, seconds| {
        let workers = names.iter().map(|name| open(name, seconds)).collect();
        Pool { ceiling: 20, queued, ..isolated(20, workers) }
    };
    assert_eq!(drain(&full(20, 119)), [""; 0], "they show the cause");
    assert_eq!(drain(&full(20, 120)), names);
    assert_eq!(drain(&full(25, 120)), names[..15], "five tasks take any worker");
}

#[test]
fn tries_without_isolation_are_rare() {
    // `load` tasks that demand no isolation run all the time, and are spread over all workers.
    for (floor, ceiling, queued, timeout, load, slots) in [
        (0, 1, 1, 60, 0_usize, 1_usize),
        (0, 5, 1, 0, 0, 1),
        (0, 20, 10, 60, 0, 1),
        (0, 20, 100, 60, 0, 1),
        (3, 10, 1, 60, 0, 1),
        (20, 40, 1, 5, 0, 1),
        (3, 3, 1, 60, 0, 1),
        (0, 40, 1, 60, 20, 4),
        (0, 40, 1, 60, 24, 8),
    ] {
        let (mut started, mut starts, mut last) = (Vec::<(u32, u64)>::new(), 0, None);
        for now in 0..3600_u64 {
            let joined = started.iter().filter(|(_, at)| now - at >= 5).count();
            last = started.iter().filter(|(_, at)| now - at >= 5).map(|(_, at)| *at).chain(last).max();
            let mut left = load.min(joined * slots);
            let mut others = joined;
            let worker = |(name, at): &(u32, u64)| {
                let (name, age) = (name.to_string(), now - at);
                if age < 5 {
                    return starting(&name);
                }
                let running = left.div_ceil(others);
                (left, others) = (left - running, others - 1);
                match u32::try_from(running).unwrap() {
                    0 => open(&name, age),
                    running => loaded(&name, age, running),
                }
            };
            let workers = started.iter().map(worker).collect();
            let plan = plan(&Pool {
                floor,
                ceiling,
                idle_timeout: Duration::from_secs(timeout),
                slots: u32::try_from(slots).unwrap(),
                queued: queued + (load - load.min(joined * slots)) as u64,
                isolated: queued,
                last_try: last.map(|at| Duration::from_secs(now - at)),
                workers,
                ..Pool::default()
            });
            started.retain(|(name, _)| !plan.drain.contains(&name.to_string()));
            started.extend((starts..starts + plan.start).map(|name| (name, now)));
            starts += plan.start;
        }
        let case = format!("{floor} {ceiling} {queued} {timeout} {load} {slots}");
        assert!(starts <= ceiling + 30, "{starts} starts in an hour: {case}");
        let few = load.div_ceil(slots).max(floor as usize) + 2;
        assert!(started.len() <= few, "{} workers in the end: {case}", started.len());
        let kept = started.iter().filter(|(name, _)| *name < floor).count();
        assert_eq!(kept, floor as usize, "the floor has ended: {case}");
    }
}

#[test]
fn only_idle_workers_drain_after_timeout() {
    let workers = vec![idle("a", 70), busy("b", 1), idle("c", 59), idle("d", 80), starting("e")];
    assert_eq!(drain(&pool(0, 9, 0, workers.clone())), ["d", "a"]);
    assert_eq!(drain(&pool(4, 9, 0, workers.clone())), ["d"]);
    assert_eq!(drain(&pool(0, 9, 3, workers)), ["d"], "three free slots must stay");
}

#[test]
fn older_template_drains_first_then_the_youngest() {
    let current = |name, seconds| WorkerView { not_isolated: false, ..open(name, seconds) };
    let older = |name, seconds| WorkerView { is_current: false, ..current(name, seconds) };
    let workers = vec![current("a", 300), current("b", 200), older("c", 900), older("d", 800)];
    assert_eq!(drain(&pool(0, 9, 0, workers)), ["d", "c", "b", "a"]);
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
