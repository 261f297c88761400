//! Newest reruns of workflows, for the migrations that mark them: earlier versions named only the earlier workflow, in its rerun. Reads and
//! writes no rows.

use std::collections::BTreeMap;

use rota_core::WorkflowId;
use rota_core::workflow::Workflow;

use crate::{Stored, WorkflowScopedId};

/// Reruns among the workflows that were seen.
#[derive(Debug, Default)]
pub struct Reruns {
    newest: BTreeMap<WorkflowScopedId, WorkflowId>,
    unreadable: usize,
}

impl Reruns {
    /// Takes in the next workflow, in the order of their keys.
    pub fn see(&mut self, workflow: Stored<Workflow>) {
        match workflow {
            Ok(Workflow { id, namespace, rerun_of: Some(earlier), .. }) => {
                self.newest.insert((namespace, earlier), id);
            }
            Ok(_) => {}
            Err(_) => self.unreadable += 1,
        }
    }

    /// Number of records that could not be decoded, which name no rerun.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Returns the workflows that were run again, each with its newest rerun.
    pub fn newest(self) -> impl Iterator<Item = (WorkflowScopedId, WorkflowId)> {
        self.newest.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use rota_core::Namespace;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn last_rerun_of_a_workflow_counts() {
        let id = |number| WorkflowId(Uuid::from_u128(number));
        let namespace = |name| Namespace::new(name).unwrap();
        let workflow = |name, number, rerun_of: Option<u128>| Workflow {
            rerun_of: rerun_of.map(id),
            ..Workflow::new(id(number), namespace(name))
        };
        let mut reruns = Reruns::default();
        for (name, number, rerun_of) in
            [("n", 1, None), ("n", 2, Some(1)), ("n", 3, Some(1)), ("n", 4, Some(3)), ("m", 5, Some(1))]
        {
            reruns.see(Ok(workflow(name, number, rerun_of)));
        }
        reruns.see(Err("damaged".to_owned()));
        assert_eq!(reruns.unreadable(), 1);
        let of = |name, number, rerun| ((namespace(name), id(number)), id(rerun));
        assert_eq!(reruns.newest().collect::<Vec<_>>(), [of("m", 1, 5), of("n", 1, 3), of("n", 3, 4)]);
    }
}
