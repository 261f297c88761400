//! Workflows that are steps of others: what the driver creates for a step.

use std::collections::BTreeMap;

use pbjson_types::Struct;
use prost::Message;
use rota_core::WorkflowId;
use rota_core::workflow::{MAX_DEPTH, Parent, Start, Step, StepRef, TemplateRef, Workflow};
use rota_expressions::Values;
use rota_proto::v1;
use rota_proto::v1::workflow_step::Kind;
use rota_store::{Action, CreateWorkflow, WorkflowQuery};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::fill::fill_next;
use super::groups::{Held, held_around};
use super::next::Next;
use super::outcomes::OUTCOMES;
use super::reuse;
use super::round::{self, Round, most};
use super::values::{self, NoFill, NoValues, failed, not_now};
use crate::creation::Creator;
use crate::grpc::template_at;
use crate::store_client::StoreClient;
use crate::wire::template;
use crate::wire::workflow::{self as wire, Files};

/// Steps of the workflows that one command creates, with which it ends.
const MAX_NEW_STEPS: usize = 2_000;
/// Bytes of the specs of the workflows that one command creates, with which it ends.
const MAX_SPECS: usize = 4 << 20;

/// What the workflows of a step are made of, in all of a round.
enum Base {
    Spec(Box<v1::WorkflowSpec>),
    Template(Box<v1::WorkflowTemplateSpec>, Box<TemplateRef>),
}

impl Base {
    /// Reads it for a round. One that has started has a version of the template already.
    async fn read(
        store: &StoreClient,
        workflow: &Workflow,
        given: &v1::SubWorkflow,
        started_with: Option<&TemplateRef>,
    ) -> Result<Self, NoValues> {
        if let Some(spec) = &given.spec {
            return Ok(Self::Spec(Box::new(spec.clone())));
        }
        let (name, pinned) = template::name("template", &given.template).map_err(not_now)?;
        let version = started_with.map(|started| started.version).filter(|version| *version > 0);
        let found =
            template_at(store, workflow.namespace.clone(), name.clone(), version.unwrap_or(pinned)).await;
        let found = found.map_err(not_now)?;
        // Rounds of earlier versions have none.
        if started_with.is_some_and(|started| !started.uid.is_empty() && started.uid != found.uid) {
            let why = format!("template {name} was deleted and created again since the round began");
            return Err(failed(why));
        }
        let template = TemplateRef { name, version: found.version, uid: found.uid };
        Ok(Self::Template(Box::new(found.spec.unwrap_or_default()), Box::new(template)))
    }

    fn template(&self) -> Option<&TemplateRef> {
        match self {
            Self::Spec(_) => None,
            Self::Template(_, template) => Some(template),
        }
    }

    fn content(&self) -> Result<Value, NoValues> {
        match self {
            Self::Spec(spec) => serde_json::to_value(spec).map_err(failed),
            Self::Template(spec, _) => serde_json::to_value(spec).map_err(failed),
        }
    }

    /// Returns the workflow with these inputs, and with those of the files around it that are among them.
    fn with(&self, inputs: Struct, files: &Files) -> Result<v1::WorkflowSpec, NoValues> {
        let input_files = wire::passed_on(files, &inputs).map_err(not_now)?;
        let spec = match self {
            Self::Spec(spec) => v1::WorkflowSpec { inputs: Some(inputs), ..(**spec).clone() },
            Self::Template(spec, _) => template::instantiate(spec, inputs).map_err(not_now)?,
        };
        Ok(v1::WorkflowSpec { input_files, ..spec })
    }
}

/// Returns what the next workflows of a round are made of, with their inputs: for the items of a fan-out from there on.
async fn prepare(
    store: &StoreClient,
    workflow: &Workflow,
    spec: &v1::WorkflowStep,
    values: &Values,
    started_with: Option<&TemplateRef>,
    (from, count, items): (u32, u32, Option<&[Value]>),
) -> Result<(Base, Vec<Struct>), NoValues> {
    match &spec.kind {
        Some(Kind::Workflow(given)) => {
            let base = Base::read(store, workflow, given, started_with).await?;
            Ok((base, inputs(given, values, from, count, items)?))
        }
        Some(Kind::Merge(given)) => {
            let (spec, inputs) = merge(given, values)?;
            Ok((Base::Spec(Box::new(spec)), vec![inputs]))
        }
        _ => Err(failed("it has no workflow")),
    }
}

/// Returns the workflow that merges the commits of other steps, and its inputs.
fn merge(given: &v1::Merge, values: &Values) -> Result<(v1::WorkflowSpec, Struct), NoValues> {
    let json = serde_json::to_value(given).map_err(failed)?;
    let filled = rota_expressions::fill_text(&json, values).map_err(failed)?;
    let filled: v1::Merge = serde_json::from_value(filled).map_err(failed)?;
    let steps = values.get("steps");
    let results =
        filled.from.iter().filter_map(|name| steps?.get(name)?.get("results")?.as_array()).flatten();
    let mut commits: Vec<String> = Vec::new();
    for commit in results.filter_map(|result| result.get("commit")?.as_str()) {
        if !commit.is_empty() && !commits.iter().any(|known| known == commit) {
            commits.push(commit.to_owned());
        }
    }
    let (spec, inputs) = wire::merging_workflow(&filled, &commits).map_err(failed)?;
    Ok((spec, serde_json::from_value(inputs.into()).map_err(failed)?))
}

/// Returns the inputs of the next workflows of a round.
fn inputs(
    given: &v1::SubWorkflow,
    values: &Values,
    from: u32,
    count: u32,
    items: Option<&[Value]>,
) -> Result<Vec<Struct>, NoValues> {
    let inputs = serde_json::to_value(given.inputs.clone().unwrap_or_default()).map_err(failed)?;
    let fill = |values: &Values| -> Result<Struct, NoFill> {
        Ok(serde_json::from_value(rota_expressions::fill(&inputs, values)?)?)
    };
    fill_next(fill, values, from, count, items)
}

/// Returns the start of a round, with its first workflows.
pub(super) async fn start(
    creator: &Creator,
    workflow: &Workflow,
    round: Round,
    spec: &v1::WorkflowStep,
    values: &Values,
    files: &Files,
) -> Result<Next, NoValues> {
    let store = &creator.store;
    let (planned, items) = (&round.planned, round.items.as_deref());
    let (base, mut filled) = prepare(store, workflow, spec, values, None, (0, round.count(), items)).await?;
    let (mut digest, mut earlier) = (String::new(), None);
    // One whose inputs need much work, or are large, runs again in each rerun.
    if round.is_first() && filled.len() == planned.total as usize {
        let filled = serde_json::to_value(&filled).map_err(failed)?;
        let nested = json!([base.content()?, filled]);
        digest = reuse::digest(spec, "", items, None, &BTreeMap::new(), &nested, values)?;
        earlier = reuse::earlier_step(store, workflow, planned, &digest).await?;
        if let Some(earlier) = &earlier
            && let Some(reused) = reuse::find(creator, workflow, planned, spec, values, &[], earlier).await?
        {
            return Ok(reused);
        }
    }
    filled.truncate(most(planned) as usize);
    let elements = Elements { workflow, step: planned, base: &base, given: spec, files };
    let nested = elements.create(store, filled, earlier).await?;
    let template = base.template().cloned().map(Box::new);
    let start = Start { template, inputs: digest, ..Start::default() };
    Ok(round.start(start, Vec::new(), nested).into())
}

/// Returns the creation of the next workflows of a round that has started.
pub(super) async fn more(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    spec: &v1::WorkflowStep,
    values: &Values,
    files: &Files,
) -> Result<Next, NoValues> {
    let stored = values::items(store, step, step.created).await?;
    let window = round::window(stored, step, spec, values)?;
    let next = (step.created, most(step), window.as_deref());
    let (base, filled) = prepare(store, workflow, spec, values, step.template.as_deref(), next).await?;
    let earlier = reuse::earlier_step(store, workflow, step, &step.inputs).await?;
    let elements = Elements { workflow, step, base: &base, given: spec, files };
    let nested = elements.create(store, filled, earlier).await?;
    let (round, created) = (step.round, step.created);
    Ok(Action::More { round, created, tasks: Vec::new(), nested }.into())
}

/// Workflows of a round that are created.
struct Elements<'a> {
    workflow: &'a Workflow,
    /// The step as it is before they are created.
    step: &'a Step,
    base: &'a Base,
    given: &'a v1::WorkflowStep,
    files: &'a Files,
}

impl Elements<'_> {
    /// Returns the creation of the next workflows of a round: at least one, and fewer than there are inputs if they are large.
    async fn create(
        &self,
        store: &StoreClient,
        inputs: Vec<Struct>,
        earlier: Option<(Workflow, Step)>,
    ) -> Result<Vec<CreateWorkflow>, NoValues> {
        let Self { workflow, step, base, given, files } = *self;
        let depth = workflow.depth() + 1;
        if depth > MAX_DEPTH {
            return Err(failed(format!("workflows may be within each other at most {MAX_DEPTH} deep")));
        }
        let earlier = match earlier {
            Some(earlier) => self.earlier(store, &earlier, inputs.len()).await?,
            None => BTreeMap::new(),
        };
        let held = OnceCell::new();
        let (mut creates, mut steps, mut bytes) = (Vec::new(), 0, 0);
        for (item, inputs) in (step.created..).zip(inputs) {
            if !creates.is_empty() && (steps > MAX_NEW_STEPS || bytes > MAX_SPECS) {
                break;
            }
            let mut spec = base.with(inputs, files)?;
            inherit(given.priority, &mut spec);
            spec.timeout = shorter(spec.timeout, given.timeout);
            spec.budget_micro_usd = smaller(spec.budget_micro_usd, given.budget_micro_usd);
            let (labels, trace) = round::inherit(workflow, &step.name, &mut spec.owner, &mut spec.title);
            bytes += spec.encoded_len();
            let new = v1::Workflow { spec: Some(spec), ..v1::Workflow::default() };
            let template = base.template().map(ToString::to_string).unwrap_or_default();
            let request = v1::CreateWorkflowRequest { workflow: Some(new), template, ..Default::default() };
            let id = workflow.nested_id(step.index, step.round, item);
            let mut create = wire::check(workflow.namespace.clone(), id, trace, request).map_err(not_now)?;
            // Evaluated already: an input may look like an expression.
            create.workflow.labels = labels;
            create.workflow.counts_cost |= workflow.counts_cost;
            let place = StepRef::of(workflow, step, step.round, item);
            create.workflow.parent = Some(Box::new(Parent { step: place, depth, root: workflow.root() }));
            if let Some(earlier) = earlier.get(&item) {
                create.workflow.rerun_of = Some(*earlier);
                for new in &mut create.steps {
                    new.step.may_reuse = !new.step.finally;
                }
            }
            check_groups(store, workflow, step, &create, &held).await?;
            steps += create.steps.len();
            creates.push(create);
        }
        Ok(creates)
    }

    /// Returns the workflows of which the next ones of a step are reruns, by item: those that the step had in its last round in the earlier
    /// workflow, if it was started with the same inputs and one of them failed. If all have succeeded and the step has not, their results are to blame.
    async fn earlier(
        &self,
        store: &StoreClient,
        (earlier, found): &(Workflow, Step),
        count: usize,
    ) -> Result<BTreeMap<u32, WorkflowId>, NoValues> {
        let (Self { workflow, step, given, .. }, mut elements) = (self, BTreeMap::new());
        // A later round of a repetition follows from those before it, which run again.
        if found.failed == 0 || given.repeat.is_some() && found.round > 1 {
            return Ok(elements);
        }
        let items = (step.created..found.created).take(count);
        let ids: Vec<_> = items.map(|item| earlier.nested_id(found.index, found.round, item)).collect();
        for part in ids.chunks(OUTCOMES as usize) {
            let query = WorkflowQuery::Outcomes(workflow.namespace.clone(), part.to_vec());
            for (element, _) in store.reads().workflows(query).await?.outcomes {
                // One with such an id may be a foreign one.
                if element.is_step(earlier.key, found.index) && !element.deleted {
                    elements.extend(element.parent.map(|parent| (parent.step.item, element.id)));
                }
            }
        }
        Ok(elements)
    }
}

/// Returns the shorter of two times, of which either may be unset.
fn shorter(
    own: Option<pbjson_types::Duration>,
    of_step: Option<pbjson_types::Duration>,
) -> Option<pbjson_types::Duration> {
    own.into_iter().chain(of_step).min_by_key(|time| (time.seconds, time.nanos))
}

/// Returns the smaller of two budgets, of which either may be 0 for none.
fn smaller(own: i64, of_step: i64) -> i64 {
    [own, of_step].into_iter().filter(|budget| *budget > 0).min().unwrap_or_default()
}

/// Gives the priority of a step to the steps of its workflow that have none, and so to those of the workflows below.
fn inherit(priority: Option<i32>, spec: &mut v1::WorkflowSpec) {
    let creates = |step: &v1::WorkflowStep| {
        matches!(step.kind, Some(Kind::Task(_) | Kind::Workflow(_) | Kind::Merge(_)))
    };
    let steps = spec.steps.iter_mut().chain(&mut spec.finally);
    for step in steps.filter(|step| step.priority.is_none() && creates(step)) {
        step.priority = priority;
    }
}

/// Refuses a concurrency group that a workflow around the new one holds, and any group below a step that holds one: each could wait
/// for the other. Those around are read for the first that has any.
async fn check_groups(
    store: &StoreClient,
    around: &Workflow,
    step: &Step,
    new: &CreateWorkflow,
    held: &OnceCell<Vec<Held>>,
) -> Result<(), NoValues> {
    let name = new.workflow.group.as_ref().map(|group| &group.name);
    if name.is_none() && new.steps.iter().all(|new| new.step.group.is_none()) {
        return Ok(());
    }
    if let Some(own) = &step.group {
        return Err(below(&step.name, &own.name));
    }
    for held in held.get_or_try_init(|| held_around(store, around)).await? {
        match held {
            Held::Step { step, group } => return Err(below(step, group)),
            Held::Workflow { group } if Some(group) == name => {
                let why = format!("a workflow around it holds its concurrency group {group:?}");
                return Err(failed(why));
            }
            Held::Workflow { .. } => {}
        }
    }
    Ok(())
}

fn below(step: &str, group: &str) -> NoValues {
    let why = format!("step {step} around it holds concurrency group {group:?}");
    failed(format!("{why}: what is below it can have none"))
}

#[cfg(test)]
mod tests;
