//! Notifications: messages to receivers outside of Rota (webhooks, Slack) about tasks that wait for a person, have failed for
//! good, or have nearly spent their budget, and about workflows that wait for a person or have ended: at least once, and in the
//! order of its log for each task. Browsers that are subscribed (Web Push) are notified of what waits for a person, in two attempts
//! at most.
//!
//! A commit leaves its occasions in the bounded queue of each receiver. What no longer fits, and what was committed before a
//! start, is read from the feed of the store, from a durable position on. A receiver that is slow or down delays no other one,
//! and neither commits nor watchers. Knows the records, and no transport of Rota's own.

mod address;
mod cursor;
mod deliver;
mod message;
mod queue;
mod receivers;
mod send;
mod sign;
mod sink;
mod snapshot;
mod taken;
mod vapid;
mod web_push;
mod workflow_queue;
mod workflows;

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::{Commit, Snapshot};
use tokio_util::sync::CancellationToken;

use self::cursor::Cursor;
use self::deliver::Delivery;
use self::queue::Queue;
pub use self::receivers::{NotificationsError, Receiver};
use self::sink::Sink;
pub(crate) use self::web_push::WebPush;
pub use self::web_push::WebPushOptions;
use self::workflow_queue::WorkflowQueue;
use crate::clock::now;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store_client::StoreClient;

/// Time for which a receiver must have been failing before it counts as a problem of this replica.
const PROBLEM_AFTER: Duration = Duration::from_secs(30);

/// The receivers with their queues.
#[derive(Default)]
pub(crate) struct Notifier {
    deliveries: Vec<Delivery>,
}

impl Notifier {
    /// Opens the position of each receiver; one without begins with the next commit.
    pub(crate) async fn open(
        receivers: Vec<Receiver>,
        web_push: Option<&Arc<WebPush>>,
        store: &StoreClient,
        snapshot: &Snapshot,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, Error> {
        let mut deliveries = Vec::new();
        let browsers = web_push.cloned().map(Sink::browsers);
        for sink in receivers.into_iter().map(Sink::receiver).chain(browsers) {
            let sink = sink?;
            let (cursor, revision, at) = Cursor::open(store, sink.name(), snapshot).await?;
            // Without a subscription, nothing was missed.
            let (revision, at) = if sink.is_idle() { (snapshot.revision, None) } else { (revision, at) };
            let queue = Queue::new(revision, snapshot.revision);
            let workflows = WorkflowQueue::new(at, now());
            deliveries.push(Delivery::new(sink, queue, workflows, cursor, Arc::clone(metrics)));
        }
        Ok(Arc::new(Self { deliveries }))
    }

    /// Takes in the occasions of a commit. Looks for none without receivers, and never waits.
    pub(crate) fn observe(&self, commit: &Commit) {
        if self.deliveries.is_empty() {
            return;
        }
        let (mut found, mut of_workflows) = (Vec::new(), Vec::new());
        if !self.deliveries.iter().all(Delivery::is_idle) {
            found.extend(commit.tasks.iter().flat_map(message::of_change).map(Arc::new));
            of_workflows = workflows::of_commit(commit);
        }
        for delivery in &self.deliveries {
            delivery.observe(commit.revision, &found, &of_workflows);
        }
    }

    /// Delivers to all receivers until `stop` is cancelled.
    pub(crate) async fn run(self: Arc<Self>, store: StoreClient, stop: CancellationToken) {
        let names: Vec<_> = self.deliveries.iter().map(Delivery::name).collect();
        let removed = stop.run_until_cancelled(cursor::remove_others(&store, &names)).await;
        if let Some(Err(error)) = removed {
            tracing::warn!(%error, "failed to remove positions of receivers that no longer exist");
        }
        let all = self.deliveries.iter().map(|delivery| delivery.run(&store));
        stop.run_until_cancelled(futures::future::join_all(all)).await;
        if self.deliveries.is_empty() {
            stop.cancelled().await;
        }
    }

    /// Returns the receivers that have been failing for a while, with the last error of each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, Timestamp, String)> {
        let before = now() - PROBLEM_AFTER;
        let problem = move |delivery: &'_ Delivery| delivery.problem().filter(|(since, _)| *since <= before);
        self.deliveries.iter().filter_map(move |delivery| {
            problem(delivery).map(|(since, error)| (delivery.name(), since, error))
        })
    }
}
