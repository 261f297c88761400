//! Deliveries to one receiver: a few at a time, those of one task or workflow in order, each until it is accepted, refused for good, or too
//! old. One that fails delays no others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rota_core::{Namespace, Timestamp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::cursor::Cursor;
use super::message::{Notification, Place};
use super::queue::Queue;
use super::send::{About, MAX_WAIT, Unsent};
use super::sink::{MIN_TIME, Sink};
use super::taken::Taken;
use super::workflow_queue::WorkflowQueue;
use super::workflows;
use crate::clock::now;
use crate::metrics::Metrics;
use crate::store_client::StoreClient;

/// Requests to a receiver at a time.
const PLACES: usize = 8;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Answers that refuse a notification before it is given up.
const MAX_REFUSALS: u32 = 5;
/// Time in which nothing of a full memory was delivered or given up, after which one namespace may make room for others.
const MAX_STALL: Duration = Duration::from_secs(60);
/// Time after the last failure of a receiver in which nothing is sent again: what was refused then was given up.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Wait after a failed read of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// One receiver with its queue.
pub(super) struct Delivery {
    sink: Sink,
    queue: Queue,
    workflows: WorkflowQueue,
    cursor: Cursor,
    moved: Notify,
    places: Semaphore,
    /// Notifications that the receiver has accepted.
    accepted: AtomicU64,
    metrics: Arc<Metrics>,
    problem: Mutex<Option<Problem>>,
    failures: Failures,
}

/// How the deliveries to a receiver fail.
#[derive(Debug, Clone)]
struct Problem {
    since: Timestamp,
    last: Timestamp,
    error: String,
}

impl Problem {
    /// Whether nothing has failed for long. Deliveries that fail are repeated within minutes.
    fn is_over(&self, now: Timestamp) -> bool {
        self.last + FORGOTTEN_AFTER <= now
    }
}

/// Last failure of each namespace with notifications that are sent again.
#[derive(Debug, Default)]
struct Failures(Mutex<BTreeMap<Namespace, About>>);

impl Failures {
    fn failed(&self, namespace: &Namespace, about: About) {
        self.0.lock().insert(namespace.clone(), about);
    }

    /// Notes the end of a delivery.
    fn ended(&self, namespace: &Namespace) {
        self.0.lock().remove(namespace);
    }

    /// Whether the failures are about the notifications of one namespace: not about the receiver, and of no other namespace, as in
    /// an outage of a receiver that answers 500.
    fn are_about(&self, namespace: &Namespace) -> bool {
        let failing = self.0.lock();
        failing.len() == 1 && failing.get(namespace).is_some_and(|about| *about != About::Receiver)
    }
}

impl Delivery {
    pub(super) fn new(
        sink: Sink,
        queue: Queue,
        workflows: WorkflowQueue,
        cursor: Cursor,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (moved, problem, failures) = (Notify::new(), Mutex::default(), Failures::default());
        let (places, accepted) = (Semaphore::new(PLACES), AtomicU64::new(0));
        Self { sink, queue, workflows, cursor, moved, places, accepted, metrics, problem, failures }
    }

    pub(super) fn name(&self) -> &str {
        self.sink.name()
    }

    /// Whether nothing is wanted of any commit.
    pub(super) fn is_idle(&self) -> bool {
        self.sink.is_idle()
    }

    /// Returns since when and how deliveries fail; `None` if the last one succeeded or is long ago, or no operator can repair it.
    pub(super) fn problem(&self) -> Option<(Timestamp, String)> {
        let problem = self.problem.lock().clone();
        let problem = problem.filter(|problem| self.sink.is_operated() && !problem.is_over(now()))?;
        Some((problem.since, problem.error))
    }

    /// Takes in the occasions of a commit.
    pub(super) fn observe(
        &self,
        revision: u64,
        found: &[Arc<Notification>],
        of_workflows: &[workflows::Place],
    ) {
        if !self.is_idle() {
            self.workflows.observe(of_workflows);
        }
        let wanted = found.iter().filter(|one| self.sink.wants(one));
        if self.queue.observe(revision, wanted.cloned()) {
            self.moved.notify_one();
        }
    }

    /// Delivers what the queue has, and never returns.
    pub(super) async fn run(&self, store: &StoreClient) {
        tokio::join!(self.distribute(store), self.save());
    }

    /// Delivers notifications of different tasks and workflows concurrently, and those of one of them one after the other.
    async fn distribute(&self, store: &StoreClient) {
        let (mut deliveries, mut taken) = (FuturesUnordered::new(), Taken::default());
        // Kept while others end: it may be reading the store.
        let next = self.next(store);
        tokio::pin!(next);
        let mut is_used = false;
        loop {
            is_used |= !self.is_idle();
            if is_used {
                self.metrics.notifications_waiting(self.name(), self.queue.len() + self.workflows.len());
                self.moved.notify_one();
            }
            tokio::select! {
                Some(done) = deliveries.next() => {
                    let done: Arc<Notification> = done;
                    self.done(&done);
                    deliveries.extend(taken.done(&done).map(|next| self.deliver(next)));
                }
                one = &mut next, if taken.has_room() => {
                    next.set(self.next(store));
                    deliveries.extend(taken.take(one).map(|one| self.deliver(one)));
                }
                // One namespace must not keep those of others from being read. An outage of the receiver is waited for.
                () = tokio::time::sleep(MAX_STALL), if !taken.has_room() => {
                    let fullest = taken.fullest().filter(|fullest| {
                        self.failures.are_about(fullest) && self.queue.has_others(fullest)
                    });
                    for one in fullest.map(|fullest| taken.give_up(&fullest)).unwrap_or_default() {
                        self.give_up(&one, "too many of its namespace wait behind others that are not accepted");
                        self.done(&one);
                    }
                }
            }
        }
    }

    fn done(&self, one: &Notification) {
        match one.place {
            Place::Feed(revision, log_seq) => self.queue.done((revision, log_seq)),
            Place::Workflow(place) => self.workflows.done(place),
        }
    }

    /// Returns the next notification of the queues.
    async fn next(&self, store: &StoreClient) -> Arc<Notification> {
        loop {
            let next = tokio::select! {
                next = self.workflows.next(&self.sink, store) => next,
                next = self.queue.next(&self.sink, store) => next,
            };
            match next {
                Ok(next) => return next,
                Err(error) => {
                    tracing::warn!(receiver = self.name(), %error, "failed to read what to notify of, retrying");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }

    /// Writes the position at the start, and whenever it has moved.
    async fn save(&self) {
        let mut saved = None;
        loop {
            self.moved.notified().await;
            // Of workflows, those without a subscription have missed nothing.
            let at = if self.is_idle() { now() } else { self.workflows.position() };
            let position = (self.queue.position(), at);
            if saved == Some(position) {
                continue;
            }
            match self.cursor.save(position.0, position.1).await {
                Ok(()) => saved = Some(position),
                Err(error) => {
                    tracing::warn!(receiver = self.name(), %error, "failed to keep the position of a receiver");
                }
            }
        }
    }

    /// Sends a notification until it is accepted or given up, and returns it.
    async fn deliver(&self, one: Arc<Notification>) -> Arc<Notification> {
        let age = Duration::from_micros(u64::try_from(now().0.saturating_sub(one.at.0)).unwrap_or_default());
        let backoff = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(MAX_WAIT)
            .without_max_times()
            .with_total_delay(Some(self.sink.time_for(age)));
        let (began, refusals) = (Instant::now(), AtomicU32::new(0));
        let accepted_before = self.accepted.load(Ordering::Relaxed);
        let is_worth_it = |unsent: &Unsent| match unsent.about {
            About::Message => refusals.fetch_add(1, Ordering::Relaxed) + 1 < MAX_REFUSALS,
            // The receiver takes others.
            About::Either => {
                began.elapsed() < MIN_TIME || self.accepted.load(Ordering::Relaxed) == accepted_before
            }
            About::Receiver => true,
        };
        let attempt = || async {
            // Waits between attempts hold no place.
            let _place = self.places.acquire().await;
            self.sink.send(&one).await
        };
        let sent = attempt
            .retry(backoff)
            .sleep(tokio::time::sleep)
            .when(is_worth_it)
            .adjust(|unsent, wait| wait.map(|wait| wait.max(unsent.after.unwrap_or_default())))
            .notify(|unsent, wait| {
                let (receiver, error) = (self.name(), &unsent.message);
                tracing::debug!(
                    receiver,
                    id = one.id(),
                    error,
                    ?wait,
                    "a notification was not accepted, retrying"
                );
                self.metrics.notified(receiver, "retried");
                self.failures.failed(&one.namespace, unsent.about);
                self.fails(error.clone());
            })
            .await;
        self.failures.ended(&one.namespace);
        match sent {
            Ok(()) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                self.metrics.notified(self.name(), "delivered");
                *self.problem.lock() = None;
            }
            Err(unsent) => self.give_up(&one, &unsent.message),
        }
        one
    }

    fn give_up(&self, one: &Notification, error: &str) {
        self.metrics.notified(self.name(), "dropped");
        tracing::warn!(receiver = self.name(), id = one.id(), error, "a notification is given up");
        self.fails(format!("a message was given up: {error}"));
    }

    /// Takes in that the last delivery has failed.
    fn fails(&self, error: String) {
        let mut problem = self.problem.lock();
        let last = now();
        let since =
            problem.as_ref().filter(|problem| !problem.is_over(last)).map_or(last, |problem| problem.since);
        *problem = Some(Problem { since, last, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It may be weeks until the next one.
    #[test]
    fn message_that_was_given_up_is_forgotten() {
        let problem = Problem { since: Timestamp(0), last: Timestamp(1_000_000), error: String::new() };
        assert!(!problem.is_over(problem.last + FORGOTTEN_AFTER - Duration::from_secs(1)));
        assert!(problem.is_over(problem.last + FORGOTTEN_AFTER));
    }

    #[test]
    fn outage_is_about_no_namespace() {
        let [one, other] = ["one", "other"].map(|name| Namespace::new(name).unwrap());
        let failures = Failures::default();
        assert!(!failures.are_about(&one));
        failures.failed(&one, About::Receiver);
        assert!(!failures.are_about(&one));
        failures.failed(&one, About::Either);
        assert!(failures.are_about(&one) && !failures.are_about(&other));
        failures.failed(&other, About::Either);
        assert!(!failures.are_about(&one), "the receiver fails with all");
        failures.ended(&other);
        assert!(failures.are_about(&one));
    }
}
