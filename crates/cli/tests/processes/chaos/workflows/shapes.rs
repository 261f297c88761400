//! Shapes of workflows, with random graphs, kinds of steps and failures.

use rand::Rng;
use rand::rngs::StdRng;
use rota_proto::v1::{
    self, OnStepFailure, ScriptFailure, StepDecision, script_step::Kind as Script, step_wait, workflow_step,
};
use rota_testkit::tasks;

use crate::chaos::load::SCRIPTED;

/// Steps before a step of a random graph that it may need.
const REACH: usize = 50;
/// Signal that lets the rest of a workflow run.
pub(super) const RELEASE: &str = "release";
/// Step that waits for it.
const HOLD: &str = "hold";

#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Chain,
    Wide,
    Random,
    /// A wide one that the first failure stops.
    Stopping,
    /// A random one with decisions, waits, workflows as steps and groups of steps.
    Mixed,
    /// A random one whose failure takes back what the other steps have done.
    Compensating,
}

impl Shape {
    pub(super) const ALL: [Self; 6] =
        [Self::Chain, Self::Wide, Self::Random, Self::Stopping, Self::Mixed, Self::Compensating];

    /// Whether a failure stops it.
    pub(super) fn stops(self) -> bool {
        matches!(self, Self::Stopping | Self::Compensating)
    }

    /// Whether its failure takes back what it has done.
    pub(super) fn compensates(self) -> bool {
        matches!(self, Self::Compensating)
    }

    fn policy(self) -> OnStepFailure {
        match self {
            Self::Chain => OnStepFailure::Continue,
            Self::Wide | Self::Random | Self::Mixed => OnStepFailure::SkipDependents,
            Self::Stopping => OnStepFailure::Stop,
            Self::Compensating => OnStepFailure::Compensate,
        }
    }

    fn needs(self, index: usize, random: &mut StdRng) -> Vec<v1::StepNeed> {
        let need = |step: usize| v1::StepNeed { step: name(step), ..Default::default() };
        match self {
            _ if index == 0 => Vec::new(),
            Self::Chain => vec![need(index - 1)],
            Self::Wide | Self::Stopping => vec![need(0)],
            Self::Random | Self::Mixed | Self::Compensating => {
                let from = index.saturating_sub(REACH);
                let steps: std::collections::BTreeSet<_> =
                    (0..random.random_range(0..4)).map(|_| random.random_range(from..index)).collect();
                // The policy of a failure that stops is that of the workflow.
                if self.stops() {
                    return steps.into_iter().map(need).collect();
                }
                let continues = |step| {
                    let policy = if random.random_bool(0.7) {
                        OnStepFailure::Continue
                    } else {
                        OnStepFailure::SkipDependents
                    };
                    v1::StepNeed { on_failure: policy.into(), ..need(step) }
                };
                steps.into_iter().map(continues).collect()
            }
        }
    }

    pub(super) fn spec(self, steps: usize, random: &mut StdRng) -> v1::WorkflowSpec {
        let odds = |index: usize| match index {
            // All need it.
            0 => 0.0,
            // So that something fails in any case.
            _ if index == steps / 2 => 1.0,
            // So that there is something to take back, and all kills before that failure meet it.
            _ if self.stops() => 0.0,
            _ => 0.02,
        };
        let step = |index| v1::WorkflowStep {
            name: name(index),
            needs: self.needs(index, random),
            kind: Some(workflow_step::Kind::Task(Box::new(task(odds(index))))),
            ..Default::default()
        };
        let all: Vec<_> = (0..steps).map(step).collect();
        let spec = v1::WorkflowSpec { steps: all, on_failure: self.policy().into(), ..Default::default() };
        let mut spec = match self {
            Self::Random => vary(spec, random),
            Self::Mixed => mix(spec, random),
            Self::Compensating => compensate(spec, random),
            _ => spec,
        };
        self.hold(&mut spec.steps);
        spec
    }

    /// Lets the last steps, and the one that stops the workflow, wait for the signal, so that it is under way until then.
    fn hold(self, steps: &mut Vec<v1::WorkflowStep>) {
        let (free, failing) = (free(steps.len()), steps.len() / 2);
        for (index, step) in steps.iter_mut().enumerate() {
            if index >= free || self.stops() && index == failing {
                step.needs.push(v1::StepNeed { step: HOLD.to_owned(), ..Default::default() });
            }
        }
        let signal = Some(step_wait::Kind::Signal(RELEASE.to_owned()));
        steps.push(v1::WorkflowStep {
            name: HOLD.to_owned(),
            kind: Some(workflow_step::Kind::Wait(v1::StepWait { kind: signal, ..Default::default() })),
            ..Default::default()
        });
    }
}

/// Returns how many steps of a workflow end before the signal, about.
pub(super) fn free(steps: usize) -> usize {
    steps * 3 / 4
}

/// Adds conditions and rounds to some steps, and steps of `finally`.
fn vary(mut spec: v1::WorkflowSpec, random: &mut StdRng) -> v1::WorkflowSpec {
    for step in &mut spec.steps {
        if let Some(need) = step.needs.first().filter(|_| random.random_bool(0.2)) {
            step.condition = format!("steps.{}.state != 'FAILED'", need.step);
        }
        if random.random_bool(0.1) {
            // Some of them fail, since their condition never holds.
            let until = format!("round >= {}", random.random_range(1..=4));
            step.repeat = Some(v1::Repeat { until, max: 3, ..Default::default() });
        }
    }
    let last = |name: &str, needs: &[&str]| v1::WorkflowStep {
        name: name.to_owned(),
        needs: needs
            .iter()
            .map(|need| v1::StepNeed { step: (*need).to_owned(), ..Default::default() })
            .collect(),
        kind: Some(workflow_step::Kind::Task(Box::new(task(0.0)))),
        ..Default::default()
    };
    spec.finally = vec![last("first", &[]), last("second", &["first"]), last("alone", &[])];
    spec.max_parallel = 20;
    spec
}

/// Replaces some tasks by decisions, waits and workflows, and puts some into groups.
fn mix(mut spec: v1::WorkflowSpec, random: &mut StdRng) -> v1::WorkflowSpec {
    use workflow_step::Kind;
    let count = spec.steps.len();
    for (index, step) in spec.steps.iter_mut().enumerate() {
        // Of all, and the one that fails in any case.
        if index == 0 || index == count / 2 {
            continue;
        }
        let some = || Some(tasks::millis(20));
        match random.random_range(0..100) {
            0..10 => {
                let rejects = random.random_bool(0.1);
                let decision = if rejects { StepDecision::Reject } else { StepDecision::Approve };
                let default_decision = decision.into();
                let approval = v1::Approval { prompt: "?".to_owned(), deadline: some(), default_decision };
                step.kind = Some(Kind::Approval(approval));
            }
            10..20 => {
                let kind = step_wait::Kind::Duration(tasks::millis(20));
                step.kind = Some(Kind::Wait(v1::StepWait { kind: Some(kind), ..Default::default() }));
            }
            20..22 => {
                let kind = step_wait::Kind::Signal("never".to_owned());
                step.kind = Some(Kind::Wait(v1::StepWait { kind: Some(kind), timeout: some() }));
            }
            // At most 1,000 may be below a workflow.
            22..26 => {
                let inner = v1::SubWorkflow { spec: Some(inner(random)), ..Default::default() };
                step.kind = Some(Kind::Workflow(Box::new(inner)));
            }
            26..40 => {
                // More steps wait than a group has places.
                let group = format!("group-{}", random.random_range(0..3));
                let limit = random.random_range(1..4);
                step.concurrency = Some(v1::Concurrency { group, limit, ..Default::default() });
            }
            _ => {}
        }
    }
    spec
}

/// Returns a chain of a few tasks, of which one may fail.
fn inner(random: &mut StdRng) -> v1::WorkflowSpec {
    let step = |index| v1::WorkflowStep {
        name: name(index),
        needs: Shape::Chain.needs(index, random),
        kind: Some(workflow_step::Kind::Task(Box::new(task(if random.random_bool(0.1) {
            1.0
        } else {
            0.0
        })))),
        ..Default::default()
    };
    let steps = (0..3).map(step).collect();
    v1::WorkflowSpec { steps, on_failure: OnStepFailure::SkipDependents.into(), ..Default::default() }
}

/// Gives most steps a compensation, and some a list, of which one element may have failed.
fn compensate(mut spec: v1::WorkflowSpec, random: &mut StdRng) -> v1::WorkflowSpec {
    for step in &mut spec.steps {
        if random.random_bool(0.7) {
            step.compensate = Some(Box::new(undo()));
        }
        if random.random_bool(0.1) {
            step.for_each = Some(v1::ForEach { items: "[1, 2, 3]".to_owned(), ..Default::default() });
        }
    }
    let last = task(0.0);
    spec.finally = vec![v1::WorkflowStep {
        name: "last".to_owned(),
        kind: Some(workflow_step::Kind::Task(Box::new(last))),
        ..Default::default()
    }];
    spec
}

fn name(index: usize) -> String {
    format!("s{index}")
}

/// Returns a task that fails with a probability, and whose attempts fail more often.
pub(super) fn task(fails: f64) -> v1::TaskSpec {
    executed(fails, if fails > 0.0 { 0.1 } else { 0.0 }, 3)
}

/// Returns a task whose attempts fail at times, and never all of them: what it undoes is undone by one of them.
fn undo() -> v1::TaskSpec {
    executed(0.0, 0.1, 20)
}

fn executed(fails: f64, retried: f64, max_attempts: i32) -> v1::TaskSpec {
    let fail = |class: &str, probability: f64| {
        let (class, probability) = (class.to_owned(), Some(probability));
        Script::Fail(ScriptFailure { class, probability, ..Default::default() })
    };
    let steps = [fail("agent", retried), fail("invalid", fails), Script::Succeed("done".to_owned())];
    let mut spec = tasks::scripted(SCRIPTED, steps).spec.unwrap_or_default();
    let backoff = Some(tasks::millis(10));
    spec.retry = Some(v1::RetryPolicy {
        max_attempts,
        initial_backoff: backoff,
        max_backoff: backoff,
        ..Default::default()
    });
    *spec
}
