//! Workflows that are steps, as far as they are drawn with their own steps: those that run, or what they would be made of.

use std::collections::HashMap;

use rota_core::workflow::MAX_DEPTH;
use rota_proto::v1::workflow_step::Kind;
use rota_proto::{names, v1};

use crate::context::Context;

/// Steps of an expanded graph. A workflow that has no room among them stays one box.
const MAX_STEPS: usize = 1000;

/// Workflow whose steps are drawn.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) spec: v1::WorkflowSpec,
    /// States of its steps, in the order of the specification; empty if it does not run.
    pub(super) states: Vec<v1::StepStatus>,
    /// Workflows of its steps, by their positions.
    pub(super) below: HashMap<usize, Tree>,
}

impl Tree {
    pub(super) fn new(spec: v1::WorkflowSpec, states: Vec<v1::StepStatus>) -> Self {
        Self { spec, states, below: HashMap::new() }
    }

    /// Returns the steps in the order in which they are drawn.
    pub(super) fn steps(&self) -> impl Iterator<Item = &v1::WorkflowStep> {
        self.spec.steps.iter().chain(&self.spec.finally)
    }

    fn len(&self) -> usize {
        self.spec.steps.len() + self.spec.finally.len()
    }

    /// Adds the workflows of its steps, level by level, as deep as they may be within each other and as long as there is room.
    pub(super) async fn expand(&mut self, context: &Context) -> anyhow::Result<()> {
        let mut room = MAX_STEPS.saturating_sub(self.len());
        let mut level = vec![self];
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for tree in level {
                let Self { spec, states, below } = tree;
                for (position, step) in spec.steps.iter().chain(&spec.finally).enumerate() {
                    let Some(found) = read(context, step, states.get(position)).await? else { continue };
                    if let Some(left) = room.checked_sub(found.len()) {
                        room = left;
                        below.insert(position, found);
                    }
                }
                next.extend(below.values_mut());
            }
            level = next;
        }
        Ok(())
    }
}

/// Returns the newest workflow of a step, or the one that it would run. None if that is not known before it runs.
async fn read(
    context: &Context,
    step: &v1::WorkflowStep,
    state: Option<&v1::StepStatus>,
) -> anyhow::Result<Option<Tree>> {
    let client = &context.client;
    if let Some(id) = state.map(|state| &state.last_workflow).filter(|id| !id.is_empty()) {
        let name = names::workflow(&context.namespace, id);
        let request = v1::GetWorkflowRequest { name: name.clone() };
        let workflow = Box::pin(client.get_workflow(request)).await?;
        let states = client.all_workflow_steps(&name).await?;
        return Ok(Some(Tree::new(workflow.spec.unwrap_or_default(), states)));
    }
    let Some(Kind::Workflow(given)) = &step.kind else { return Ok(None) };
    if let Some(spec) = &given.spec {
        return Ok(Some(Tree::new(spec.clone(), Vec::new())));
    }
    let (template, version) = given.template.split_once('@').unwrap_or((&given.template, "0"));
    let request = v1::GetWorkflowTemplateRequest {
        name: names::template(&context.namespace, template),
        version: version.parse().unwrap_or_default(),
    };
    let found = Box::pin(client.get_workflow_template(request)).await?;
    let spec = found.spec.and_then(|spec| spec.workflow);
    Ok(spec.map(|spec| Tree::new(spec, Vec::new())))
}
