//! A request that is followed: what a task has delivered, and what continues it.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use rota_core::task::{State, Task};
use rota_core::text::prefix;
use rota_core::{TaskId, TaskKey};
use rota_forge::{Comment, Error, Forge, Pages};
use rota_proto::labels::{FOLLOWED, FOLLOWED_UNTIL};
use rota_proto::{Continuation, continuation, names, v1};
use rota_store::{Filter, TaskBody};
use tokio::time::Instant;
use tonic::Status;

use super::PAGE;
use super::message::message;
use super::settings::{Authors, Followed};
use crate::clock::now;
use crate::creation::{Creator, Scope};
use crate::sessions::is_own_branch;
use crate::spans::root_trace;
use crate::store_client::{StoreClient, no_reply};
use crate::wire;
use crate::wire::check::{MAX_TITLE, OWN_KEYS};

/// Bytes of payloads or results that one read returns, but for a large last one.
const READ_BYTES: u64 = 4 << 20;
/// Pages that are read of the tasks that may continue the task of a request.
const MAX_PAGES: usize = 10;
/// Users of whom one look asks whether they may write. The next one asks about others.
const MAX_ASKED: usize = 100;

/// A request, and the task that has worked on it last.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) task: Task,
    /// Number of its repository in the settings.
    pub(super) repository: usize,
    number: i64,
    branch: String,
    commit: String,
    /// Times that tasks were continued for it.
    count: u32,
    /// Comments from before that time were considered, in seconds since 1970.
    since: i64,
    pages: Pages,
    writers: HashMap<String, bool>,
    /// When it was looked at last.
    pub(super) looked: Option<Instant>,
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// The request is followed no longer.
    Forget,
    /// To continue the task with this message. Comments before that time are part of it.
    Continue(String, i64),
}

impl Watched {
    /// Returns the requests that tasks have delivered, as far as their repositories are followed. Results are read together, and the
    /// payloads of those with a request.
    pub(super) async fn of_all(
        store: &StoreClient,
        tasks: impl IntoIterator<Item = Task>,
        repositories: &[Followed],
    ) -> Result<Vec<Self>, Status> {
        let may_have_one = |task: &Task| {
            let is_over = task.state == State::Succeeded && task.has_result;
            is_over && repositories.iter().any(|followed| is_watched(followed, task))
        };
        let tasks = tasks.into_iter().filter(may_have_one);
        let mut tasks: BTreeMap<_, _> = tasks.map(|task| (task.key, task)).collect();
        let mut delivered = BTreeMap::new();
        let with_request = |key: TaskKey, result: Bytes| {
            let delivery = v1::TaskResult::decode(result).ok().and_then(|result| result.delivery);
            let delivery = delivery.filter(|delivery| delivery.pull_request.is_some());
            delivered.extend(delivery.map(|delivery| (key, delivery)));
        };
        for_each(store, TaskBody::Result, tasks.keys().copied().collect(), with_request).await?;
        let (keys, mut found) = (delivered.keys().copied().collect(), Vec::new());
        let with_payload = |key: TaskKey, payload: Bytes| {
            if let (Some(task), Some(delivery)) = (tasks.remove(&key), delivered.remove(&key)) {
                found.extend(Self::of(task, delivery, payload, repositories));
            }
        };
        for_each(store, TaskBody::Payload, keys, with_payload).await?;
        Ok(found)
    }

    /// Returns the request that a task has delivered, if its repository is followed.
    fn of(task: Task, delivery: v1::Delivery, payload: Bytes, repositories: &[Followed]) -> Option<Self> {
        let request = delivery.pull_request.unwrap_or_default();
        // They are a worker's, and become parts of calls of the forge with the token of the control plane.
        let are_names = names::is_commit(&delivery.commit) && names::is_branch(&delivery.branch);
        if request.number <= 0 || !are_names {
            tracing::warn!(task = %task.id, "its pull request is not followed: number, branch or commit are of no delivery");
            return None;
        }
        let spec = v1::TaskSpec::decode(payload).unwrap_or_default();
        let continues = task.thread.is_some() || !spec.continue_from.is_empty() && !spec.fork;
        if !continues && !is_own_branch(&task, &delivery.branch) {
            tracing::warn!(task = %task.id, branch = delivery.branch, "its pull request is not followed: the branch is of another task");
            return None;
        }
        let url =
            spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref()).map(|git| git.url.clone());
        let is_of = |followed: &Followed| url.as_ref() == Some(&followed.url) && is_watched(followed, &task);
        let repository = repositories.iter().position(is_of)?;
        if !spec.secret_names.is_empty() {
            tracing::warn!(task = %task.id, "its pull request is not followed: the task has secrets of its own, which no other task gets");
            return None;
        }
        let number = |label: &str| task.labels.get(label).and_then(|value| value.parse().ok());
        let count = number(FOLLOWED).and_then(|count: i64| u32::try_from(count).ok()).unwrap_or(0);
        let since = number(FOLLOWED_UNTIL).unwrap_or(task.created_at.0 / 1_000_000);
        Some(Self {
            repository,
            number: request.number,
            branch: delivery.branch,
            commit: delivery.commit,
            count,
            since,
            pages: Pages::default(),
            writers: HashMap::new(),
            looked: None,
            task,
        })
    }

    /// Identifies the request, whichever tasks have worked on it.
    pub(super) fn key(&self) -> (usize, i64) {
        (self.repository, self.number)
    }

    pub(super) fn id(&self) -> TaskId {
        self.task.id
    }

    /// Looks at the request, and decides what is to be done about it.
    pub(super) async fn look(
        &mut self,
        followed: &Followed,
        forge: &Forge,
        quiet: i64,
    ) -> Result<Next, Error> {
        if self.count >= followed.max_continuations {
            let (task, count) = (self.task.id, self.count);
            tracing::info!(%task, count, "its pull request has continued tasks often enough, and is followed no longer");
            return Ok(Next::Forget);
        }
        let review = forge.review(self.number, self.since, &mut self.pages).await?;
        if !review.open || !review.own || review.branch != self.branch {
            return Ok(Next::Forget);
        }
        // Someone else works on the branch, which no task may overwrite.
        if review.commit != self.commit {
            return Ok(Next::Wait);
        }
        let failed = if followed.checks && !review.pending { review.failed } else { Vec::new() };
        let comments = match followed.comments {
            Authors::None => Vec::new(),
            Authors::All => review.comments,
            Authors::Writers => self.of_writers(forge, review.comments).await?,
        };
        let newest = comments.last().map_or(0, |comment| comment.at);
        if failed.is_empty() && comments.is_empty() || now().0 / 1_000_000 - newest < quiet {
            return Ok(Next::Wait);
        }
        // The page of the request is what a worker has written.
        let request = format!("{} number {}", followed.url, self.number);
        let (message, taken) = message(&request, &failed, &comments);
        Ok(Next::Continue(message, until(self.since, &comments, taken)))
    }

    /// Returns the comments of those who may write to the repository, up to the first one whose author is to be asked about later.
    async fn of_writers(&mut self, forge: &Forge, comments: Vec<Comment>) -> Result<Vec<Comment>, Error> {
        {
            let authors: HashSet<_> = comments.iter().map(|comment| comment.author.as_str()).collect();
            self.writers.retain(|author, _| authors.contains(author.as_str()));
        }
        let (mut found, mut asked, mut refused) = (Vec::new(), 0, false);
        for comment in comments {
            let may = match self.writers.get(&comment.author).copied() {
                Some(may) => may,
                None if refused => false,
                None if asked == MAX_ASKED => break,
                None => match forge.may_write(&comment).await {
                    Ok(may) => {
                        asked += 1;
                        self.writers.insert(comment.author.clone(), may);
                        may
                    }
                    // The request itself was read: its checks count.
                    Err(Error::Credentials(error)) => {
                        tracing::warn!(task = %self.task.id, author = comment.author, error, "comments are left out: the token cannot read who may write to the repository");
                        refused = true;
                        false
                    }
                    Err(error) => return Err(error),
                },
            };
            if may {
                found.push(comment);
            }
        }
        Ok(found)
    }

    /// Whether a task that has not ended continues this one already: another message would start a second agent on the same branch.
    pub(super) async fn is_continued(&self, store: &StoreClient) -> Result<bool, Status> {
        let mut filter = Filter {
            namespace: Some(self.task.namespace.clone()),
            states: State::ALL.into_iter().filter(|state| !state.is_final()).collect(),
            created_after: Some(self.task.created_at),
            limit: PAGE,
            ..Filter::default()
        };
        let (id, alias) = (self.task.id.to_string(), self.task.alias.clone().unwrap_or_default());
        let mut found = false;
        for _ in 0..MAX_PAGES {
            let page = store.reads().list(filter.clone()).await.map_err(wire::status::store)?;
            let keys = page.tasks.iter().map(|task| task.key).collect();
            let continues = |_, payload: Bytes| {
                let spec = v1::TaskSpec::decode(payload).unwrap_or_default();
                found |= !spec.fork
                    && (spec.continue_from == id || !alias.is_empty() && spec.continue_from == alias);
            };
            for_each(store, TaskBody::Payload, keys, continues).await?;
            filter.before = page.next;
            if found || filter.before.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Creates the task that continues: once, however often this is called.
    pub(super) async fn go_on(
        &self,
        creator: &Creator,
        prompt: String,
        until: i64,
    ) -> Result<v1::Task, Status> {
        let payload = creator.store.payload(&self.task).await?;
        let before = wire::task::to_wire(&self.task, payload.as_ref(), None);
        let title = title(&before);
        let mut task = continuation(before, prompt, Continuation::InThread);
        // Of the request, and not of the message.
        task.spec.get_or_insert_default().title = title;
        task.labels.insert(FOLLOWED.to_owned(), (self.count + 1).to_string());
        task.labels.insert(FOLLOWED_UNTIL.to_owned(), until.to_string());
        let request = v1::CreateTaskRequest {
            parent: names::namespace(self.task.namespace.as_str()),
            task: Some(task),
            ..v1::CreateTaskRequest::default()
        };
        let namespace = self.task.namespace.clone();
        let prepared = creator.prepare(namespace, root_trace(), request, None, Scope::All).await?;
        let prepared = prepared.once(format!("{OWN_KEYS}follow-{}", self.task.id));
        creator.commit(vec![prepared]).await?.pop().unwrap_or_else(|| Err(no_reply()))
    }
}

/// Returns the time from which on comments are new, in seconds since 1970, after a message with the oldest of these.
fn until(since: i64, comments: &[Comment], taken: usize) -> i64 {
    match (comments.first(), comments.get(taken)) {
        // Those of the same second come again: one after the first at least.
        (Some(first), Some(left)) => left.at.max(first.at + 1),
        _ => comments.last().map_or(since, |last| last.at + 1),
    }
}

/// Returns the title of a task, as its request has it.
fn title(task: &v1::Task) -> String {
    let Some(spec) = &task.spec else { return String::new() };
    let first_line = spec.prompt.trim().lines().next().unwrap_or_default();
    let mut named = [spec.title.as_str(), first_line, task.alias.as_str()].into_iter();
    prefix(named.find(|text| !text.trim().is_empty()).unwrap_or_default(), MAX_TITLE).to_owned()
}

/// Reads the payloads or the results of tasks, a bounded number of bytes at a time.
async fn for_each(
    store: &StoreClient,
    body: TaskBody,
    mut keys: Vec<TaskKey>,
    mut found: impl FnMut(TaskKey, Bytes),
) -> Result<(), Status> {
    while !keys.is_empty() {
        let page = store.reads().bodies(body, keys.clone(), READ_BYTES).await.map_err(wire::status::store)?;
        let bytes: usize = page.iter().map(|(_, body)| body.len()).sum();
        let last = page.last().filter(|_| bytes as u64 >= READ_BYTES).map(|(key, _)| *key);
        page.into_iter().for_each(|(key, body)| found(key, body));
        let read = last.and_then(|last| keys.iter().position(|key| *key == last));
        keys.drain(..read.map_or(keys.len(), |read| read + 1));
    }
    Ok(())
}

/// Whether the tasks of a followed repository have the namespace and the labels of this one.
fn is_watched(followed: &Followed, task: &Task) -> bool {
    followed.namespace == task.namespace
        && followed.labels.iter().all(|(name, value)| task.labels.get(name) == Some(value))
}

#[cfg(test)]
mod reads;
#[cfg(test)]
mod tests;
