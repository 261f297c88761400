//! What a step needs next, by its expressions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use rota_core::workflow::{COMPENSATION, Kind, Start, Step, StepRef, StepState, Workflow};
use rota_expressions::{Expression, Template, Values};
use rota_proto::v1;
use rota_store::{Action, Create};
use serde_json::{Map, Value};

use super::around::Around;
use super::fill::{TaskTemplate, fill_next};
use super::next::Next;
use super::round::{self, Round, most};
use super::values::{self, NoValues, failed, not_now};
use super::{compensations, nested, reuse, typed};
use crate::creation::{Creator, Kept};
use crate::wire::workflow::{Files, MAX_VALUES, StoredStep};

/// Returns the next command for a step, and the work that its expressions have needed. What cannot be evaluated fails the step; an error
/// means that the store or the storage must be asked again.
pub(super) async fn next(
    around: &Around<'_>,
    step: &Step,
    stored: StoredStep,
) -> (Result<Option<Next>, NoValues>, u64) {
    let meter = OnceLock::new();
    let next = match attempt(around, step, stored, &meter).await {
        Err(NoValues::Step(message)) => Ok(Some(fail(step, message).into())),
        next => next,
    };
    (next, meter.get().map_or(0, |meter: &Values| values::MAX_WORK.saturating_sub(meter.left())))
}

/// Returns the end of a step that cannot be evaluated.
pub(super) fn fail(step: &Step, message: String) -> Action {
    match step.compensation {
        Some(StepState::Ready) => Action::CompensationFailed { after: step.compensated_item, message },
        _ => Action::Fail { round: step.round, state: step.state, created: step.created, message },
    }
}

async fn attempt(
    around: &Around<'_>,
    step: &Step,
    stored: StoredStep,
    meter: &OnceLock<Values>,
) -> Result<Option<Next>, NoValues> {
    let Around { store, creator, workflow, .. } = *around;
    let spec = stored.step.unwrap_or_default();
    let repeats = spec.repeat.is_some() && spec.for_each.is_none();
    let no_files = Files::new();
    let files = around.spec()?.spec.as_ref().map_or(&no_files, |spec| &spec.input_files);
    let read = async move |seen: BTreeMap<String, u32>| -> Result<Values, NoValues> {
        let values = around.values(seen).await?;
        // There is one read.
        let _ = meter.set(values.meter());
        let values = values.round(u64::from(step.round));
        match repeats {
            true => Ok(values.previous(values::previous(store, workflow, step).await?)),
            false => Ok(values),
        }
    };
    if step.compensation == Some(StepState::Ready) {
        let Some(task) = &spec.compensate else { return Err(failed("it has no compensation")) };
        let task = TaskTemplate::new(&spec, task, "compensate.limits", files)?;
        // What else reads of the step may be too large by now.
        let mut values = read(task.reads(&stored.seen)?).await?;
        let mut item = 0;
        if step.compensates_each {
            let element = compensations::next(store, workflow, step).await?;
            item = element.item;
            values = element.values(&step.name, &values)?;
        }
        let place = StepRef::of(workflow, step, COMPENSATION, item);
        let (create, kept) =
            create(creator, workflow, task.fill(&values)?, typed::priority(&spec, &values)?, place).await?;
        return Ok(Some(Next { action: Action::Compensate(Box::new(create)), kept: vec![kept] }));
    }
    match step.state {
        StepState::Ready => {
            let values = read(stored.seen).await?;
            if step.round <= 1 && !spec.condition.is_empty() {
                let condition = Expression::parse(&spec.condition).map_err(failed)?;
                if !condition.evaluate_bool(&values).map_err(failed)? {
                    return Ok(Some(Action::Skip.into()));
                }
            }
            let spec = typed::evaluated(spec, &values)?;
            start(creator, workflow, step, &spec, &stored.needs, &values, files).await.map(Some)
        }
        StepState::Running if step.wanted() > 0 => {
            let created = step.created;
            if step.kind == Kind::Workflow {
                let values = read(stored.seen).await?;
                let spec = typed::evaluated(spec, &values)?;
                return nested::more(store, workflow, step, &spec, &values, files).await.map(Some);
            }
            let Some(v1::workflow_step::Kind::Task(task)) = &spec.kind else {
                return Err(failed("it has no task"));
            };
            let task = TaskTemplate::new(&spec, task, "task.limits", files)?;
            let stored_items = values::items(store, step, created).await?;
            let seen = if stored_items.is_some() { task.reads(&stored.seen)? } else { stored.seen };
            let values = read(seen).await?;
            let window = round::window(stored_items, step, &spec, &values)?;
            let fill = |values: &Values| task.fill(values);
            let specs = fill_next(fill, &values, created, most(step), window.as_deref())?;
            let (tasks, kept) =
                create_all(creator, workflow, step, typed::priority(&spec, &values)?, specs).await?;
            let action = Action::More { round: step.round, created, tasks, nested: Vec::new() };
            Ok(Some(Next { action, kept }))
        }
        StepState::Ending => finish(step, &spec, &read(stored.seen).await?).map(Some),
        _ => Ok(None),
    }
}

async fn start(
    creator: &Creator,
    workflow: &Workflow,
    step: &Step,
    spec: &v1::WorkflowStep,
    needs: &[u32],
    values: &Values,
    files: &Files,
) -> Result<Next, NoValues> {
    let mut question = String::new();
    if let Some(v1::workflow_step::Kind::Approval(approval)) = &spec.kind {
        let template = Template::parse(&approval.prompt).map_err(failed)?;
        let text = template.evaluate_text(values).map_err(failed)?;
        rota_core::text::prefix(&text, 4 << 10).clone_into(&mut question);
    }
    let round = Round::new(step, spec, values)?;
    if step.kind == Kind::Workflow {
        return nested::start(creator, workflow, round, spec, values, files).await;
    }
    let task = match &spec.kind {
        Some(v1::workflow_step::Kind::Task(task)) => Some(task),
        _ => None,
    };
    let (planned, items) = (&round.planned, round.items.as_deref());
    let mut specs = match task {
        Some(task) => {
            let task = TaskTemplate::new(spec, task, "task.limits", files)?;
            fill_next(|values| task.fill(values), values, 0, round.count(), items)?
        }
        None => Vec::new(),
    };
    let mut inputs = String::new();
    if round.is_first() {
        let all = (specs.len() == planned.total as usize).then_some(specs.as_slice());
        let mut named: BTreeSet<_> = specs.iter().map(|task| task.kind.as_str()).collect();
        named.extend(task.filter(|_| all.is_none()).map(|task| task.kind.as_str()));
        named.remove("");
        let kinds = creator.kinds.presets(&workflow.namespace, &named).await.map_err(not_now)?;
        inputs = reuse::digest(spec, &question, items, all, &kinds, &Value::Null, values)?;
        let earlier = reuse::earlier_step(&creator.store, workflow, planned, &inputs).await?;
        if let Some(earlier) = earlier
            && let Some(reused) =
                reuse::find(creator, workflow, planned, spec, values, needs, &earlier).await?
        {
            return Ok(reused);
        }
    }
    specs.truncate(most(planned) as usize);
    let (tasks, kept) = create_all(creator, workflow, planned, spec.priority, specs).await?;
    let start = Start { kind: typed::kind(spec)?, question, inputs, ..Start::default() };
    Ok(Next { action: round.start(start, tasks, Vec::new()), kept })
}

/// Returns the creation of the next tasks of a round.
async fn create_all(
    creator: &Creator,
    workflow: &Workflow,
    step: &Step,
    priority: Option<i32>,
    specs: Vec<v1::TaskSpec>,
) -> Result<(Vec<Create>, Vec<Kept>), NoValues> {
    let (creator, mut creates, mut all_kept) = (creator.of_batch(), Vec::new(), Vec::new());
    for (item, spec) in (step.created..).zip(specs) {
        let place = StepRef::of(workflow, step, step.round, item);
        match create(&creator, workflow, spec, priority, place).await {
            Ok((create, kept)) => {
                creates.push(create);
                all_kept.push(kept);
            }
            // The next command creates the others: what was looked up for these does not wait for what is slow.
            Err(NoValues::Later(_)) if !creates.is_empty() => break,
            Err(why) => return Err(why),
        }
    }
    Ok((creates, all_kept))
}

/// Returns the creation of one task, checked as that of any caller.
async fn create(
    creator: &Creator,
    workflow: &Workflow,
    mut spec: v1::TaskSpec,
    priority: Option<i32>,
    place: StepRef,
) -> Result<(Create, Kept), NoValues> {
    let (labels, trace) = round::inherit(workflow, &place.name, &mut spec.owner, &mut spec.title);
    let given = v1::Task { spec: Some(Box::new(spec)), labels, priority, ..v1::Task::default() };
    let prepared = creator.prepare_step(workflow.namespace.clone(), trace, given, place).await;
    prepared.map_err(not_now)
}

fn finish(step: &Step, spec: &v1::WorkflowStep, values: &Values) -> Result<Next, NoValues> {
    if let Some(repeat) = &spec.repeat {
        let until = Expression::parse(&repeat.until).map_err(failed)?;
        if !until.evaluate_bool(values).map_err(failed)? {
            return Ok(Action::Finish { round: step.round, again: true, outputs: None }.into());
        }
    }
    let outputs = match spec.outputs.is_empty() {
        true => None,
        false => Some(outputs(&spec.outputs, values)?.into()),
    };
    Ok(Action::Finish { round: step.round, again: false, outputs }.into())
}

/// Returns outputs as a JSON object.
pub(super) fn outputs(templates: &BTreeMap<String, String>, values: &Values) -> Result<Vec<u8>, NoValues> {
    let mut outputs = Map::new();
    for (name, text) in templates {
        let value = Template::parse(text).and_then(|template| template.evaluate(values)).map_err(failed)?;
        outputs.insert(name.clone(), value);
    }
    let text = Value::Object(outputs).to_string();
    if text.len() > MAX_VALUES {
        let bytes = text.len();
        return Err(failed(format!("the outputs have {bytes} bytes; at most {MAX_VALUES} are allowed")));
    }
    Ok(text.into_bytes())
}
