//! Keys of the lists of files of a workflow: of its inputs, and of what its steps have taken over from an earlier run. They are among
//! those of attempts, so that what they refer to is kept like any other artifact, and are removed with their workflow.

use rota_core::{TaskKey, WorkflowKey};

use crate::workflows::ITEM_BITS;
use crate::{ArtifactsKey, ArtifactsKeys, StepKey};

const LAST_ITEM: u32 = (1 << ITEM_BITS) - 1;
/// Place of the files of the inputs: behind those of all steps.
const INPUTS: u32 = 0x7fff_ffff;

/// Returns the key of the list of the files that are inputs of a workflow.
pub fn input_files(workflow: WorkflowKey) -> ArtifactsKey {
    ArtifactsKey { task: TaskKey(workflow.0), attempt: INPUTS }
}

/// Returns the key of the list of an item. No task has the number of a workflow: both are revisions of the store.
pub fn reused_list((workflow, step): StepKey, item: u32) -> ArtifactsKey {
    ArtifactsKey { task: TaskKey(workflow.0), attempt: step << ITEM_BITS | item }
}

/// Returns the keys of the lists of a step, from an item on.
pub fn reused_lists(step: StepKey, from: u32) -> ArtifactsKeys {
    reused_list(step, from)..=reused_list(step, LAST_ITEM)
}

/// Returns the item to which a list belongs.
pub fn reused_item(key: ArtifactsKey) -> u32 {
    key.attempt & LAST_ITEM
}

#[cfg(test)]
mod tests {
    use rota_core::workflow::{MAX_ITEMS, MAX_STEPS};

    use super::*;

    #[test]
    fn steps_and_items_have_room() {
        let last = (WorkflowKey(7), u32::try_from(MAX_STEPS).unwrap());
        let key = reused_list(last, MAX_ITEMS);
        assert_eq!(reused_item(key), MAX_ITEMS);
        assert!(
            reused_lists(last, 0).contains(&key) && !reused_lists((last.0, last.1 - 1), 0).contains(&key)
        );
        assert!(!reused_lists(last, 0).contains(&input_files(last.0)), "inputs are no list of a step");
    }
}
