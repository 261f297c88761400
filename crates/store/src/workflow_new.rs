//! New workflows, and new steps of them.

use bytes::Bytes;
use rota_core::workflow::{Step, Workflow};
use rota_core::{Namespace, WorkflowId};

#[derive(Debug, Clone)]
pub struct CreateWorkflow {
    pub workflow: Workflow,
    /// The encoded spec without its steps, opaque.
    pub spec: Bytes,
    pub steps: Vec<NewStep>,
    pub key: Option<String>,
    /// Whether the caller chose the id, so that it may exist already.
    pub foreign_id: bool,
    /// Encoded list of the files that are inputs, opaque. One that is a step has those of the workflow around it.
    pub files: Option<Bytes>,
}

impl CreateWorkflow {
    /// Returns the creation of a workflow with these steps, without a spec, a key and files.
    pub fn new(workflow: Workflow, steps: Vec<NewStep>) -> Self {
        Self { workflow, spec: Bytes::new(), steps, key: None, foreign_id: false, files: None }
    }

    /// Returns the bytes of its specs.
    pub fn payload_bytes(&self) -> usize {
        let files = self.files.as_ref().map_or(0, Bytes::len);
        self.spec.len() + files + self.steps.iter().map(|step| step.spec.len()).sum::<usize>()
    }
}

#[derive(Debug, Clone)]
pub struct NewStep {
    pub step: Step,
    /// The encoded spec of the step, opaque.
    pub spec: Bytes,
    pub needs: Vec<Need>,
}

impl NewStep {
    /// Returns one without a spec that needs no other.
    pub fn new(step: Step) -> Self {
        Self { step, spec: Bytes::new(), needs: Vec::new() }
    }
}

/// Step that is added to a workflow that runs.
#[derive(Debug, Clone)]
pub struct AddStep {
    pub namespace: Namespace,
    pub id: WorkflowId,
    /// Steps that the workflow has, as far as the caller knows: with others, the step is refused.
    pub total: u32,
    pub step: NewStep,
    /// For the steps that it needs, whether their failure stops the workflow.
    pub stops: Vec<(u32, bool)>,
}

/// Step that another one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    pub step: u32,
    /// Whether the other one runs although this one has not succeeded.
    pub continues: bool,
}
