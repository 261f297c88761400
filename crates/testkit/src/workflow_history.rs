//! History checker of workflows: compares an ended workflow, its steps and its tasks with the rules of `docs/workflows.md`, and the
//! states of the steps with those that `rota_core::workflow` has for the same ends of the tasks. Knows steps with tasks, also of
//! lists, in rounds and of `finally`, and conditions that read inputs and states; questions and waits are none that it can predict.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use pbjson_types::Timestamp;
use rota_client::Client;
use rota_core::workflow::{
    Change, Follow, Kind, MAX_ROUNDS, State, Step, StepCommand, StepState, TaskEnd, Workflow,
};
use rota_core::{Namespace, WorkflowId};
use rota_expressions::{Expression, MAX_COST, Values};
use rota_proto::v1::{self, OnStepFailure, TaskState, workflow_step};
use serde_json::{Map, Value, json};

use crate::history::{Findings, micros_of};
use crate::tasks::NAMESPACE;

/// A workflow as the API shows it after its end.
struct Ended {
    spec: v1::WorkflowSpec,
    /// Specs of all steps, of which those of `finally` are the last.
    specs: Vec<v1::WorkflowStep>,
    steps: Vec<v1::StepStatus>,
    /// For each step, the indexes of those that it needs, with whether it runs although they have not succeeded.
    needs: Vec<Vec<(usize, bool)>>,
    /// Tasks of each step, by round and item.
    tasks: Vec<BTreeMap<(i32, i32), v1::Task>>,
}

/// Checks a workflow that has ended. The rules of tasks are those of [`crate::history::check`].
pub async fn check(client: &Client, name: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    let workflow = client.get_workflow(v1::GetWorkflowRequest { name: name.to_owned() }).await?;
    let status = workflow.status.unwrap_or_default();
    ensure!(status.end_time.is_some(), "{name} has not ended: {:?}", status.state());
    let filter = v1::TaskFilter { workflow: workflow.uid, ..Default::default() };
    let parent = rota_proto::names::namespace(NAMESPACE);
    let request = v1::ListTasksRequest { parent, filter: Some(filter), ..Default::default() };
    let tasks = client.all_tasks(request, None).await?;
    let steps = client.all_workflow_steps(name).await?;
    let ended = Ended::new(workflow.spec.unwrap_or_default(), steps, tasks, &mut findings)?;
    let mut violated =
        |step: &str, rule: String| findings.violations.push(format!("{name}, step {step}: {rule}"));
    ended.check_order(&mut violated);
    ended.check_tasks(&mut violated);
    ended.check_room(&mut violated);
    ended.check_expressions(&mut violated)?;
    ended.check_finally(&mut violated);
    ended.check_policies(&mut violated)?;
    for step in &ended.steps {
        *findings.states.entry(step.state().as_str_name()).or_default() += 1;
    }
    findings.attempts = ended
        .tasks
        .iter()
        .flat_map(BTreeMap::values)
        .map(|task| task.status.as_ref().map_or(0, |status| usize::try_from(status.attempt).unwrap_or(0)))
        .sum();
    Ok(findings)
}

fn time(given: Option<&Timestamp>) -> Option<i64> {
    given.map(micros_of)
}

impl Ended {
    fn new(
        spec: v1::WorkflowSpec,
        steps: Vec<v1::StepStatus>,
        tasks: Vec<v1::Task>,
        findings: &mut Findings,
    ) -> Result<Self> {
        let specs: Vec<_> = spec.steps.iter().chain(&spec.finally).cloned().collect();
        let indexes: HashMap<String, usize> =
            specs.iter().enumerate().map(|(index, step)| (step.name.clone(), index)).collect();
        ensure!(steps.len() == specs.len(), "{} steps of {}", steps.len(), specs.len());
        let mut needs = Vec::new();
        for step in &specs {
            let is_task = matches!(step.kind, Some(workflow_step::Kind::Task(_)));
            ensure!(is_task, "step {} cannot be predicted", step.name);
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
        let mut by_step: Vec<BTreeMap<(i32, i32), v1::Task>> = vec![BTreeMap::new(); steps.len()];
        for task in tasks {
            let place = task.step.clone().context("a task without a step")?;
            let index = indexes.get(&place.step).copied().context("a task of no step")?;
            if place.round < 1 || place.round > steps[index].round || place.compensates {
                findings.violations.push(format!("{}: W2: a task of round {}", task.name, place.round));
            }
            if let Some(other) = by_step[index].insert((place.round, place.item), task) {
                findings.violations.push(format!(
                    "{}: W2: another task has item {} of {}",
                    other.name, place.item, place.step
                ));
            }
        }
        Ok(Self { spec, specs, steps, needs, tasks: by_step })
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

    /// W2: a step has exactly the tasks that it counts, each created and ended while it ran.
    fn check_tasks(&self, violated: &mut impl FnMut(&str, String)) {
        for (step, tasks) in self.steps.iter().zip(&self.tasks) {
            let items: Vec<_> =
                tasks.keys().filter(|(round, _)| *round == step.round).map(|(_, item)| *item).collect();
            if items != (0..step.tasks_created).collect::<Vec<_>>() {
                violated(&step.name, format!("W2: created {} tasks, and has {items:?}", step.tasks_created));
            }
            let is = |task: &&v1::Task, state| task.status.as_ref().is_some_and(|s| s.state() == state);
            let last = tasks.range((step.round, 0)..).map(|(_, task)| task);
            let succeeded = last.filter(|task| is(task, TaskState::Succeeded)).count();
            for (_, task) in
                tasks.range(..(step.round, 0)).filter(|(_, task)| !is(task, TaskState::Succeeded))
            {
                violated(
                    &step.name,
                    format!("W2: a round followed that of {}, which has not succeeded", task.name),
                );
            }
            let counted = usize::try_from(step.tasks_succeeded).unwrap_or(usize::MAX);
            if counted != succeeded {
                violated(
                    &step.name,
                    format!("W2: counted {counted} successful tasks, and {succeeded} succeeded"),
                );
            }
            let (start, end) = (time(step.start_time.as_ref()), time(step.end_time.as_ref()));
            for task in tasks.values() {
                let ended = task.status.as_ref().and_then(|status| time(status.end_time.as_ref()));
                if time(task.create_time.as_ref()) < start || ended.is_none() || ended > end {
                    violated(&step.name, format!("W2: {} lived longer than its step ran", task.name));
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

    /// W4: after a failure that stops the workflow no step starts. Without such a policy the end does not depend on the order
    /// of events: it is the one that the state machine has.
    fn check_policies(&self, violated: &mut impl FnMut(&str, String)) -> Result<()> {
        if self.stops() {
            let own = self.spec.steps.iter().flat_map(|step| &step.needs);
            ensure!(
                own.into_iter().all(|need| need.on_failure() == OnStepFailure::Unspecified),
                "needs with a policy of their own are not checked"
            );
            let failed =
                self.steps.iter().filter(|step| !step.finally && step.state() == v1::StepState::Failed);
            let Some(first) = failed.filter_map(|step| time(step.end_time.as_ref())).min() else {
                return Ok(());
            };
            for step in self.steps.iter().filter(|step| !step.finally) {
                if time(step.start_time.as_ref()).is_some_and(|start| start > first) {
                    violated(&step.name, "W4: started after a failure that stops the workflow".to_owned());
                }
            }
            return Ok(());
        }
        let predicted = self.predict()?;
        for (step, predicted) in self.steps.iter().zip(predicted) {
            let found = step.state().as_str_name().trim_start_matches("STEP_STATE_");
            if found != predicted.name() {
                violated(&step.name, format!("W4: is {found}, and should be {}", predicted.name()));
            }
        }
        Ok(())
    }

    /// Returns the states that the steps have after the same ends of their tasks. One whose tasks are missing stays READY.
    fn predict(&self) -> Result<Vec<StepState>> {
        let mut workflow = Workflow::new(WorkflowId(uuid::Uuid::nil()), Namespace::new(NAMESPACE)?);
        let mut dependents: Vec<Vec<(usize, bool)>> = vec![Vec::new(); self.steps.len()];
        let mut steps = Vec::new();
        for (index, needs) in self.needs.iter().enumerate() {
            let mut step = Step::new(self.steps[index].name.clone(), Kind::Task);
            step.needs = u32::try_from(needs.len())?;
            step.finally = index >= self.spec.steps.len();
            let (spec, repeat) = (&self.specs[index], self.specs[index].repeat.as_ref());
            step.evaluates_end = repeat.is_some() || !spec.outputs.is_empty();
            step.max_rounds = match repeat {
                Some(repeat) if repeat.max_expression.is_empty() => u32::try_from(repeat.max)?,
                Some(_) => MAX_ROUNDS,
                None => 1,
            };
            needs.iter().for_each(|(need, continues)| dependents[*need].push((index, *continues)));
            steps.push(step);
        }
        for (step, dependents) in steps.iter_mut().zip(&dependents) {
            step.has_dependents = !dependents.is_empty();
        }
        let now = rota_core::Timestamp(1);
        workflow.begin(&mut steps, now);
        let is_ready = |step: &Step| step.state == StepState::Ready;
        let mut ready: VecDeque<_> = (0..steps.len()).filter(|index| is_ready(&steps[*index])).collect();
        loop {
            let Some(index) = ready.pop_front() else {
                // All others have ended: those of `finally` that wait for nothing start.
                let held = |step: &Step| step.finally && step.state == StepState::Held;
                let held: Vec<_> = (0..steps.len()).filter(|index| held(&steps[*index])).collect();
                if workflow.state != State::Finalizing || held.is_empty() {
                    break;
                }
                for index in held {
                    workflow.apply_to(&mut steps[index], StepCommand::Release, now)?;
                    ready.push_back(index);
                }
                continue;
            };
            let mut ended = VecDeque::new();
            for command in self.commands(index)? {
                let change = workflow.apply_to(&mut steps[index], command, now)?;
                ended.extend(ended_steps(&change));
            }
            while let Some(index) = ended.pop_front() {
                for (dependent, continues) in &dependents[index] {
                    let satisfied = steps[index].satisfies(*continues);
                    let command = StepCommand::NeedEnded { satisfied, reused: false };
                    let change = workflow.apply_to(&mut steps[*dependent], command, now)?;
                    ended.extend(ended_steps(&change));
                    if steps[*dependent].state == StepState::Ready {
                        ready.push_back(*dependent);
                    }
                }
            }
        }
        Ok(steps.iter().map(|step| workflow.state_of(step)).collect())
    }

    /// Returns the commands for a step that is ready, up to its end.
    fn commands(&self, index: usize) -> Result<Vec<StepCommand>> {
        let (status, tasks) = (&self.steps[index], &self.tasks[index]);
        if self.is_skipped_by_condition(status) && !self.stops() {
            return Ok(vec![StepCommand::Skip]);
        }
        let mut commands = Vec::new();
        for given in 1..=status.round {
            let (round, of_round) = (u32::try_from(given)?, tasks.range((given, 0)..=(given, i32::MAX)));
            let count = u32::try_from(of_round.clone().count())?;
            let is_last = given == status.round;
            let total = if is_last { u32::try_from(status.tasks_total)? } else { count };
            let (prompt, inputs) = (String::new(), String::new());
            let (parallel, max_rounds, kind) = (0, None, None);
            commands.push(StepCommand::Start { round, total, parallel, max_rounds, kind, prompt, inputs });
            commands.push(StepCommand::Created { count });
            for (_, task) in of_round {
                let end = match task.status.as_ref().map(v1::TaskStatus::state) {
                    Some(TaskState::Succeeded) => TaskEnd::Succeeded,
                    Some(TaskState::Failed) => TaskEnd::Failed,
                    Some(TaskState::Cancelled) => TaskEnd::Cancelled,
                    other => bail!("{} has not ended: {other:?}", task.name),
                };
                commands.push(StepCommand::TaskEnded { round, end });
            }
            let spec = &self.specs[index];
            let ends = (spec.repeat.is_some() || !spec.outputs.is_empty()) && succeeded(tasks, given);
            // After the last round of all that there may be, the condition may not hold.
            let again = !is_last || status.state() == v1::StepState::Failed;
            commands.extend(ends.then_some(StepCommand::Finish { round, again }));
        }
        Ok(commands)
    }
}

/// Whether all tasks of a round have succeeded.
fn succeeded(tasks: &BTreeMap<(i32, i32), v1::Task>, round: i32) -> bool {
    let is = |task: &v1::Task| task.status.as_ref().is_some_and(|s| s.state() == TaskState::Succeeded);
    tasks.range((round, 0)..=(round, i32::MAX)).all(|(_, task)| is(task))
}

fn ended_steps(change: &Change) -> impl Iterator<Item = usize> {
    change.follow.iter().filter_map(|follow| match follow {
        Follow::Ended { step } => usize::try_from(*step).ok(),
        _ => None,
    })
}
