//! Snapshots of what the watches report.

use std::time::UNIX_EPOCH;

use pbjson_types::Timestamp;
use rota_proto::v1::{AgentSpec, Progress, StateChange, TaskStatus, Usage, WorkerDemand};

use super::super::view_options::{Show, Sort};
use super::*;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn now(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn task(uid: &str, state: TaskState, more: impl FnOnce(&mut TaskStatus)) -> Task {
    let mut status = TaskStatus { state: state.into(), ready_time: at(0), ..Default::default() };
    more(&mut status);
    Task { uid: uid.into(), create_time: at(0), status: Some(Box::new(status)), ..Default::default() }
}

fn names(model: &Model, sort: Sort, show: Show) -> Vec<String> {
    let snapshot = model.snapshot(ViewOptions { sort, show }, now(100));
    snapshot.tasks.into_iter().map(|row| row.name).collect()
}

fn usage(status: &mut TaskStatus, cost: i64, start: i64, end: Option<i64>) {
    status.usage = Some(Usage { cost_micro_usd: cost, ..Default::default() });
    (status.start_time, status.end_time) = (at(start), end.and_then(at));
}

#[test]
fn pools_combine_agents_and_demand() {
    let mut model = Model::default();
    let spec = AgentSpec { replicas: 1, max_replicas: Some(5), ..Default::default() };
    let agent = Agent { name: "namespaces/a/agents/coder".into(), spec: Some(spec), ..Default::default() };
    let change = |kind| WatchAgentsResponse { kind: Some(kind) };
    use watch_agents_response::Kind;
    model.agent(change(Kind::Agent(agent.clone())));
    assert!(!model.synced);
    model.agent(change(Kind::Synced(true)));
    assert!(model.synced);
    let worker =
        |running, draining, connected| WorkerDemand { running, draining, connected, ..Default::default() };
    let workers =
        vec![worker(2, false, true), worker(0, false, true), worker(1, true, true), worker(1, false, false)];
    let demand = Demand { agent: agent.name.clone(), queued: 7, running: 4, workers, ..Default::default() };
    let deleted = Demand { agent: "namespaces/a/agents/deleted".into(), running: 1, ..Default::default() };
    model.demand(WatchDemandResponse { demands: vec![demand, deleted], ..Default::default() });
    let pools = model.snapshot(ViewOptions::default(), now(0)).pools;
    let coder = Pool {
        namespace: "a".into(),
        agent: "coder".into(),
        ready: 2,
        busy: 1,
        idle: 1,
        draining: 1,
        queued: 7,
        running: 4,
        floor: 1,
        ceiling: 5,
        limit: String::new(),
    };
    assert_eq!(pools[0], coder);
    assert_eq!((pools[1].agent.as_str(), pools[1].running, pools[1].ceiling), ("deleted", 1, 0));
    model.agent(change(Kind::Deleted(agent.name)));
    model.demand(WatchDemandResponse::default());
    assert!(model.snapshot(ViewOptions::default(), now(0)).pools.is_empty());
}

#[test]
fn tasks_are_sorted_and_filtered() {
    let mut model = Model::default();
    let mut urgent = task("urgent", TaskState::Queued, |_| {});
    urgent.priority = Some(10);
    let mut old = task("old", TaskState::Pending, |_| {});
    old.create_time = at(-50);
    model.load(
        vec![
            task("queued", TaskState::Queued, |_| {}),
            urgent,
            old,
            task("runs", TaskState::Running, |status| usage(status, 9, 10, None)),
            task("asks", TaskState::InputRequired, |status| usage(status, 5, 10, None)),
            task("ended", TaskState::Succeeded, |status| usage(status, 1, 10, Some(90))),
        ],
        false,
    );
    assert_eq!(names(&model, Sort::State, Show::All), ["asks", "runs", "urgent", "queued", "old"]);
    assert_eq!(names(&model, Sort::Age, Show::All)[0], "old");
    assert_eq!(names(&model, Sort::Cost, Show::All)[..2], ["runs", "asks"]);
    assert_eq!(names(&model, Sort::State, Show::Running), ["asks", "runs"]);
    assert_eq!(names(&model, Sort::State, Show::Queued), ["urgent", "queued"]);
    assert_eq!(names(&model, Sort::State, Show::Pending), ["old"]);
    assert_eq!(names(&model, Sort::State, Show::Asking), ["asks"]);
    let totals = model.snapshot(ViewOptions::default(), now(100)).totals;
    assert_eq!((totals.running, totals.input_required, totals.queued, totals.pending), (1, 1, 2, 1));
    // The filters form a cycle.
    let all = std::iter::successors(Some(Show::All), |show| Some(show.next()));
    assert_eq!(all.skip(1).position(|show| show == Show::All), Some(4));
}

#[test]
fn cost_covers_the_last_minute() {
    let cost = |status: &dyn Fn(&mut TaskStatus), at| {
        let mut model = Model::default();
        model.task(task("one", TaskState::Running, status), &[]);
        model.snapshot(ViewOptions::default(), now(at)).totals.cost_per_minute_micro_usd
    };
    // Half of its run was within the minute.
    assert_eq!(cost(&|status| usage(status, 1000, 0, Some(100)), 110), 500);
    assert_eq!(cost(&|status| usage(status, 1000, 0, None), 200), 300);
    assert_eq!(cost(&|status| usage(status, 1000, 0, Some(100)), 160), 0);
    assert_eq!(cost(&|status| usage(status, 1000, 100, Some(100)), 130), 1000);
    assert_eq!(cost(&|status| usage(status, 0, 0, None), 130), 0);
}

#[test]
fn old_and_excess_tasks_are_dropped() {
    let mut model = Model::default();
    model.task(task("ended", TaskState::Failed, |status| usage(status, 0, 0, Some(100))), &[]);
    model.forget(now(159));
    assert_eq!(model.tasks.len(), 1);
    model.forget(now(161));
    assert!(model.tasks.is_empty());
    for number in 0..=MAX_TASKS {
        model.task(task(&number.to_string(), TaskState::Queued, |_| {}), &[]);
    }
    assert_eq!(model.tasks.len(), MAX_TASKS);
    assert!(model.snapshot(ViewOptions::default(), now(0)).more);
    model.task(task("runs", TaskState::Running, |_| {}), &[]);
    assert_eq!(names(&model, Sort::State, Show::Running), ["runs"]);
}

#[test]
fn row_shows_task_activity() {
    let mut model = Model::default();
    let runs = task("runs", TaskState::Running, |status| {
        usage(status, 1_500_000, 40, None);
        status.worker = "w-1".into();
        status.progress = Some(Progress { fraction: 0.5, step: "tests".into() });
    });
    model.task(runs, &[]);
    let json = serde_json::to_value(model.snapshot(ViewOptions::default(), now(100))).unwrap();
    let row = &json["tasks"][0];
    assert_eq!(
        (&row["state"], &row["worker"], &row["doing"]),
        (&"Running".into(), &"w-1".into(), &"50% tests".into())
    );
    assert_eq!((&row["forSeconds"], &row["progress"]), (&60.into(), &0.5.into()));
}

#[test]
fn retries_are_timed_from_own_start() {
    let second = |cost| {
        task("again", TaskState::Running, |status| {
            usage(status, cost, 0, None);
            status.attempt = 2;
        })
    };
    let mut model = Model::default();
    model.load(vec![second(1000)], false);
    let row = |model: &Model| {
        let snapshot = model.snapshot(ViewOptions::default(), now(1000));
        (snapshot.tasks[0].lasted, snapshot.totals.cost_per_minute_micro_usd)
    };
    assert_eq!(row(&model), (None, 0), "its start was not observed");
    let json = serde_json::to_value(model.snapshot(ViewOptions::default(), now(1000))).unwrap();
    assert!(json["tasks"][0].get("forSeconds").is_none(), "{json}");
    let change = |from: TaskState| StateChange {
        from: from.into(),
        to: TaskState::Running.into(),
        ..Default::default()
    };
    let event = |from, seconds| Event {
        attempt: 2,
        time: at(seconds),
        kind: Some(event::Kind::State(change(from))),
        ..Default::default()
    };
    model.task(second(1000), &[event(TaskState::Assigned, 980)]);
    // Continuing after input starts no attempt.
    model.task(second(1500), &[event(TaskState::InputRequired, 990)]);
    assert_eq!(row(&model), (Some(Duration::from_secs(20)), 500));
}
