//! Follows the pull and merge requests that tasks have delivered: checks that fail, and comments, continue the conversation in another
//! task. Looks at each request at an interval, with a token that only the control plane has. Off unless a file names repositories.
//!
//! A task that has succeeded is continued once at most, by a key of its creation, so nothing else is stored: after a start, the tasks of
//! the last two weeks are looked through.

mod message;
mod request;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use rota_core::Namespace;
use rota_core::task::{State, Task};
use rota_forge::Error;
use rota_store::{Commit, Filter};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use self::request::{Next, Watched};
pub use self::settings::{Follow, FollowError};
use crate::clock::now;
use crate::creation::Creator;

/// Repositories whose requests are looked at concurrently.
const MAX_CONCURRENT: usize = 8;
/// Tasks that have succeeded and whose requests were not looked for yet. Those beyond it are found with the next start.
const MAX_WAITING: usize = 1024;
/// Requests that are followed. The oldest ones make room.
const MAX_WATCHED: usize = 256;
/// Time for which a request is followed after the last task has worked on it.
const MAX_AGE: Duration = Duration::from_hours(14 * 24);
const PAGE: usize = 100;

/// Where commits leave the tasks that have succeeded in these namespaces.
#[derive(Default)]
pub(crate) struct Successes(Option<(Vec<Namespace>, mpsc::Sender<Arc<Task>>)>);

/// Looks at requests at an interval, and continues tasks.
pub(crate) struct Follower {
    looks: Looks,
    successes: mpsc::Receiver<Arc<Task>>,
}

struct Looks {
    follow: Follow,
    creator: Creator,
    requests: Mutex<Requests>,
    /// Whether all tasks of the last two weeks that have succeeded were looked through.
    scanned: AtomicBool,
}

impl Successes {
    /// Takes in a commit. Costs nothing without repositories, and never waits.
    pub(crate) fn observe(&self, commit: &Commit) {
        let Some((namespaces, sender)) = &self.0 else { return };
        for change in &commit.tasks {
            let task = &change.task;
            let succeeded = task.state == State::Succeeded && change.before != Some(State::Succeeded);
            if succeeded && namespaces.contains(&task.namespace) && sender.try_send(Arc::clone(task)).is_err()
            {
                tracing::warn!(task = %task.id, "too many tasks succeed: its pull request is not followed");
            }
        }
    }
}

/// Returns what follows requests, if any are to be followed, and where commits leave tasks for it.
pub(crate) fn follow(follow: Option<Follow>, creator: &Creator) -> (Successes, Option<Follower>) {
    let Some(follow) = follow.filter(|follow| !follow.repositories.is_empty()) else {
        return (Successes::default(), None);
    };
    let mut namespaces: Vec<_> = follow.repositories.iter().map(|one| one.namespace.clone()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let (sender, successes) = mpsc::channel(MAX_WAITING);
    let looks = Looks {
        follow,
        creator: creator.clone(),
        requests: Mutex::default(),
        scanned: AtomicBool::new(false),
    };
    (Successes(Some((namespaces, sender))), Some(Follower { looks, successes }))
}

/// Runs until `stop` is cancelled.
pub(crate) async fn run(follower: Option<(Follower, TaskMonitor)>, stop: CancellationToken) {
    match follower {
        Some((follower, monitor)) => {
            // Fails only when it is cancelled.
            let _ = stop.run_until_cancelled(Box::pin(follower.run(monitor))).await;
        }
        None => stop.cancelled().await,
    }
}

/// Numbers of a repository and of a request.
type Key = (usize, i64);

/// The requests that are followed.
#[derive(Default)]
struct Requests {
    by_key: HashMap<Key, Watched>,
    /// Repositories whose forge wants to be left alone.
    until: HashMap<usize, Instant>,
}

impl Requests {
    /// Returns the requests in the order in which they are looked at: one whose forge keeps failing is in the way of the others of its
    /// repository for one round.
    fn in_turn(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.by_key.iter().map(|(key, one)| (one.looked, *key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Takes out a request for a look, unless its forge wants to be left alone.
    fn take(&mut self, key: Key) -> Option<Watched> {
        let waits = self.until.get(&key.0).is_some_and(|until| *until > Instant::now());
        if waits { None } else { self.by_key.remove(&key) }
    }

    /// Follows a request by its newest task.
    fn add(&mut self, new: Watched) {
        let key = new.key();
        if self.by_key.get(&key).is_some_and(|known| known.task.created_at > new.task.created_at) {
            return;
        }
        self.by_key.insert(key, new);
        if self.by_key.len() > MAX_WATCHED
            && let Some(oldest) =
                self.by_key.iter().min_by_key(|(_, one)| one.task.created_at).map(|(key, _)| *key)
        {
            self.by_key.remove(&oldest);
        }
    }
}

impl Follower {
    /// Takes in tasks that succeed also while forges are slow to answer.
    async fn run(self, monitor: TaskMonitor) {
        let Self { looks, mut successes } = self;
        let collect = async {
            let mut tasks = Vec::new();
            while successes.recv_many(&mut tasks, PAGE).await > 0 {
                let count = tasks.len();
                if let Err(status) = looks.add(tasks.drain(..).map(Arc::unwrap_or_clone)).await {
                    tracing::warn!(count, %status, "failed to look for the pull requests of tasks");
                    // The next round finds them.
                    looks.scanned.store(false, Ordering::Relaxed);
                }
            }
        };
        tokio::join!(collect, looks.repeat(monitor));
    }
}

impl Looks {
    async fn repeat(&self, monitor: TaskMonitor) {
        let mut looks = tokio::time::interval(self.follow.interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let round = self.round().await;
            // A round takes as long as its forges do: its outcome alone is an activation.
            let activation = monitor.activate();
            match round {
                Ok(()) => activation.succeeded(),
                Err(error) => activation.failed(error),
            }
        }
    }

    /// Follows the requests that tasks have delivered.
    async fn add(&self, tasks: impl IntoIterator<Item = Task>) -> Result<(), Status> {
        let found = Watched::of_all(&self.creator.store, tasks, &self.follow.repositories).await?;
        let mut requests = self.requests.lock();
        found.into_iter().for_each(|watched| requests.add(watched));
        Ok(())
    }

    /// Finds the requests of tasks that have succeeded before this control plane started.
    async fn scan(&self) -> Result<(), Status> {
        let store = &self.creator.store;
        let mut scanned = BTreeSet::new();
        for followed in &self.follow.repositories {
            // Each task is looked at for all repositories.
            if !scanned.insert((&followed.namespace, &followed.labels)) {
                continue;
            }
            let mut filter = Filter {
                namespace: Some(followed.namespace.clone()),
                states: vec![State::Succeeded],
                labels: followed.labels.clone(),
                created_after: Some(now() - MAX_AGE),
                limit: PAGE,
                ..Filter::default()
            };
            loop {
                let page = store.reads().list(filter.clone()).await.map_err(crate::wire::status::store)?;
                self.add(page.tasks).await?;
                filter.before = page.next;
                if filter.before.is_none() || self.requests.lock().by_key.len() >= MAX_WATCHED {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at all requests; at first, finds those of earlier tasks. Returns the first error.
    async fn round(&self) -> Result<(), String> {
        // Set before: what fails meanwhile is found by the next round.
        let mut found = Ok(());
        if !self.scanned.swap(true, Ordering::Relaxed) {
            found = self.scan().await.map_err(|status| {
                self.scanned.store(false, Ordering::Relaxed);
                tracing::warn!(%status, "failed to look for pull requests to follow");
                status.to_string()
            });
        }
        found.and(self.look_at_all().await)
    }

    /// Returns an error of those that there were.
    async fn look_at_all(&self) -> Result<(), String> {
        let mut keys: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
        for key in self.requests.lock().in_turn() {
            keys.entry(key.0).or_default().push(key);
        }
        let looks = stream::iter(keys.into_values().map(|keys| self.look_at(keys)));
        let looks = looks.buffer_unordered(MAX_CONCURRENT);
        looks.fold(Ok(()), |first: Result<(), String>, result| std::future::ready(first.and(result))).await
    }

    /// Looks at the requests of one repository. Returns the first error.
    async fn look_at(&self, keys: Vec<Key>) -> Result<(), String> {
        let mut first = Ok(());
        let quiet = i64::try_from(self.follow.quiet.as_secs()).unwrap_or(i64::MAX);
        let Some(followed) = keys.first().and_then(|key| self.follow.repositories.get(key.0)) else {
            return first;
        };
        let forge = match followed.forge().await {
            Ok(forge) => forge,
            Err(error) => {
                tracing::warn!(url = followed.url, %error, "failed to look at the pull requests of a repository");
                return Err(error.to_string());
            }
        };
        for key in keys {
            let taken = self.requests.lock().take(key);
            let Some(mut watched) = taken else { continue };
            watched.looked = Some(Instant::now());
            let ended = watched.task.ended_at.unwrap_or(watched.task.created_at);
            let next = match watched.look(followed, &forge, quiet).await {
                _ if now().since(ended) > MAX_AGE => Next::Forget,
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(task = %watched.id(), %error, "failed to look at a pull request");
                    first = first.and_then(|()| Err(error.to_string()));
                    // What fails for one request of a repository fails for the others in this round.
                    let wait = match error {
                        Error::Away(_, wait) => Some(wait.unwrap_or(self.follow.interval / 2)),
                        Error::Credentials(_) | Error::Token(_) => Some(self.follow.interval / 2),
                        Error::Refused(_) => None,
                    };
                    if let Some(wait) = wait {
                        self.requests.lock().until.insert(key.0, Instant::now() + wait);
                    }
                    Next::Wait
                }
            };
            let done = match next {
                Next::Wait => false,
                Next::Forget => true,
                Next::Continue(prompt, until) => self.go_on(&watched, prompt, until).await,
            };
            if !done {
                self.requests.lock().add(watched);
            }
        }
        first
    }

    /// Continues a task for its request. Returns whether the request is followed by this task no longer.
    async fn go_on(&self, watched: &Watched, prompt: String, until: i64) -> bool {
        let continued = async {
            if watched.is_continued(&self.creator.store).await? {
                return Ok(None);
            }
            watched.go_on(&self.creator, prompt, until).await.map(Some)
        };
        match continued.await {
            // Once that task has succeeded, it is the one that is followed.
            Ok(None) => false,
            Ok(Some(task)) => {
                tracing::info!(task = %watched.id(), by = task.name, "a pull request continues a task");
                true
            }
            Err(status) => {
                tracing::warn!(task = %watched.id(), %status, "failed to continue a task for its pull request");
                is_final(status.code())
            }
        }
    }
}

/// Whether what failed so will not become possible by itself. Anything else, such as a commit that was aborted, is tried again with the
/// next look, for as long as the request is followed.
fn is_final(code: Code) -> bool {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};
    matches!(code, AlreadyExists | FailedPrecondition | InvalidArgument | NotFound | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_failures_end_no_following() {
        use Code::*;
        for passing in
            [Unavailable, ResourceExhausted, Aborted, Internal, Unknown, DeadlineExceeded, DataLoss]
        {
            assert!(!is_final(passing), "{passing:?}");
        }
        for lasting in [InvalidArgument, NotFound, FailedPrecondition, PermissionDenied] {
            assert!(is_final(lasting), "{lasting:?}");
        }
    }
}
