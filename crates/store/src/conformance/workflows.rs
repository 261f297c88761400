//! Workflows: creation, what a driver commits, reuse, room, wide graphs.

use bytes::Bytes;
use rota_core::task::State as TaskState;
use rota_core::workflow::{Command as Apply, Kind, Rejected, Start, State, StepCommand, StepState};
use rota_core::{Timestamp, WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::follow_ups::{MOST, settle};
use super::harness::{Harness, namespace, on_alias};
use super::workflow_run::{Run, create, failed, ok, step, waiting, workflow};
use crate::{
    Action, Command, Commit, NewRound, Refused, Reply, WORKFLOW_MEMBER, WORKFLOW_OUTPUT, WorkflowCommand,
    WorkflowFilter, WorkflowQuery, input_files, reused_item, reused_lists, reused_results,
};

/// Steps that need one: more than one commit notifies.
const MANY: u32 = 600;

pub async fn same_workflow_is_created_once(t: &mut Harness) {
    let given = |id: u128, key: &str| {
        let mut create = workflow(vec![step("a", &[])]);
        create.workflow.id = WorkflowId(Uuid::from_u128(id));
        create.workflow.alias = Some("x".to_owned());
        create.key = Some(key.to_owned());
        create
    };
    let (first, created) = create(t, given(1, "one")).await;
    assert!(created);
    t.reopen().await;
    let (again, created) = create(t, given(2, "one")).await;
    assert_eq!((again.key, created), (first.key, false), "the same idempotency key");
    let (again, created) = create(t, given(1, "other")).await;
    assert_eq!((again.key, created), (first.key, false), "the same id");
    let (second, created) = create(t, given(3, "three")).await;
    assert!(created && second.key > first.key);
    let newest = WorkflowQuery::Alias((namespace("n"), "x".to_owned()));
    assert_eq!(t.store.workflows(newest).await.unwrap().workflows, std::slice::from_ref(&second));
    let list = |before| WorkflowQuery::List(WorkflowFilter { before, limit: 1, ..WorkflowFilter::default() });
    let page = t.store.workflows(list(None)).await.unwrap();
    assert_eq!((page.workflows[0].key, page.next), (second.key, Some(second.key)));
    let page = t.store.workflows(list(page.next)).await.unwrap();
    assert_eq!(page.workflows[0].key, first.key);
    assert_eq!(t.store.workflows(WorkflowQuery::Unended).await.unwrap().count, 2);
    assert_eq!(t.store.workflows(WorkflowQuery::IdOf(first.key)).await.unwrap().ids, [first.id]);
}

/// Drives a graph with all kinds of rows to its end: a fan-out in several parts, outputs, rounds, a question, a finally-step.
async fn graph(t: &mut Harness, reloads: bool) {
    let mut steps = vec![
        step("plan", &[]),
        step("each", &[0]),
        step("again", &[0]),
        waiting("ask", Kind::Approval { deadline: None, approves: false }, &[1, 2]),
        step("skip", &[3]),
        step("clean", &[]),
    ];
    steps[1].step.evaluates_end = true;
    (steps[2].step.evaluates_end, steps[2].step.max_rounds) = (true, 3);
    steps[5].step.finally = true;
    let mut given = workflow(steps);
    given.workflow.has_outputs = true;
    let mut run = Run::new(t, given, reloads).await;
    let spec = run.query(WorkflowQuery::Spec(run.key())).await.bodies;
    assert_eq!(spec, [(0, Bytes::from_static(b"spec"))]);
    let query = WorkflowQuery::StepSpecs { workflow: run.key(), from: 1, limit: 1 };
    assert_eq!(run.query(query).await.bodies, [(1, Bytes::from_static(b"spec of each"))]);
    let work = run.query(WorkflowQuery::Work(run.key(), vec![1, 0, 99])).await;
    assert_eq!(work.workflows, [run.workflow().await]);
    assert_eq!(work.steps.iter().map(|step| step.index).collect::<Vec<_>>(), [1, 0]);
    let bodies: Vec<_> = work.bodies.iter().map(|(number, body)| (*number, &body[..])).collect();
    assert_eq!(bodies[0], (1, &b"spec of each"[..]));
    assert_eq!((bodies.len(), bodies[1].0, bodies[2]), (3, 0, (WORKFLOW_MEMBER, &b"spec"[..])));
    assert_eq!(run.driven().await, [0]);
    run.run(0, ok("planned")).await;
    assert_eq!(run.results(0, 1).await, [Some(Bytes::from_static(b"planned"))]);
    // In the commit that ends the first one.
    assert_eq!(run.driven().await, [1, 2]);

    run.start(1, 1, 3, 2, 2).await.unwrap();
    assert_eq!(run.driven().await, [2], "two of three may exist");
    assert_eq!(run.end(1, ok("first")).await.len(), 1);
    assert_eq!(run.driven().await, [1, 2]);
    let more = run.tasks(1, 1, 2..3);
    run.drive(1, Action::More { round: 1, created: 2, tasks: more, nested: Vec::new() }).await.unwrap();
    assert_eq!(run.end(9, ok("later")).await.len(), 2);
    assert_eq!((run.step(1).await.state, run.results(1, 1).await.len()), (StepState::Ending, 3));
    let outputs = Some(Bytes::from_static(b"outputs of each"));
    run.drive(1, Action::Finish { round: 1, again: false, outputs }).await.unwrap();

    run.run(2, ok("once")).await;
    run.drive(2, Action::Finish { round: 1, again: true, outputs: None }).await.unwrap();
    run.start(2, 2, 1, 1, 0).await.unwrap();
    assert_eq!(run.end(9, ok("twice")).await.len(), 1);
    assert_eq!(run.driven().await, [2], "another round may follow");
    run.drive(2, Action::Finish { round: 2, again: false, outputs: None }).await.unwrap();
    assert_eq!(run.results(2, 2).await, [Some(Bytes::from_static(b"twice"))]);

    run.start(3, 1, 0, 0, 0).await.unwrap();
    assert_eq!((run.step(3).await.question.as_str(), run.driven().await), ("Why?", Vec::new()));
    assert_eq!(run.t.commits.last().unwrap().steps_asking, [(run.key(), 3)]);
    run.t.commits.clear();
    for command in [Apply::Pause { suspend: false }, Apply::RESUME] {
        let (namespace, id) = (namespace("n"), run.workflow.id);
        run.apply(WorkflowCommand::Apply { namespace, id, command }).await.unwrap();
        settle(run.t).await;
    }
    let written = |commit: &Commit| commit.steps.iter().any(|step| step.index == 3);
    assert!(run.t.commits.iter().any(written), "its deadline moves");
    assert!(run.t.commits.iter().all(|commit| commit.steps_asking.is_empty()), "it has waited before");
    let active = async |run: &Run<'_>, after| {
        let rows = run.query(WorkflowQuery::Active { after, limit: 9 }).await.steps;
        rows.iter().map(|step| (step.workflow, step.index)).collect::<Vec<_>>()
    };
    assert_eq!(active(&run, None).await, [(run.key(), 3)]);
    assert_eq!(active(&run, Some((run.key(), 2))).await, [(run.key(), 3)]);
    assert_eq!(active(&run, Some((run.key(), 3))).await, []);
    let decide = WorkflowCommand::Step {
        namespace: namespace("n"),
        id: run.workflow.id,
        step: 3,
        command: StepCommand::Decide { approves: true, message: "fine".to_owned() },
        output: Some(Bytes::from_static(b"yes")),
    };
    assert!(matches!(run.apply(decide).await, Ok(Reply::Step(step)) if step.state == StepState::Succeeded));
    run.drive(4, Action::Skip).await.unwrap();
    assert_eq!(run.workflow().await.state, State::Finalizing);
    run.run(5, ok("clean")).await;
    let ending = run.query(WorkflowQuery::Ending { after: WorkflowKey(0), limit: 9 }).await;
    assert_eq!(ending.workflows.iter().map(|one| one.key).collect::<Vec<_>>(), [run.key()]);
    let conclude = WorkflowCommand::Conclude { workflow: run.key(), outputs: Ok(Bytes::from_static(b"all")) };
    run.apply(conclude).await.unwrap();
    let late = WorkflowCommand::Conclude { workflow: run.key(), outputs: Ok(Bytes::from_static(b"late")) };
    assert_eq!(run.apply(late).await.unwrap_err(), Refused::Workflow(Rejected::Outdated));

    if reloads {
        run.t.reopen().await;
    }
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.succeeded, ended.skipped, ended.active), (State::Succeeded, 5, 1, 0));
    use StepState::{Skipped, Succeeded};
    assert_eq!(run.states().await, [Succeeded, Succeeded, Succeeded, Succeeded, Skipped, Succeeded]);
    let rows = [1, 3, WORKFLOW_OUTPUT];
    let bodies: Vec<_> = run.outputs(rows.to_vec()).await;
    let outcomes = WorkflowQuery::Outcomes(namespace("n"), vec![ended.id]);
    let output = Some(Bytes::from_static(b"all"));
    assert_eq!(run.query(outcomes).await.outcomes, [(ended, output)]);
    let texts = [&b"outputs of each"[..], b"yes", b"all"].map(Bytes::from_static);
    assert_eq!(bodies, rows.into_iter().zip(texts).collect::<Vec<_>>());
    assert_eq!((run.driven().await, run.query(WorkflowQuery::Unended).await.count), (Vec::new(), 0));
    let at = run.workflow().await.ended_at.unwrap();
    let ended = async |at, key| {
        let query = WorkflowQuery::Ended { after: (at, WorkflowKey(key)), limit: 9 };
        run.query(query).await.workflows.iter().map(|one| one.key).collect::<Vec<_>>()
    };
    let own = run.key();
    assert_eq!(ended(at, own.0 - 1).await, [own]);
    assert_eq!(ended(Timestamp(at.0 - 1), u64::MAX >> 1).await, [own]);
    assert_eq!(ended(at, own.0).await, []);
}

pub async fn graph_is_driven_to_its_end(t: &mut Harness) {
    graph(t, false).await;
}

pub async fn graph_continues_after_each_reopen(t: &mut Harness) {
    graph(t, true).await;
}

pub async fn outdated_answers_change_nothing(t: &mut Harness) {
    let mut steps = vec![step("a", &[]), step("b", &[0])];
    steps[0].step.evaluates_end = true;
    let mut run = Run::new(t, workflow(steps), false).await;
    let finish = |round| Action::Finish { round, again: false, outputs: Some(Bytes::from_static(b"early")) };
    assert_eq!(run.start(1, 1, 1, 1, 0).await, Err(Rejected::Outdated), "its need has not ended");
    assert_eq!(run.start(0, 2, 1, 1, 0).await, Err(Rejected::Outdated));
    assert_eq!(run.drive(0, finish(1)).await, Err(Rejected::Outdated));
    run.start(0, 1, 3, 1, 1).await.unwrap();
    assert_eq!(run.start(0, 1, 3, 1, 1).await, Err(Rejected::Outdated), "a second answer");
    for (state, created) in [(StepState::Ready, 0), (StepState::Running, 0)] {
        let fail = Action::Fail { round: 1, state, created, message: "early".to_owned() };
        assert_eq!(run.drive(0, fail).await, Err(Rejected::Outdated), "{state:?} {created}");
    }
    assert_eq!(run.drive(0, Action::Skip).await, Err(Rejected::Outdated));
    let more = run.tasks(0, 1, 0..1);
    assert_eq!(
        run.drive(0, Action::More { round: 1, created: 0, tasks: more, nested: Vec::new() }).await,
        Err(Rejected::Outdated)
    );
    // More than it wants now: none.
    let more = run.tasks(0, 1, 1..3);
    run.drive(0, Action::More { round: 1, created: 1, tasks: more, nested: Vec::new() }).await.unwrap();
    let (step, tasks) = (run.step(0).await, run.results(0, 1).await.len());
    assert_eq!((step.created, tasks, step.has_output), (1, 1, false));
    assert_eq!(run.outputs(vec![0]).await, []);
    let missing = WorkflowKey(run.key().0 + 99);
    let drive = WorkflowCommand::Drive { workflow: missing, step: 0, action: Box::new(Action::Skip) };
    assert_eq!(run.apply(drive).await.unwrap_err(), Refused::Workflow(Rejected::Outdated));
}

pub async fn reused_results_are_stored(t: &mut Harness) {
    let mut steps = vec![step("a", &[]), waiting("b", Kind::Signal { timeout: None }, &[0]), step("c", &[1])];
    (steps[0].step.may_reuse, steps[1].step.may_reuse) = (true, true);
    let mut run = Run::new(t, workflow(steps), true).await;
    let reuse = |inputs: &str, results: &'static str| Action::Reuse {
        round: 2,
        total: 3,
        inputs: inputs.to_owned(),
        results: Some(Bytes::from_static(results.as_bytes())),
        lists: Vec::new(),
    };
    run.drive(0, reuse("same", "[1, 2, 3]")).await.unwrap();
    run.drive(1, reuse("", "signalled")).await.unwrap();
    let reused = run.step(0).await;
    assert_eq!((reused.state, reused.round, reused.total), (StepState::Succeeded, 2, 3));
    assert!(reused.reused && reused.inputs == "same");
    let bodies = run.outputs(vec![reused_results(0), 1]).await;
    assert_eq!(
        bodies.iter().map(|(_, body)| &body[..]).collect::<Vec<_>>(),
        [&b"[1, 2, 3]"[..], b"signalled"]
    );
    assert_eq!((run.results(0, 2).await, run.driven().await), (Vec::new(), vec![2]));
}

pub async fn reused_lists_are_removed_with_their_workflow(t: &mut Harness) {
    let mut given = workflow(vec![step("a", &[]), step("b", &[])]);
    given.files = Some(Bytes::from_static(b"input"));
    let mut run = Run::new(t, given, true).await;
    let reuse = |lists: &[(u32, &'static str)]| Action::Reuse {
        round: 1,
        total: 3,
        inputs: String::new(),
        results: Some(Bytes::from_static(b"[1, 2, 3]")),
        lists: lists.iter().map(|(item, list)| (*item, Bytes::from_static(list.as_bytes()))).collect(),
    };
    run.drive(0, reuse(&[(0, "first"), (2, "third")])).await.unwrap();
    run.drive(1, reuse(&[(1, "other")])).await.unwrap();
    let key = run.key();
    let read = async |t: &Harness, step, from| {
        let lists = t.store.artifacts(reused_lists((key, step), from), 9).await.unwrap();
        lists.iter().map(|(key, list)| (reused_item(*key), list.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(read(run.t, 0, 0).await, [(0, b"first".to_vec()), (2, b"third".to_vec())]);
    assert_eq!((read(run.t, 0, 1).await.len(), read(run.t, 1, 0).await.len()), (1, 1));
    let inputs = async |t: &Harness| {
        let key = input_files(key);
        t.store.artifacts(key..=key, 9).await.unwrap().into_iter().map(|(_, list)| list).collect::<Vec<_>>()
    };
    assert_eq!(inputs(run.t).await, [&b"input"[..]]);
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.reused_lists), (State::Succeeded, 15));
    let (namespace, id) = (namespace("n"), ended.id);
    run.apply(WorkflowCommand::Apply { namespace, id, command: Apply::Delete }).await.unwrap();
    settle(run.t).await;
    assert_eq!((read(run.t, 0, 0).await, read(run.t, 1, 0).await), (Vec::new(), Vec::new()));
    assert!(inputs(run.t).await.is_empty());
}

pub async fn failed_workflows_are_dead_letters_until_they_run_again(t: &mut Harness) {
    let mut run = Run::new(t, workflow(vec![step("a", &[])]), true).await;
    let letters = async |run: &Run<'_>| {
        let filter = WorkflowFilter { dead_letters: true, limit: 9, ..WorkflowFilter::default() };
        run.query(WorkflowQuery::List(filter))
            .await
            .workflows
            .into_iter()
            .map(|one| one.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(letters(&run).await, []);
    run.run(0, failed()).await;
    let first = run.workflow().await;
    assert_eq!((first.state, letters(&run).await), (State::Failed, vec![first.id]));
    let mut again = workflow(vec![step("a", &[])]);
    again.workflow.id = WorkflowId(Uuid::from_u128(77));
    again.workflow.rerun_of = Some(first.id);
    let id = again.workflow.id;
    assert_eq!(run.t.commits.last().unwrap().workflows_ended, [first.key]);
    run.apply(WorkflowCommand::Create(Box::new(again))).await.unwrap();
    assert!(run.t.commits.last().unwrap().workflows_ended.is_empty(), "it has ended before");
    let rerun = run.workflow().await.rerun;
    assert_eq!((rerun, letters(&run).await), (Some(id), Vec::new()));
}

pub async fn held_steps_start_when_there_is_room(t: &mut Harness) {
    let mut given = workflow((0..4).map(|index| step(&format!("s{index}"), &[])).collect());
    given.workflow.max_parallel = 2;
    let mut run = Run::new(t, given, true).await;
    use StepState::{Held, Ready, Succeeded};
    assert_eq!(run.states().await, [Ready, Ready, Held, Held]);
    run.run(1, ok("1")).await;
    assert_eq!(run.states().await, [Ready, Succeeded, Ready, Held], "the first that is held");
    let (namespace, id) = (namespace("n"), run.workflow.id);
    let apply = |command| WorkflowCommand::Apply { namespace: namespace.clone(), id, command };
    run.start(0, 1, 1, 1, 0).await.unwrap();
    run.apply(apply(Apply::Pause { suspend: false })).await.unwrap();
    assert_eq!(run.start(2, 1, 1, 1, 0).await, Err(Rejected::Paused));
    assert_eq!(run.end(9, ok("0")).await.len(), 1, "what runs ends");
    assert_eq!(run.states().await, [Succeeded, Succeeded, Ready, Held], "it is paused");
    let paused = WorkflowFilter { paused: true, limit: 9, ..WorkflowFilter::default() };
    assert_eq!(run.query(WorkflowQuery::List(paused)).await.workflows.len(), 1);
    run.apply(apply(Apply::RESUME)).await.unwrap();
    assert_eq!(run.states().await, [Succeeded, Succeeded, Ready, Ready]);
}

pub async fn wide_workflow_takes_several_commits(t: &mut Harness) {
    let wide = (1..=MANY).map(|index| step(&format!("s{index}"), &[0]));
    let steps = std::iter::once(step("root", &[])).chain(wide).collect();
    let mut run = Run::new(t, workflow(steps), false).await;
    run.t.commits.clear();
    run.run(0, ok("1")).await;
    // What the commits have is known; which of them have been written by now is not, since the store continues by itself.
    let first = run.t.commits.iter().map(|commit| commit.steps.len()).max().unwrap_or_default();
    assert!((2..=MOST).contains(&first), "a commit changed {first} steps");
    run.t.reopen().await;
    settle(run.t).await;
    assert_eq!(run.driven().await, (1..=MANY).collect::<Vec<_>>());
    // The end of one of them stops the others.
    run.start(7, 1, 1, 1, 0).await.unwrap();
    run.end(1, failed()).await;
    settle(run.t).await;
    let ended = run.workflow().await;
    assert_eq!((ended.state, ended.active, ended.skipped), (State::Failed, 0, MANY - 1));
    assert_eq!(run.driven().await, [0; 0]);
}

pub async fn refused_task_fails_its_step(t: &mut Harness) {
    let mut run = Run::new(t, workflow(vec![step("a", &[])]), false).await;
    let mut tasks = run.tasks(0, 1, 0..1);
    tasks[0].strict = true;
    tasks[0].task.dependencies = vec![on_alias("missing")];
    let start = Start { round: 1, total: 1, ..Start::default() };
    run.drive(0, Action::Start(NewRound { start, tasks, ..NewRound::default() })).await.unwrap();
    let (step, ended) = (run.step(0).await, run.workflow().await);
    assert_eq!((step.state, ended.state), (StepState::Failed, State::Failed));
    assert!(ended.message.starts_with("step a: "), "{}", ended.message);
}

pub async fn offered_task_of_a_step_is_assigned(t: &mut Harness) {
    let mut run = Run::new(t, workflow(vec![step("a", &[])]), false).await;
    let worker = run.worker().await;
    let mut tasks = run.tasks(0, 1, 0..2);
    tasks[0].offer = Some(worker.clone());
    let id = tasks[0].task.id;
    let start = Start { round: 1, total: 2, ..Start::default() };
    let action = Box::new(Action::Start(NewRound { start, tasks, ..NewRound::default() }));
    let drive = WorkflowCommand::Drive { workflow: run.key(), step: 0, action };
    let Ok(Reply::Driven(offered)) = run.apply(drive).await else { panic!("not driven") };
    let assigned: Vec<_> = offered.iter().map(|task| (task.id, task.state)).collect();
    assert_eq!(assigned, [(id, TaskState::Assigned)]);
    assert!(run.t.last_change(id).dispatch.is_some());
    assert_eq!(run.t.claim(&worker, 9).await.len(), 1, "the other one is in the queue");
}

pub async fn dry_run_creates_no_workflow(t: &mut Harness) {
    let command: Command = WorkflowCommand::Create(Box::new(workflow(vec![step("a", &[])]))).into();
    let replies = t.store.dry_run(vec![command]).await.unwrap();
    assert!(matches!(&replies[0], Ok(Reply::Workflow { created: true, .. })), "{replies:?}");
    let rows = t.store.workflows(WorkflowQuery::Id((namespace("n"), WorkflowId(Uuid::from_u128(1))))).await;
    assert_eq!(rows.unwrap().workflows, []);
    let rows = t.store.workflows(WorkflowQuery::Driven { after: None, limit: 9 }).await.unwrap();
    assert_eq!(rows.steps, []);
}
