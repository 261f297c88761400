//! Workflows that are steps of others: their ends, commands that go through, bounds, removal.

use std::time::Duration;

use rota_core::task::Trace;
use rota_core::workflow::{
    Command as Apply, Kind, MAX_NESTED, Parent, Start, State, Step, StepCommand, StepRef, StepState,
    TemplateRef, Workflow,
};
use rota_core::{WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::follow_ups::settle;
use super::harness::{Harness, namespace};
use super::workflow_run::{Run, create, step, waiting, workflow};
use crate::{Action, CreateWorkflow, NewRound, WorkflowCommand, WorkflowFilter, WorkflowQuery};

const SIGNAL: Kind = Kind::Signal { timeout: None };

/// A step that is a workflow, and one that needs it.
pub(super) fn around() -> CreateWorkflow {
    workflow(vec![waiting("call", Kind::Workflow, &[]), step("after", &[0])])
}

/// A workflow that a step of another one runs, with a step that waits for a signal.
pub(super) fn inner(of: &Workflow, item: u32, kind: Kind) -> CreateWorkflow {
    let mut create = workflow(vec![waiting("wait", kind, &[])]);
    let step = Step::new("call".to_owned(), Kind::Workflow);
    let place = StepRef::of(of, &step, 1, item);
    create.workflow.id = of.nested_id(0, 1, item);
    create.workflow.trace = Trace::default();
    let (depth, root) = (of.depth() + 1, of.root());
    create.workflow.parent = Some(Box::new(Parent { step: place, depth, root }));
    create.foreign_id = false;
    create
}

fn deploy() -> TemplateRef {
    TemplateRef { name: "deploy".to_owned(), version: 3, uid: "uid".to_owned() }
}

pub(super) fn start(nested: Vec<CreateWorkflow>, total: u32) -> Action {
    let template = Some(Box::new(deploy()));
    let start = Start { round: 1, total, template, inputs: "inputs".to_owned(), ..Start::default() };
    Action::Start(NewRound { start, nested, ..NewRound::default() })
}

async fn drive(run: &mut Run<'_>, workflow: WorkflowKey, action: Action) {
    run.apply(WorkflowCommand::Drive { workflow, step: 0, action: Box::new(action) }).await.unwrap();
}

async fn apply(run: &mut Run<'_>, id: WorkflowId, command: Apply) {
    run.apply(WorkflowCommand::Apply { namespace: namespace("n"), id, command }).await.unwrap();
    settle(run.t).await;
}

/// Lets the only step of a workflow begin to wait, and ends it.
async fn signal(run: &mut Run<'_>, of: &Workflow) {
    let wait = start(Vec::new(), 0);
    drive(run, of.key, wait).await;
    let (namespace, id, command) = (namespace("n"), of.id, StepCommand::Signal);
    run.apply(WorkflowCommand::Step { namespace, id, step: 0, command, output: None }).await.unwrap();
}

async fn find(run: &Run<'_>, id: WorkflowId) -> Option<Workflow> {
    run.query(WorkflowQuery::Id((namespace("n"), id))).await.workflows.into_iter().next()
}

async fn nested_end(t: &mut Harness, reloads: bool) {
    let mut run = Run::new(t, around(), reloads).await;
    let outer = run.workflow().await;
    assert_eq!(outer.nests, [0]);
    let creates = (0..2).map(|item| inner(&outer, item, SIGNAL)).collect();
    run.drive(0, start(creates, 3)).await.unwrap();
    assert_eq!(run.driven().await, [0, 0, 0], "the first steps of both, and the third one");
    let more = vec![inner(&outer, 2, SIGNAL), inner(&outer, 3, SIGNAL)];
    run.drive(0, Action::More { round: 1, created: 2, tasks: Vec::new(), nested: more }).await.unwrap();
    assert_eq!(find(&run, outer.nested_id(0, 1, 3)).await, None, "no more than are wanted");
    let template = run.step(0).await.template;
    assert_eq!((run.workflow().await.nested, template.as_deref()), (3, Some(&deploy())));
    let filter = WorkflowFilter { parent: Some(outer.id), limit: 9, ..WorkflowFilter::default() };
    let nested = run.query(WorkflowQuery::List(filter)).await.workflows;
    let items: Vec<_> = nested.iter().map(|one| one.parent.as_ref().unwrap().step.item).collect();
    assert_eq!(items, [2, 1, 0]);
    for one in &nested[..2] {
        signal(&mut run, one).await;
    }
    let Step { state, succeeded, .. } = run.step(0).await;
    assert_eq!((state, succeeded), (StepState::Running, 2));
    let outcomes = async |run: &Run<'_>| {
        let ids = [3, 2, 0].map(|item| outer.nested_id(0, 1, item)).to_vec();
        let rows = run.query(WorkflowQuery::Outcomes(namespace("n"), ids)).await.outcomes;
        rows.into_iter().map(|(one, output)| (one.id, one.state, output)).collect::<Vec<_>>()
    };
    let (last, first) = (nested[0].id, nested[2].id);
    assert_eq!(
        outcomes(&run).await,
        [(last, State::Succeeded, None), (first, State::Running, None)],
        "in the order of the ids, without those that do not exist"
    );
    signal(&mut run, &nested[2]).await;
    let commit = run.t.commits.last().unwrap();
    assert!(commit.workflows.iter().any(|one| one.id == nested[2].id && one.state == State::Succeeded));
    assert!(commit.steps.iter().any(|step| step.workflow == outer.key && step.state == StepState::Succeeded));
    settle(run.t).await;
    assert_eq!(run.driven().await, [1], "the step that needs it");
}

pub async fn ends_of_nested_workflows_end_their_step(t: &mut Harness) {
    nested_end(t, false).await;
}

pub async fn nested_workflows_continue_after_each_reopen(t: &mut Harness) {
    nested_end(t, true).await;
}

pub async fn commands_reach_nested_workflows(t: &mut Harness) {
    let mut run = Run::new(t, around(), true).await;
    let outer = run.workflow().await;
    // More than one visit commands.
    let creates: Vec<_> = (0..100).map(|item| inner(&outer, item, SIGNAL)).collect();
    run.drive(0, start(creates, 100)).await.unwrap();
    let first = outer.nested_id(0, 1, 0);
    // One of them has a workflow, too.
    let mut deep = inner(&outer, 0, Kind::Workflow);
    deep.workflow.id = WorkflowId(Uuid::from_u128(9));
    deep.workflow.parent = None;
    let (deep, _) = create(run.t, deep).await;
    drive(&mut run, deep.key, start(vec![inner(&deep, 0, SIGNAL)], 1)).await;
    let all = async |run: &Run<'_>, is: &dyn Fn(&Workflow) -> bool| {
        let mut count = 0;
        for item in 0..100 {
            count += usize::from(find(run, outer.nested_id(0, 1, item)).await.is_some_and(|one| is(&one)));
        }
        count
    };
    apply(&mut run, outer.id, Apply::Pause { suspend: false }).await;
    assert_eq!(all(&run, &|one| one.paused).await, 100);
    apply(&mut run, outer.id, Apply::RESUME).await;
    assert_eq!(all(&run, &|one| !one.paused).await, 100);
    apply(&mut run, outer.id, Apply::Cancel { reason: "enough".to_owned() }).await;
    assert_eq!(all(&run, &|one| one.state == State::Cancelled).await, 100);
    assert_eq!(
        (run.workflow().await.state, run.step(0).await.state),
        (State::Cancelled, StepState::Cancelled)
    );
    assert!(find(&run, first).await.unwrap().message.contains("has stopped"));
    apply(&mut run, deep.id, Apply::Cancel { reason: String::new() }).await;
    assert_eq!(find(&run, deep.id).await.unwrap().state, State::Cancelled);
    assert_eq!(find(&run, deep.nested_id(0, 1, 0)).await.unwrap().state, State::Cancelled);
}

/// A nested workflow with a finally-step that waits, which its cancellation has started.
async fn cleaning(run: &mut Run<'_>, outer: &Workflow, item: u32) -> Workflow {
    let id = outer.nested_id(0, 1, item);
    let nested = find(run, id).await.unwrap();
    assert_eq!(nested.state, State::Finalizing);
    run.apply(WorkflowCommand::Drive {
        workflow: nested.key,
        step: 1,
        action: Box::new(start(Vec::new(), 0)),
    })
    .await
    .unwrap();
    nested
}

fn with_finally(of: &Workflow, item: u32) -> CreateWorkflow {
    let mut create = inner(of, item, SIGNAL);
    create.steps.push(waiting("clean", SIGNAL, &[]));
    create.steps[1].step.finally = true;
    create
}

pub async fn repeated_cancellation_spares_nested_finally_steps(t: &mut Harness) {
    let mut run = Run::new(t, around(), false).await;
    let outer = run.workflow().await;
    let creates = (0..2).map(|item| with_finally(&outer, item)).collect();
    run.drive(0, start(creates, 2)).await.unwrap();
    let cancel = || Apply::Cancel { reason: String::new() };
    apply(&mut run, outer.nested_id(0, 1, 0), cancel()).await;
    let first = cleaning(&mut run, &outer, 0).await;
    apply(&mut run, outer.id, cancel()).await;
    let second = cleaning(&mut run, &outer, 1).await;
    let state = async |run: &Run<'_>, id| find(run, id).await.unwrap().state;
    assert_eq!(state(&run, first.id).await, State::Finalizing, "it was cancelled before");
    let (namespace, command) = (namespace("n"), StepCommand::Signal);
    run.apply(WorkflowCommand::Step { namespace, id: first.id, step: 1, command, output: None })
        .await
        .unwrap();
    assert_eq!(state(&run, first.id).await, State::Cancelled);
    assert_eq!(run.workflow().await.state, State::Stopping);
    apply(&mut run, outer.id, cancel()).await;
    assert_eq!(state(&run, second.id).await, State::Finalizing, "a repetition changes nothing");
    apply(&mut run, outer.id, Apply::CancelFinally { reason: String::new() }).await;
    assert_eq!(state(&run, second.id).await, State::Cancelled);
    assert_eq!(run.workflow().await.state, State::Cancelled);
}

pub async fn nested_workflows_are_bounded(t: &mut Harness) {
    let mut given = around();
    given.workflow.nested = MAX_NESTED - 1;
    let mut run = Run::new(t, given, false).await;
    let outer = run.workflow().await;
    let creates = vec![inner(&outer, 0, SIGNAL), inner(&outer, 1, SIGNAL)];
    run.drive(0, start(creates, 2)).await.unwrap();
    let failed = run.step(0).await;
    assert_eq!(failed.state, StepState::Failed);
    assert!(failed.message.contains("at most 1000 workflows"), "{}", failed.message);
    assert_eq!(find(&run, outer.nested_id(0, 1, 0)).await, None);
}

pub async fn foreign_workflow_is_no_step(t: &mut Harness) {
    let mut run = Run::new(t, around(), false).await;
    let outer = run.workflow().await;
    let mut foreign = inner(&outer, 0, SIGNAL);
    foreign.workflow.parent = None;
    create(run.t, foreign).await;
    run.drive(0, start(vec![inner(&outer, 0, SIGNAL)], 1)).await.unwrap();
    assert_eq!((run.step(0).await.state, run.workflow().await.state), (StepState::Failed, State::Failed));
    let id = outer.nested_id(0, 1, 0);
    apply(&mut run, id, Apply::Cancel { reason: String::new() }).await;
    apply(&mut run, outer.id, Apply::Delete).await;
    assert_eq!(find(&run, outer.id).await, None);
    assert_eq!(find(&run, id).await.map(|foreign| foreign.deleted), Some(false));
}

pub async fn nested_workflows_are_removed_with_theirs(t: &mut Harness) {
    let mut run = Run::new(t, around(), false).await;
    let outer = run.workflow().await;
    run.drive(0, start(vec![inner(&outer, 0, SIGNAL)], 1)).await.unwrap();
    let nested = find(&run, outer.nested_id(0, 1, 0)).await.unwrap();
    signal(&mut run, &nested).await;
    settle(run.t).await;
    run.t.later(Duration::from_secs(1));
    assert_eq!(run.t.prune(run.t.now(), 10).await, 0, "its results are those of a step");
    apply(&mut run, outer.id, Apply::Cancel { reason: String::new() }).await;
    run.t.later(Duration::from_secs(1));
    assert_eq!(run.t.prune(run.t.now(), 10).await, 1);
    run.t.reopen().await;
    settle(run.t).await;
    assert_eq!((find(&run, outer.id).await, find(&run, nested.id).await), (None, None));
}
