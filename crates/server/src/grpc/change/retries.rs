//! Retries of a page of tasks: each after those that it depends on, also where these are on later pages.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rota_core::task::{self, DependencyState, State, Task};
use rota_core::{Namespace, TaskId, TaskKey};
use rota_proto::v1;
use tonic::Status;

use super::Change;
use crate::creation::Prepared;
use crate::grpc::retry::Copies;
use crate::wire::status::store;

/// Bytes of the specifications that one commit copies, and of one more.
const MAX_COPIED: usize = 4 << 20;
/// Copies of one commit: few, so that other commands hardly wait.
const MAX_IN_COMMIT: usize = 100;
/// Dependencies on other pages that are looked up for a page.
const MAX_LOOKED_UP: usize = 1000;

/// Copies that are created with the next commit.
#[derive(Default)]
struct Batch {
    prepared: Vec<Prepared>,
    originals: Vec<Task>,
    bytes: usize,
}

/// What has become of the tasks of a page.
struct Outcome {
    /// Tasks of the page. Others are counted with their own one, where their key finds the copy.
    counted: HashSet<TaskKey>,
    copies: Copies,
    results: Vec<Result<(), Status>>,
}

impl Change<'_> {
    pub(super) async fn retry(&self, found: &[Task], key: &str) -> Result<Vec<Result<(), Status>>, Status> {
        let creator = self.tasks.creator.of_batch();
        let counted = found.iter().map(|task| task.key).collect();
        let mut outcome = Outcome { counted, copies: Copies::new(), results: Vec::new() };
        let mut batch = Batch::default();
        for old in self.in_order(found).await? {
            let is_full = batch.prepared.len() >= MAX_IN_COMMIT || batch.bytes >= MAX_COPIED;
            if is_full || batch.has_dependency_of(&old) {
                self.commit(&mut batch, &mut outcome).await?;
            }
            let trace = task::Trace { span_id: rand::random(), ..self.trace.clone() };
            let idempotency_key = format!("{key}-{}", old.id);
            let request = v1::RetryTaskRequest { idempotency_key, ..Default::default() };
            let copy =
                self.tasks.prepare_copy(&creator, &old, request, trace, self.scope, &outcome.copies).await;
            match copy {
                Ok(ready) => {
                    batch.bytes += ready.command.payload.len();
                    batch.prepared.push(ready);
                    batch.originals.push(old);
                }
                Err(status) => outcome.add(&old, Err(status)),
            }
        }
        self.commit(&mut batch, &mut outcome).await?;
        Ok(outcome.results)
    }

    async fn commit(&self, batch: &mut Batch, outcome: &mut Outcome) -> Result<(), Status> {
        let Batch { prepared, originals, .. } = std::mem::take(batch);
        if prepared.is_empty() {
            return Ok(());
        }
        let answers = self.tasks.creator.commit(prepared).await?;
        for (old, answer) in originals.into_iter().zip(answers) {
            if let Ok(copy) = &answer
                && let Ok(id) = copy.uid.parse::<TaskId>()
            {
                outcome.copies.insert((old.namespace.clone(), old.id), id);
            }
            outcome.add(&old, answer.map(drop));
        }
        Ok(())
    }

    /// Returns these tasks, and those that they depend on and that this change repeats as well, each after its dependencies.
    async fn in_order(&self, found: &[Task]) -> Result<Vec<Task>, Status> {
        let mut known: BTreeMap<TaskKey, Task> = found.iter().map(|task| (task.key, task.clone())).collect();
        let mut keys: HashMap<_, _> = found.iter().map(|task| (reference(task), task.key)).collect();
        let mut looked_up: HashSet<(Namespace, TaskId)> = HashSet::new();
        let mut latest: Vec<Task> = found.to_vec();
        // No more than the caller expects are repeated, with those of the pages before.
        let begun = self.position.attempted.saturating_add(found.len() as u64);
        let left = self.expected.map_or(u64::MAX, |expected| expected.saturating_sub(begun));
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        while !latest.is_empty() {
            let needed: BTreeSet<_> = latest.iter().flat_map(unsuccessful).collect();
            let mut candidates = Vec::new();
            for named in needed {
                if keys.contains_key(&named) || looked_up.len() >= MAX_LOOKED_UP {
                    continue;
                }
                if looked_up.insert(named.clone())
                    && let Some(task) = self.tasks.store.record(&named.0, named.1).await?
                {
                    candidates.push(task.key);
                }
            }
            latest = self.covered(candidates).await?;
            latest.truncate(left);
            left -= latest.len();
            for task in &latest {
                keys.insert(reference(task), task.key);
                known.insert(task.key, task.clone());
            }
        }
        let mut ordered = Vec::with_capacity(known.len());
        let mut visited = HashSet::new();
        // The oldest is on top.
        let mut stack: Vec<_> = known.keys().rev().map(|key| (*key, false)).collect();
        while let Some((key, follows)) = stack.pop() {
            if follows {
                ordered.extend(known.remove(&key));
            } else if visited.insert(key)
                && let Some(task) = known.get(&key)
            {
                stack.push((key, true));
                let needed = unsuccessful(task).filter_map(|named| keys.get(&named));
                stack.extend(needed.map(|key| (*key, false)));
            }
        }
        Ok(ordered)
    }

    /// Returns those of these tasks that the change repeats.
    async fn covered(&self, mut keys: Vec<TaskKey>) -> Result<Vec<Task>, Status> {
        if let Some((newest, oldest)) = self.position.counted {
            keys.retain(|key| (oldest..=newest).contains(key));
        }
        if let Some(only) = &self.filter.keys {
            keys.retain(|key| only.contains(key));
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = self.filter.clone();
        (filter.before, filter.limit, filter.keys) = (None, keys.len(), Some(keys));
        let page = self.tasks.store.reads().list(filter).await.map_err(store)?;
        Ok(page.tasks.into_iter().filter(|task| self.scope.contains(task)).collect())
    }
}

impl Batch {
    fn has_dependency_of(&self, task: &Task) -> bool {
        let needed: HashSet<_> = unsuccessful(task).collect();
        self.originals.iter().any(|original| needed.contains(&reference(original)))
    }
}

impl Outcome {
    fn add(&mut self, old: &Task, result: Result<(), Status>) {
        if self.counted.contains(&old.key) {
            self.results.push(result);
        }
    }
}

fn reference(task: &Task) -> (Namespace, TaskId) {
    (task.namespace.clone(), task.id)
}

/// Returns the dependencies of a task that had not succeeded when it ended.
fn unsuccessful(task: &Task) -> impl Iterator<Item = (Namespace, TaskId)> {
    let others = task
        .dependencies
        .iter()
        .filter(|dependency| !matches!(dependency.state, DependencyState::Ended(_, State::Succeeded)));
    others.filter_map(|dependency| Some((task.namespace.clone(), dependency.id()?)))
}
