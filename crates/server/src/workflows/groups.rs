//! Concurrency groups that are held around a workflow that is a step: what is below must not wait for them, since each could wait for the
//! other.

use rota_core::workflow::Workflow;
use rota_store::{Error, WorkflowQuery};

use crate::store_client::StoreClient;

/// Holder of a concurrency group, with the name of that.
pub(crate) enum Held {
    Step { step: String, group: String },
    Workflow { group: String },
}

/// Returns the groups that a workflow, and the steps and workflows around it, hold or wait for: the innermost ones first.
pub(crate) async fn held_around(store: &StoreClient, workflow: &Workflow) -> Result<Vec<Held>, Error> {
    let (mut held, mut around) = (Vec::new(), workflow.clone());
    loop {
        held.extend(around.group.map(|group| Held::Workflow { group: group.name }));
        let Some(parent) = around.parent else { return Ok(held) };
        let (workflow, index) = (parent.step.workflow, parent.step.step);
        let steps = store.reads().workflows(WorkflowQuery::StepsAt(workflow, vec![index])).await?.steps;
        let holder = steps.into_iter().next().and_then(|step| Some((step.name, step.group?.name)));
        held.extend(holder.map(|(step, group)| Held::Step { step, group }));
        let found = store.reads().workflows(WorkflowQuery::Key(workflow)).await?.workflows;
        let Some(found) = found.into_iter().next() else { return Ok(held) };
        around = found;
    }
}
