//! History checker of workflows: compares an ended workflow, its steps and its tasks with the rules of `docs/workflows.md`, and the
//! states of the steps with those that `rota_core::workflow` has for the same ends of the tasks. Knows steps with tasks or workflows,
//! also of lists, in rounds and of `finally`, decisions, waits and compensations, and conditions that read inputs and states.

mod compensation;
mod prediction;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use pbjson_types::Timestamp;
use rota_client::Client;
use rota_core::workflow::TaskEnd;
use rota_expressions::{Expression, MAX_COST, Values};
use rota_proto::v1::{self, OnStepFailure, TaskState, WorkflowState};
use serde_json::{Map, Value, json};

use crate::history::{Findings, micros_of};
use crate::tasks::NAMESPACE;

/// A task or a workflow that a step has created.
#[derive(Debug, Clone)]
struct Part {
    name: String,
    created: Option<i64>,
    ended: Option<i64>,
    end: Option<TaskEnd>,
}

/// What a step has created, by round and item.
type Parts = BTreeMap<(i32, i32), Part>;

/// A workflow as the API shows it after its end.
struct Ended {
    state: WorkflowState,
    spec: v1::WorkflowSpec,
    /// Specs of all steps, of which those of `finally` are the last.
    specs: Vec<v1::WorkflowStep>,
    steps: Vec<v1::StepStatus>,
    /// For each step, the indexes of those that it needs, with whether it runs although they have not succeeded.
    needs: Vec<Vec<(usize, bool)>>,
    parts: Vec<Parts>,
    /// Compensations of each step, by item.
    compensations: Vec<BTreeMap<i32, Part>>,
}

/// Checks a workflow that has ended. The rules of tasks are those of [`crate::history::check`].
pub async fn check(client: &Client, name: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    let workflow = client.get_workflow(v1::GetWorkflowRequest { name: name.to_owned() }).await?;
    let status = workflow.status.clone().unwrap_or_default();
    ensure!(status.end_time.is_some(), "{name} has not ended: {:?}", status.state());
    let filter = v1::TaskFilter { workflow: workflow.uid.clone(), ..Default::default() };
    let parent = rota_proto::names::namespace(NAMESPACE);
    let request = v1::ListTasksRequest { parent: parent.clone(), filter: Some(filter), ..Default::default() };
    let tasks = client.all_tasks(request, None).await?;
    let filter = v1::WorkflowFilter { parent_workflow: workflow.uid.clone(), ..Default::default() };
    let nested = client.all_workflows(&parent, filter).await?;
    let steps = client.all_workflow_steps(name).await?;
    let attempts = |task: &v1::Task| task.status.as_ref().map_or(0, |status| status.attempt);
    findings.attempts = tasks.iter().map(|task| usize::try_from(attempts(task)).unwrap_or(0)).sum();
    let ended = Ended::new(workflow, steps, tasks, &nested, &mut findings)?;
    ended.check(name, &mut findings)?;
    for workflow in nested {
        let below = Box::pin(check(client, &workflow.name)).await?;
        findings.violations.extend(below.violations);
        findings.attempts += below.attempts;
    }
    for step in &ended.steps {
        *findings.states.entry(step.state().as_str_name()).or_default() += 1;
    }
    Ok(findings)
}

fn time(given: Option<&Timestamp>) -> Option<i64> {
    given.map(micros_of)
}

fn task_end(state: TaskState) -> Option<TaskEnd> {
    match state {
        TaskState::Succeeded => Some(TaskEnd::Succeeded),
        TaskState::Failed => Some(TaskEnd::Failed),
        TaskState::Cancelled => Some(TaskEnd::Cancelled),
        _ => None,
    }
}

fn workflow_end(state: WorkflowState) -> Option<TaskEnd> {
    match state {
        WorkflowState::Succeeded => Some(TaskEnd::Succeeded),
        WorkflowState::Failed | WorkflowState::CompensationFailed => Some(TaskEnd::Failed),
        WorkflowState::Cancelled => Some(TaskEnd::Cancelled),
        _ => None,
    }
}

impl Part {
    fn of_task(task: &v1::Task) -> Self {
        let status = task.status.clone().unwrap_or_default();
        let (created, ended) = (time(task.create_time.as_ref()), time(status.end_time.as_ref()));
        Self { name: task.name.clone(), created, ended, end: task_end(status.state()) }
    }

    fn of_workflow(workflow: &v1::Workflow) -> Self {
        let status = workflow.status.clone().unwrap_or_default();
        let (created, ended) = (time(workflow.create_time.as_ref()), time(status.end_time.as_ref()));
        Self { name: workflow.name.clone(), created, ended, end: workflow_end(status.state()) }
    }
}

impl Ended {
    fn new(
        workflow: v1::Workflow,
        steps: Vec<v1::StepStatus>,
        tasks: Vec<v1::Task>,
        nested: &[v1::Workflow],
        findings: &mut Findings,
    ) -> Result<Self> {
        let (state, spec) = (workflow.status.unwrap_or_default().state(), workflow.spec.unwrap_or_default());
        let specs: Vec<_> = spec.steps.iter().chain(&spec.finally).cloned().collect();
        let indexes: HashMap<String, usize> =
            specs.iter().enumerate().map(|(index, step)| (step.name.clone(), index)).collect();
        ensure!(steps.len() == specs.len(), "{} steps of {}", steps.len(), specs.len());
        let mut needs = Vec::new();
        for step in &specs {
            let need = |need: &v1::StepNeed| {
                let policy = match need.on_failure() {
                    OnStepFailure::Unspecified => spec.on_failure(),
                    own => own,
                };
                let index = indexes.get(&need.step).copied().context("a need is no step")?;
                Ok((index, policy == OnStepFailure::Continue))
            };
            needs.push(step.needs.iter().map(need).collect::<Result<_>>()?);
        }
        let mut parts: Vec<Parts> = vec![Parts::new(); steps.len()];
        let mut compensations = vec![BTreeMap::new(); steps.len()];
        for task in tasks {
            let (place, part) = (task.step.clone().context("a task without a step")?, Part::of_task(&task));
            let index = indexes.get(&place.step).copied().context("a task of no step")?;
            if !place.compensates && (place.round < 1 || place.round > steps[index].round) {
                findings.violations.push(format!("{}: W2: a task of round {}", task.name, place.round));
            }
            let other = match place.compensates {
                true => compensation::insert(&mut compensations[index], place.item, part, &steps[index]),
                false => parts[index].insert((place.round, place.item), part),
            };
            if let Some(other) = other {
                let (name, item, step) = (other.name, place.item, place.step);
                findings.violations.push(format!("{name}: W2: another task has item {item} of {step}"));
            }
        }
        let mut by_age: Vec<_> =
            nested.iter().map(|one| (Part::of_workflow(one), &one.parent_step)).collect();
        by_age.sort_by_key(|(part, _)| part.created);
        for (part, step) in by_age {
            let index = indexes.get(step).copied().context("a workflow of no step")?;
            // A step has rounds or items, of which the API does not show the number.
            let number = i32::try_from(parts[index].len())?;
            let place = if specs[index].repeat.is_some() { (number + 1, 0) } else { (1, number) };
            parts[index].insert(place, part);
        }
        Ok(Self { state, spec, specs, steps, needs, parts, compensations })
    }

    fn check(&self, name: &str, findings: &mut Findings) -> Result<()> {
        let mut violated =
            |step: &str, rule: String| findings.violations.push(format!("{name}, step {step}: {rule}"));
        self.check_order(&mut violated);
        self.check_parts(&mut violated);
        self.check_room(&mut violated);
        self.check_expressions(&mut violated)?;
        self.check_finally(&mut violated);
        self.check_waits(&mut violated);
        self.check_compensations(&mut violated);
        self.check_policies(&mut violated)
    }

    /// W1: a step starts after the ends of all steps that it needs.
    fn check_order(&self, violated: &mut impl FnMut(&str, String)) {
        for (step, needs) in self.steps.iter().zip(&self.needs) {
            let Some(start) = time(step.start_time.as_ref()) else { continue };
            for (need, _) in needs {
                let need = &self.steps[*need];
                if time(need.end_time.as_ref()).is_none_or(|end| end > start) {
                    violated(&step.name, format!("W1: started before {} had ended", need.name));
                }
            }
        }
    }

    /// W2: a step has exactly the tasks or workflows that it counts, each created and ended while it ran.
    fn check_parts(&self, violated: &mut impl FnMut(&str, String)) {
        for (step, parts) in self.steps.iter().zip(&self.parts) {
            let items: Vec<_> =
                parts.keys().filter(|(round, _)| *round == step.round).map(|(_, item)| *item).collect();
            if items != (0..step.tasks_created).collect::<Vec<_>>() {
                violated(&step.name, format!("W2: created {} tasks, and has {items:?}", step.tasks_created));
            }
            let has_succeeded = |part: &Part| part.end == Some(TaskEnd::Succeeded);
            let last = parts.range((step.round, 0)..).map(|(_, part)| part);
            let succeeded = last.filter(|part| has_succeeded(part)).count();
            for (_, part) in parts.range(..(step.round, 0)).filter(|(_, part)| !has_succeeded(part)) {
                let rule = format!("W2: a round followed that of {}, which has not succeeded", part.name);
                violated(&step.name, rule);
            }
            let counted = usize::try_from(step.tasks_succeeded).unwrap_or(usize::MAX);
            if counted != succeeded {
                let rule = format!("W2: counted {counted} successful tasks, and {succeeded} succeeded");
                violated(&step.name, rule);
            }
            let (start, end) = (time(step.start_time.as_ref()), time(step.end_time.as_ref()));
            for part in parts.values() {
                if part.created < start || part.ended.is_none() || part.ended > end {
                    violated(&step.name, format!("W2: {} lived longer than its step ran", part.name));
                }
            }
        }
    }

    /// W3: no more steps ran at the same time than may.
    fn check_room(&self, violated: &mut impl FnMut(&str, String)) {
        let most = self.spec.max_parallel;
        if most == 0 {
            return;
        }
        let of_step = |step: &v1::StepStatus| {
            Some((time(step.start_time.as_ref())?, time(step.end_time.as_ref()).unwrap_or(i64::MAX)))
        };
        let spans = self.steps.iter().filter_map(of_step);
        // Ends before starts: the commit that ends one starts the next.
        let mut changes: Vec<_> = spans.flat_map(|(start, end)| [(end, -1), (start, 1)]).collect();
        changes.sort_unstable();
        let mut running = 0;
        for (_, change) in changes {
            running += change;
            if running > most {
                return violated("?", format!("W3: {running} steps ran at the same time"));
            }
        }
    }

    /// W5: a condition decides whether a step runs, and the one of its rounds when they end.
    fn check_expressions(&self, violated: &mut impl FnMut(&str, String)) -> Result<()> {
        let inputs = serde_json::to_value(self.spec.inputs.clone().unwrap_or_default())?;
        let state =
            |step: &v1::StepStatus| step.state().as_str_name().trim_start_matches("STEP_STATE_").to_owned();
        let states: Map<String, Value> =
            self.steps.iter().map(|step| (step.name.clone(), json!({ "state": state(step) }))).collect();
        for (spec, step) in self.specs.iter().zip(&self.steps) {
            if step.round == 0 {
                continue;
            }
            let values = Values::default().inputs(inputs.clone()).steps(states.clone()).budget(MAX_COST);
            if !spec.condition.is_empty() {
                let holds = Expression::parse(&spec.condition)?.evaluate_bool(&values)?;
                // One that stops skips steps whose condition was not evaluated.
                if holds == self.is_skipped_by_condition(step) && !self.stops() {
                    violated(&step.name, format!("W5: is {}, while its condition is {holds}", state(step)));
                }
            }
            let Some(repeat) = spec.repeat.as_ref().filter(|_| step.state() == v1::StepState::Succeeded)
            else {
                continue;
            };
            let until = Expression::parse(&repeat.until)?;
            let holds = |round: i32| {
                Ok::<_, anyhow::Error>(until.evaluate_bool(&values.clone().round(u64::try_from(round)?))?)
            };
            for round in 1..=step.round {
                if holds(round)? != (round == step.round) {
                    violated(
                        &step.name,
                        format!(
                            "W5: {} rounds, while the condition was {} after round {round}",
                            step.round,
                            holds(round)?
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// W6: a finally-step starts once all others have ended, whatever the outcome.
    fn check_finally(&self, violated: &mut impl FnMut(&str, String)) {
        let (main, finals) = self.steps.split_at(self.spec.steps.len());
        let last = main.iter().filter_map(|step| time(step.end_time.as_ref())).max();
        for step in finals {
            match time(step.start_time.as_ref()) {
                Some(start) if last.is_some_and(|last| last > start) => {
                    violated(&step.name, "W6: started before all other steps had ended".to_owned());
                }
                None if self.needs_succeeded(step) => violated(&step.name, "W6: has not started".to_owned()),
                _ => {}
            }
        }
    }

    fn needs_succeeded(&self, step: &v1::StepStatus) -> bool {
        let index = self.steps.iter().position(|one| one.name == step.name).unwrap_or(usize::MAX);
        let needs = self.needs.get(index).into_iter().flatten();
        needs.into_iter().all(|(need, _)| self.steps[*need].state() == v1::StepState::Succeeded)
    }

    fn stops(&self) -> bool {
        use OnStepFailure::{Compensate, Stop, Unspecified};
        matches!(self.spec.on_failure(), Unspecified | Stop | Compensate)
    }

    /// Whether it was ready, and did not run. Without a failure that stops the workflow its condition is the only reason.
    fn is_skipped_by_condition(&self, step: &v1::StepStatus) -> bool {
        step.state() == v1::StepState::Skipped && step.start_time.is_some()
    }
}
