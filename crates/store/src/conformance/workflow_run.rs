//! Harness of workflows, which are driven by hand: what the driver of a control plane evaluates is given.

use std::sync::Arc;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::task::{Completion, Task, WorkerRef};
use rota_core::workflow::{Kind, Rejected, Start, Step, StepRef, StepState, Workflow};
use rota_core::{WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::harness::{Harness, namespace};
use crate::{
    Action, Create, CreateWorkflow, Need, NewRound, NewStep, Refused, Reply, WorkflowCommand, WorkflowQuery,
    WorkflowRows,
};

/// A workflow with its worker. With `reloads`, the store is reopened before each command.
pub(super) struct Run<'a> {
    pub(super) t: &'a mut Harness,
    pub(super) workflow: Workflow,
    reloads: bool,
}

pub(super) fn step(name: &str, needs: &[u32]) -> NewStep {
    let mut step = Step::new(name.to_owned(), Kind::Task);
    step.needs = u32::try_from(needs.len()).unwrap();
    step.stops = true;
    let needs = needs.iter().map(|step| Need { step: *step, continues: false }).collect();
    NewStep { step, spec: Bytes::from(format!("spec of {name}")), needs }
}

pub(super) fn waiting(name: &str, kind: Kind, needs: &[u32]) -> NewStep {
    let mut new = step(name, needs);
    new.step.kind = kind;
    new
}

pub(super) fn workflow(steps: Vec<NewStep>) -> CreateWorkflow {
    let workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), namespace("n"));
    let mut steps = steps;
    for index in 0..steps.len() {
        let is_needed =
            |new: &NewStep| new.needs.iter().any(|need| usize::try_from(need.step).unwrap() == index);
        steps[index].step.has_dependents = steps.iter().any(is_needed);
    }
    let spec = Bytes::from_static(b"spec");
    CreateWorkflow { spec, foreign_id: true, ..CreateWorkflow::new(workflow, steps) }
}

pub(super) fn failed() -> Completion {
    Completion::Failed(Failure::new(Class::Invalid, "no"))
}

pub(super) fn ok(text: &'static str) -> Completion {
    Completion::Succeeded(Some(Bytes::from_static(text.as_bytes())))
}

pub(super) async fn create(t: &mut Harness, create: CreateWorkflow) -> (Workflow, bool) {
    match t.one(WorkflowCommand::Create(Box::new(create)).into()).await {
        Ok(Reply::Workflow { workflow, created }) => (Workflow::clone(&workflow), created),
        other => panic!("no workflow: {other:?}"),
    }
}

impl<'a> Run<'a> {
    pub(super) async fn new(t: &'a mut Harness, given: CreateWorkflow, reloads: bool) -> Self {
        t.agent("a").await;
        let (workflow, created) = create(t, given).await;
        assert!(created);
        assert_eq!(t.commits.last().unwrap().workflows[0].key, workflow.key);
        Self { t, workflow, reloads }
    }

    pub(super) fn key(&self) -> WorkflowKey {
        self.workflow.key
    }

    pub(super) async fn apply(&mut self, command: WorkflowCommand) -> Result<Reply, Refused> {
        if self.reloads {
            self.t.reopen().await;
        }
        self.t.one(command.into()).await
    }

    pub(super) async fn query(&self, query: WorkflowQuery) -> WorkflowRows {
        self.t.store.workflows(query).await.unwrap()
    }

    pub(super) async fn workflow(&self) -> Workflow {
        self.query(WorkflowQuery::Key(self.key())).await.workflows.remove(0)
    }

    pub(super) async fn step(&self, step: u32) -> Step {
        self.query(WorkflowQuery::StepsAt(self.key(), vec![step])).await.steps.remove(0)
    }

    pub(super) async fn states(&self) -> Vec<StepState> {
        let steps = self.query(WorkflowQuery::Steps { workflow: self.key(), from: 0, limit: 10_000 }).await;
        steps.steps.iter().map(|step| step.state).collect()
    }

    /// Returns the steps that the driver would find after a start.
    pub(super) async fn driven(&self) -> Vec<u32> {
        let rows = self.query(WorkflowQuery::Driven { after: None, limit: 10_000 }).await;
        rows.steps.iter().map(|step| step.index).collect()
    }

    pub(super) async fn drive(&mut self, step: u32, action: Action) -> Result<(), Rejected> {
        let drive = WorkflowCommand::Drive { workflow: self.key(), step, action: Box::new(action) };
        match self.apply(drive).await {
            Ok(_) => Ok(()),
            Err(Refused::Workflow(rejected)) => Err(rejected),
            Err(other) => panic!("{other}"),
        }
    }

    pub(super) fn tasks(&mut self, step: u32, round: u32, items: std::ops::Range<u32>) -> Vec<Create> {
        let make = |item| {
            let mut create = self.t.task();
            let place = Step { index: step, ..Step::new(format!("step {step}"), Kind::Task) };
            create.task.step = Some(Box::new(StepRef::of(&self.workflow, &place, round, item)));
            create
        };
        items.map(make).collect()
    }

    /// Starts a round of a step with its first tasks.
    pub(super) async fn start(
        &mut self,
        step: u32,
        round: u32,
        total: u32,
        created: u32,
        parallel: u32,
    ) -> Result<(), Rejected> {
        let tasks = self.tasks(step, round, 0..created);
        let (question, inputs) = ("Why?".to_owned(), format!("inputs of {step}"));
        let start = Start { round, total, parallel, question, inputs, ..Start::default() };
        self.drive(step, Action::Start(NewRound { start, tasks, ..NewRound::default() })).await
    }

    pub(super) async fn worker(&mut self) -> WorkerRef {
        if self.reloads {
            self.t.reopen().await;
        }
        self.t.hello("w").await
    }

    /// Ends the tasks that are ready, at most so many. Returns them in their order.
    pub(super) async fn end(&mut self, most: usize, completion: Completion) -> Vec<Arc<Task>> {
        let worker = self.worker().await;
        let tasks = self.t.claim(&worker, most).await;
        for task in &tasks {
            self.t.finish(task, completion.clone()).await.unwrap();
        }
        tasks
    }

    pub(super) async fn run(&mut self, step: u32, completion: Completion) {
        self.start(step, 1, 1, 1, 0).await.unwrap();
        assert_eq!(self.end(9, completion).await.len(), 1);
    }

    pub(super) async fn results(&self, step: u32, round: u32) -> Vec<Option<Bytes>> {
        let query = WorkflowQuery::Tasks {
            workflow: self.key(),
            step,
            round,
            from: 0,
            limit: 100,
            bytes: usize::MAX >> 1,
        };
        self.query(query).await.tasks.into_iter().map(|(_, result)| result).collect()
    }

    pub(super) async fn outputs(&self, rows: Vec<u32>) -> Vec<(u32, Bytes)> {
        self.query(WorkflowQuery::Outputs(self.key(), rows)).await.bodies
    }
}
