//! Reruns: which steps of the earlier workflow need not run again.

use std::collections::BTreeMap;

use rota_core::WorkflowId;
use rota_core::workflow::Workflow;
use rota_proto::labels::CLUSTER;
use rota_store::CreateWorkflow;
use tonic::Status;

use crate::wire::check;
use crate::wire::status::invalid;

const MAX_STEPS: usize = 256;

/// What a rerun takes over.
pub(super) struct Rerun {
    of: WorkflowId,
    /// Labels of the earlier workflow, whose expressions were evaluated then.
    labels: BTreeMap<String, String>,
    reuses: bool,
    /// Steps that run again in any case.
    steps: Vec<String>,
}

impl Rerun {
    pub(super) fn new(of: &Workflow, reuses: bool, steps: Vec<String>) -> Result<Self, Status> {
        check::count("steps", steps.len(), MAX_STEPS)?;
        if !reuses && !steps.is_empty() {
            return Err(invalid("steps", "is for reruns with reuse_results: without it all steps run again"));
        }
        let mut labels = of.labels.clone();
        // No resource of a cluster stands for the new one.
        labels.remove(CLUSTER);
        Ok(Self { of: of.id, labels, reuses, steps })
    }

    /// Gives the new workflow its labels, and marks the steps that may take over results: all but those that are named, those that need them, and finally-steps, which
    /// belong to each run.
    pub(super) fn mark(self, create: &mut CreateWorkflow) -> Result<(), Status> {
        create.workflow.rerun_of = Some(self.of);
        create.workflow.labels = self.labels;
        if !self.reuses {
            return Ok(());
        }
        let mut dependents = vec![Vec::new(); create.steps.len()];
        for (index, step) in create.steps.iter().enumerate() {
            for need in &step.needs {
                if let Some(dependents) = dependents.get_mut(need.step as usize) {
                    dependents.push(index);
                }
            }
        }
        let mut again = vec![false; create.steps.len()];
        let mut open = Vec::new();
        for name in &self.steps {
            let found = create.steps.iter().position(|step| step.step.name == *name);
            let missing = || invalid("steps", format!("step {:?} does not exist", check::shorten(name)));
            open.push(found.ok_or_else(missing)?);
        }
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut again[index], true) {
                open.append(&mut dependents[index]);
            }
        }
        for (step, again) in create.steps.iter_mut().zip(again) {
            step.step.may_reuse = !again && !step.step.finally;
        }
        Ok(())
    }
}
