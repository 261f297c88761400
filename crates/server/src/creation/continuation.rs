//! What a task continues: the newest checkpoint of another task, which is checked and kept with the input of the new one. So the other
//! task may be removed, or go on.

use prost::Message;
use rota_core::TaskId;
use rota_core::task::Task;
use rota_proto::artifact_names::{BRANCHES, CHECKPOINT, within};
use rota_proto::reasons;
use rota_proto::v1::{self, ArtifactList, runtime::Kind};
use tonic::Status;

use super::create::Creator;
use super::managed::Scope;
use crate::artifacts;
use crate::store_client::StoreClient;
use crate::wire::names::{self, TaskName};
use crate::wire::status::{self, hinted, invalid};

const FIELD: &str = "task.spec.continue_from";

impl Creator {
    /// Returns the checkpoint that a new task continues, if it continues any, and writes the id of its task into the spec, and into
    /// the task whether that was one of another agent.
    pub(super) async fn source(
        &self,
        scope: Scope,
        task: &mut Task,
        spec: &mut v1::TaskSpec,
    ) -> Result<Option<ArtifactList>, Status> {
        if task.thread.is_none() && spec.continue_from.is_empty() && !spec.fork {
            return Ok(None);
        }
        Box::pin(self.continued(scope, task, spec)).await
    }

    async fn continued(
        &self,
        scope: Scope,
        task: &mut Task,
        spec: &mut v1::TaskSpec,
    ) -> Result<Option<ArtifactList>, Status> {
        if let Some(thread) = task.thread.clone() {
            if !spec.continue_from.is_empty() {
                return Err(invalid(FIELD, "excludes a thread, whose tasks continue each other"));
            }
            if let Some(before) = self.check_thread(task, &thread, spec).await? {
                let before = scope.check(before)?;
                task.continues_other_agent = is_of_other_agent(&before, task);
                task.children = before.children;
            }
        }
        if spec.continue_from.is_empty() {
            return match spec.fork {
                true => Err(invalid("task.spec.fork", "is only for a task with continue_from")),
                false => Ok(None),
            };
        }
        if let Some((kept, of_other)) = self.kept_by(task).await? {
            task.continues_other_agent = of_other;
            return Ok(Some(kept));
        }
        let name = match spec.continue_from.parse() {
            Ok(id) => TaskName::Id(id),
            Err(_) => TaskName::Alias(names::alias(FIELD, &spec.continue_from)?),
        };
        let source = scope.check(self.store.task(&task.namespace, name).await?)?;
        task.continues_other_agent = is_of_other_agent(&source, task);
        task.children.clone_from(&source.children);
        spec.continue_from = source.id.to_string();
        if !source.state.is_final() && !spec.fork {
            let text =
                format!("task {} is {}; only an ended task can be continued", source.id, source.state.name());
            let hint = "wait for its end, or fork it: `rota fork`, or `fork` in the spec";
            return Err(hinted("TASK_NOT_ENDED", text, hint));
        }
        if self.kind(task, spec).is_none() && task.target.agent().is_none() {
            // Whatever takes it might not understand the checkpoint.
            return Err(invalid(FIELD, "is only for a task with an agent by name, or with a runtime"));
        }
        self.check_kinds(FIELD, &source, task, spec).await?;
        match checkpoint_of(&self.store, &source).await? {
            Some(list) => Ok(Some(list)),
            None => Err(no_checkpoint(source.id)),
        }
    }

    /// Returns what the task that this one repeats has continued, and whether that was a task of another agent.
    async fn kept_by(&self, task: &Task) -> Result<Option<(ArtifactList, bool)>, Status> {
        let Some(id) = task.retry_of else { return Ok(None) };
        let Some(before) = self.store.record(&task.namespace, id).await? else { return Ok(None) };
        let kept = artifacts::of_attempt(&self.store, &before, 0).await?.and_then(checkpoint);
        Ok(kept.map(|list| (list, before.continues_other_agent)))
    }

    /// Returns the task of a thread whose conversation a task continues, if there is one. Fails if it cannot.
    async fn check_thread(
        &self,
        task: &Task,
        thread: &str,
        spec: &v1::TaskSpec,
    ) -> Result<Option<Task>, Status> {
        let name = (task.namespace.clone(), thread.to_owned());
        let Some(thread) = self.store.reads().thread(name).await.map_err(status::store)? else {
            return Ok(None);
        };
        let id = thread.conversation.map_or(thread.last, |(_, id)| id);
        let before = self.store.record(&task.namespace, id).await?;
        if let Some(before) = &before {
            self.check_kinds("task.spec.thread", before, task, spec).await?;
        }
        Ok(before)
    }

    /// Fails if two tasks have different kinds of runtimes, as far as their agents are known.
    async fn check_kinds(
        &self,
        field: &str,
        before: &Task,
        task: &Task,
        spec: &v1::TaskSpec,
    ) -> Result<(), Status> {
        let payload = self.store.payload(before).await?.unwrap_or_default();
        let its = v1::TaskSpec::decode(&payload[..]).unwrap_or_default();
        match (self.kind(before, &its), self.kind(task, spec)) {
            (Some(its), Some(own)) if its != own => {
                Err(invalid(field, format!("task {} has the runtime {its}, and this one {own}", before.id)))
            }
            _ => Ok(()),
        }
    }

    /// Returns the kind of a task's runtime; `None` if its agent is not known.
    fn kind(&self, task: &Task, spec: &v1::TaskSpec) -> Option<&'static str> {
        let own = spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref()).map(kind);
        own.or_else(|| {
            let agent = self.agents.get(&(task.namespace.clone(), task.target.agent()?.clone()))?;
            agent.spec.runtime.as_ref()?.kind.as_ref().map(kind)
        })
    }
}

/// Returns the newest checkpoint of a task; one that has left none has that which it has continued itself. Fails if it may be in a
/// damaged list: another task would continue older work without notice.
pub(crate) async fn checkpoint_of(store: &StoreClient, task: &Task) -> Result<Option<ArtifactList>, Status> {
    let mut found = artifacts::newest(store, task, checkpoint).await?;
    let changes = found.as_mut().and_then(|list| list.changes.as_mut());
    if let Some(changes) = changes.filter(|changes| !changes.pushed && task.has_result) {
        // The list is written before the push, and again after it, if it can be.
        let result = store.reads().result(task.key).await.map_err(status::store)?;
        let result = result.and_then(|bytes| v1::TaskResult::decode(&bytes[..]).ok());
        let delivery = result.and_then(|result| result.delivery);
        changes.pushed = delivery.is_some_and(|delivery| {
            delivery.outcome() == v1::DeliveryOutcome::Delivered && delivery.commit == changes.commit
        });
    }
    Ok(found)
}

/// Whether a task was run by another agent than that of the task which continues it, or may have been: of one for capabilities, the
/// agent that has run it is not recorded.
pub(crate) fn is_of_other_agent(before: &Task, task: &Task) -> bool {
    before.target.agent().is_none() || before.target.agent() != task.target.agent()
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Claude(_) => "claude",
        Kind::Command(_) => "command",
        Kind::Scripted(_) => "scripted",
        Kind::External(_) => "external",
    }
}

/// Returns what of a list a later attempt continues from.
pub(crate) fn checkpoint(list: ArtifactList) -> Option<ArtifactList> {
    let checkpoint = list.checkpoint.filter(|checkpoint| !checkpoint.unusable)?;
    let mut artifacts = list.artifacts;
    let changes = list.changes.map(|changes| v1::Changes { patch: String::new(), ..changes });
    let bundle = changes.as_ref().map(|changes| changes.bundle.clone()).unwrap_or_default();
    let wanted = |name: &str| within(name, CHECKPOINT).is_some() || name == bundle || name == BRANCHES;
    artifacts.retain(|artifact| wanted(&artifact.name));
    Some(ArtifactList { artifacts, changes, checkpoint: Some(checkpoint), ..ArtifactList::default() })
}

pub(crate) fn no_checkpoint(id: TaskId) -> Status {
    let text = format!("task {id} has left no checkpoint to continue from");
    let hint = "tasks of the runtime `claude` leave one at the end of each attempt, and every few minutes before; those of the runtime \
                `command` if they write files into $ROTA_CHECKPOINT: see `rota artifacts`";
    hinted(reasons::NO_CHECKPOINT, text, hint)
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{Artifact, Changes, Checkpoint};

    use super::*;

    #[test]
    fn checkpoint_has_only_what_is_needed() {
        let artifact = |name: &str| Artifact { name: name.to_owned(), ..Artifact::default() };
        let names = ["checkpoint/c.jsonl", "git/changes.bundle", "git/changes.patch", "output/a"];
        let changes = Changes {
            patch: "git/changes.patch".to_owned(),
            bundle: "git/changes.bundle".to_owned(),
            pushed: true,
            ..Changes::default()
        };
        let list = ArtifactList {
            artifacts: names.map(artifact).into(),
            changes: Some(changes),
            checkpoint: Some(Checkpoint { conversation: "c".to_owned(), unusable: false }),
            ..ArtifactList::default()
        };
        assert_eq!(checkpoint(ArtifactList { checkpoint: None, ..list.clone() }), None);
        let unusable = Some(Checkpoint { unusable: true, ..Checkpoint::default() });
        assert_eq!(checkpoint(ArtifactList { checkpoint: unusable, ..list.clone() }), None);
        let kept = checkpoint(list).unwrap();
        let names: Vec<_> = kept.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["checkpoint/c.jsonl", "git/changes.bundle"]);
        let changes = kept.changes.unwrap();
        assert!(changes.patch.is_empty() && changes.pushed, "the branch is known");
    }
}
