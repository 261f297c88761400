//! Workflows that obey the rules, and such that violate one of them.

use pbjson_types::Timestamp;
use rota_proto::v1::{
    self, OnStepFailure, StepDecision, StepState, TaskState, WorkflowState, step_wait, workflow_step,
};

use super::*;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn seconds(seconds: i64) -> Option<pbjson_types::Duration> {
    Some(pbjson_types::Duration { seconds, nanos: 0 })
}

/// A workflow that has ended, with steps that started and ended at these times.
#[derive(Debug, Clone, Default)]
struct Given {
    workflow: v1::Workflow,
    steps: Vec<v1::StepStatus>,
    tasks: Vec<v1::Task>,
    nested: Vec<v1::Workflow>,
}

impl Given {
    fn new(state: WorkflowState, policy: OnStepFailure) -> Self {
        let spec = v1::WorkflowSpec { on_failure: policy.into(), ..Default::default() };
        let status = v1::WorkflowStatus { state: state.into(), ..Default::default() };
        let workflow = v1::Workflow { spec: Some(spec), status: Some(status), ..Default::default() };
        Self { workflow, ..Self::default() }
    }

    /// Adds a step of a kind, which has created nothing.
    fn step(
        &mut self,
        kind: workflow_step::Kind,
        state: StepState,
        times: (i64, i64),
    ) -> &mut v1::StepStatus {
        let name = format!("s{}", self.steps.len());
        let spec = v1::WorkflowStep { name: name.clone(), kind: Some(kind), ..Default::default() };
        self.workflow.spec.get_or_insert_default().steps.push(spec);
        let (start_time, end_time) = (at(times.0), at(times.1));
        let step = v1::StepStatus {
            name,
            state: state.into(),
            round: 1,
            start_time,
            end_time,
            ..Default::default()
        };
        self.steps.push(step);
        self.steps.last_mut().unwrap()
    }

    /// Adds a step with a task, and a compensation.
    fn task(&mut self, state: StepState, times: (i64, i64)) {
        let step = self.step(workflow_step::Kind::Task(Box::default()), state, times);
        let succeeded = i32::from(state == StepState::Succeeded);
        (step.tasks_total, step.tasks_created, step.tasks_succeeded) = (1, 1, succeeded);
        let ended = if succeeded == 1 { TaskState::Succeeded } else { TaskState::Failed };
        self.created(self.steps.len() - 1, ended, times, false);
        self.workflow.spec.get_or_insert_default().steps.last_mut().unwrap().compensate =
            Some(Box::default());
    }

    fn created(&mut self, step: usize, state: TaskState, times: (i64, i64), compensates: bool) {
        let round = i32::from(!compensates);
        let step = v1::TaskStep { step: format!("s{step}"), round, compensates, ..Default::default() };
        let status = v1::TaskStatus { state: state.into(), end_time: at(times.1), ..Default::default() };
        let (create_time, status, step) = (at(times.0), Some(Box::new(status)), Some(Box::new(step)));
        self.tasks.push(v1::Task { create_time, status, step, ..Default::default() });
    }

    fn compensated(&mut self, step: usize, times: (i64, i64)) {
        self.created(step, TaskState::Succeeded, times, true);
        self.steps[step].compensation = StepState::Succeeded.into();
    }

    fn violations(self) -> Vec<String> {
        let mut findings = Findings::default();
        let ended = Ended::new(self.workflow, self.steps, self.tasks, &self.nested, &mut findings).unwrap();
        ended.check("w", &mut findings).unwrap();
        findings.violations
    }

    #[track_caller]
    fn violates(self, rule: &str) {
        let found = self.violations();
        assert!(found.iter().any(|violation| violation.contains(rule)), "{rule}: {found:?}");
    }
}

/// Two steps that have succeeded, and a failure.
fn failed() -> Given {
    let mut given = Given::new(WorkflowState::Failed, OnStepFailure::Compensate);
    given.task(StepState::Succeeded, (0, 10));
    given.task(StepState::Succeeded, (0, 20));
    given.task(StepState::Failed, (0, 30));
    given
}

#[test]
fn person_may_resolve_failed_compensations() {
    let mut retried = failed();
    retried.created(1, TaskState::Failed, (40, 50), true);
    retried.compensated(1, (60, 70));
    retried.compensated(0, (80, 90));
    retried.clone().violates("W2: another task has item 0 of s1");
    retried.steps[1].compensation_failures = 1;
    retried.steps[1].resolved_compensation = Some(v1::ResolvedCompensation::default());
    assert_eq!(retried.violations(), [""; 0]);

    let mut done = failed();
    done.created(1, TaskState::Failed, (40, 50), true);
    done.steps[1].compensation = StepState::Succeeded.into();
    done.steps[1].compensation_failures = 1;
    done.compensated(0, (60, 70));
    done.clone().violates("W7: Failed, while a compensation has failed: true");
    done.steps[1].resolved_compensation = Some(v1::ResolvedCompensation::default());
    assert_eq!(done.violations(), [""; 0]);
}

#[test]
fn compensations_run_in_reverse_order() {
    let mut good = failed();
    good.compensated(1, (40, 50));
    good.compensated(0, (60, 70));
    assert_eq!(good.clone().violations(), [""; 0]);

    let mut swapped = failed();
    swapped.compensated(0, (40, 50));
    swapped.compensated(1, (60, 70));
    swapped.violates("step s1: W7: compensated after s0");
    let mut together = failed();
    together.compensated(1, (40, 50));
    together.compensated(0, (45, 70));
    together.violates("step s0: W7: compensated before");
    let mut early = failed();
    early.compensated(1, (25, 50));
    early.compensated(0, (60, 70));
    early.violates("step s2: W7: ran when a compensation had begun");
    let mut missing = failed();
    missing.compensated(1, (40, 50));
    missing.violates("step s0: W7: compensated {}, and not {0}");
    let mut of_failure = good.clone();
    of_failure.compensated(2, (35, 36));
    of_failure.violates("step s2: W7: compensated {0}, and not {}");
    let mut twice = good.clone();
    twice.compensated(0, (80, 90));
    twice.violates("W2: another task has item 0 of s0");
    let mut hidden = good.clone();
    hidden.created(2, TaskState::Failed, (80, 90), true);
    hidden.violates("while a compensation has failed: true");
    good.steps[0].compensation = 0;
    good.violates("step s0: W7: its compensation is");
}

#[test]
fn decisions_by_default_come_when_they_are_due() {
    let ask = |state, end| {
        let mut given = Given::new(WorkflowState::Succeeded, OnStepFailure::SkipDependents);
        let approval = v1::Approval {
            deadline: seconds(10),
            default_decision: StepDecision::Approve.into(),
            ..Default::default()
        };
        let step = given.step(workflow_step::Kind::Approval(approval), state, (0, end));
        step.message = "approved, since there was no decision in time".to_owned();
        given
    };
    assert_eq!(ask(StepState::Succeeded, 10).violations(), [""; 0]);
    ask(StepState::Succeeded, 9).violates("W8: ended by default before its deadline");
    ask(StepState::Failed, 10).violates("W8: ended by default in the state of the other decision");

    let wait = |kind, state, end| {
        let mut given = Given::new(WorkflowState::Succeeded, OnStepFailure::SkipDependents);
        let wait = v1::StepWait { kind: Some(kind), timeout: seconds(10) };
        given.step(workflow_step::Kind::Wait(wait), state, (0, end));
        given
    };
    let sleep = || step_wait::Kind::Duration(seconds(10).unwrap());
    assert_eq!(wait(sleep(), StepState::Succeeded, 10).violations(), [""; 0]);
    wait(sleep(), StepState::Succeeded, 9).violates("W8: ended before its time");
    let signal = || step_wait::Kind::Signal("go".to_owned());
    assert_eq!(wait(signal(), StepState::Succeeded, 1).violations(), [""; 0]);
    wait(signal(), StepState::Failed, 9).violates("W8: ended before its time");
}

#[test]
fn workflows_of_steps_decide_about_them() {
    let run = |state: WorkflowState, step: StepState, counted: i32| {
        let mut given = Given::new(WorkflowState::Succeeded, OnStepFailure::SkipDependents);
        let succeeded = i32::from(state == WorkflowState::Succeeded);
        let made = given.step(workflow_step::Kind::Workflow(Box::default()), step, (0, 10));
        (made.tasks_total, made.tasks_created, made.tasks_succeeded) = (counted, counted, succeeded);
        let status = v1::WorkflowStatus { state: state.into(), end_time: at(5), ..Default::default() };
        let (create_time, status, parent_step) = (at(1), Some(status), "s0".to_owned());
        given.nested.push(v1::Workflow { create_time, status, parent_step, ..Default::default() });
        given
    };
    assert_eq!(run(WorkflowState::Succeeded, StepState::Succeeded, 1).violations(), [""; 0]);
    assert_eq!(run(WorkflowState::CompensationFailed, StepState::Failed, 1).violations(), [""; 0]);
    run(WorkflowState::Failed, StepState::Succeeded, 1).violates("W4: is SUCCEEDED, and should be FAILED");
    run(WorkflowState::Succeeded, StepState::Succeeded, 2).violates("W2: created 2 tasks, and has [0]");
}
