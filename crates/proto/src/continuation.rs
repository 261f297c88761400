//! What a task that continues another one takes over from it, and what it leaves out: the same for `rota continue`, `rota fork`, requests that
//! are followed, and the control centre, whose tests read the same table.

use crate::labels::{CLUSTER, FOLLOWED, FOLLOWED_UNTIL, REPLAYED};
use crate::v1;

/// How a task continues another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// After its end, outside of its thread.
    Apart,
    /// After its end, as the next task of its thread if it has one.
    InThread,
    /// From its newest checkpoint, while it may still run.
    Fork,
}

/// Returns a task that continues another one with a message, set up as that one was. It has neither secrets nor a name.
pub fn continuation(before: v1::Task, prompt: String, how: Continuation) -> v1::Task {
    let given = before.spec.unwrap_or_default();
    let thread = if how == Continuation::InThread { given.thread.clone() } else { String::new() };
    let mut spec = v1::TaskSpec {
        prompt,
        // A task of a thread continues the one before by itself.
        continue_from: if thread.is_empty() { before.uid.clone() } else { String::new() },
        fork: how == Continuation::Fork,
        thread,
        // Of the task itself, and not of what comes next.
        title: String::new(),
        input: None,
        inputs: Vec::new(),
        depends_on: Vec::new(),
        start_time: None,
        secrets: Default::default(),
        secret_names: Vec::new(),
        // The old task has what its kind gives; its text is not around each message.
        kind: String::new(),
        prompt_frame: String::new(),
        ..*given
    };
    if let Some(workspace) = &mut spec.workspace {
        if let Some(git) = &mut workspace.git {
            // Its files are those of the conversation.
            git.ref_from.clear();
        }
        if workspace.mode() == v1::WorkspaceMode::Keep {
            match how {
                // One of its own: the old task may still work in that one.
                Continuation::Fork => workspace.path.clear(),
                _ if workspace.path.is_empty() => workspace.path = before.uid,
                _ => {}
            }
        }
    }
    let mut labels = before.labels;
    // It has no resource: the operator would cancel it.
    labels.remove(CLUSTER);
    labels.remove(REPLAYED);
    // Of a request that was followed: a user who continues has read what is there.
    labels.remove(FOLLOWED);
    labels.remove(FOLLOWED_UNTIL);
    v1::Task { spec: Some(Box::new(spec)), priority: before.priority, labels, ..v1::Task::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        title: String,
        how: String,
        before: v1::Task,
        prompt: String,
        after: v1::Task,
    }

    #[test]
    fn earlier_tasks_continue_as_in_the_table() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("continuation.json")).unwrap();
        for Case { title, how, before, prompt, after } in cases {
            let how = match how.as_str() {
                "apart" => Continuation::Apart,
                "inThread" => Continuation::InThread,
                "fork" => Continuation::Fork,
                other => panic!("{title}: {other}"),
            };
            assert_eq!(continuation(before, prompt, how), after, "{title}");
        }
    }
}
