//! Demand as the API reports it: for each agent's pool its workers, and the waiting tasks that ask for more.

mod difference;
mod waits;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::Namespace;
use rota_core::quota::CoolDown;
use rota_proto::num;
use rota_proto::{names, v1};
use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use self::waits::Waits;
use super::explain::Explainer;
use super::streams::{Streams, send};
use crate::demand::{Demand, IsolatedTask, PoolStatus, Snapshot};
use crate::keys::AgentKey;
use crate::scheduler::WorkerView;
use crate::store_client::StoreClient;
use crate::wire::time;

/// Messages that may wait for the caller.
const STREAM_BUFFER: usize = 1;
/// Time after which demand is sent without the version of the store, which responds slowly.
const MAX_STORE_WAIT: Duration = Duration::from_secs(2);

/// The last message of each namespace that is watched: made once for all its watchers, and the same one as before unless
/// something in it changed.
#[derive(Debug, Default)]
pub(crate) struct DemandMessages(Mutex<HashMap<Option<Namespace>, Made>>);

#[derive(Debug)]
struct Made {
    message: Arc<v1::WatchDemandResponse>,
    /// Version of the scheduler's state that the message was made of.
    version: u64,
}

impl DemandMessages {
    fn of(
        &self,
        demand: &Demand,
        snapshot: &Snapshot,
        namespace: Option<&Namespace>,
    ) -> Arc<v1::WatchDemandResponse> {
        let (mut made, version) = (self.0.lock(), snapshot.view.version);
        if let Some(last) = made.get(&namespace.cloned()).filter(|last| last.version >= version) {
            return Arc::clone(&last.message);
        }
        let new = v1::WatchDemandResponse {
            demands: demands(demand, snapshot, namespace),
            isolated: isolated(demand, snapshot, namespace),
            ..Default::default()
        };
        // Watchers hold the last message that they have sent; those without watchers are not kept.
        made.retain(|_, last| last.version >= version || Arc::strong_count(&last.message) > 1);
        let before = made.get(&namespace.cloned()).map(|last| &last.message).filter(|last| ***last == new);
        let message = before.map_or_else(|| Arc::new(new), Arc::clone);
        made.insert(namespace.cloned(), Made { message: Arc::clone(&message), version });
        message
    }
}

/// Returns the status of an agent. `message` comes from the component that starts its workers.
pub(super) fn status(
    pool: Option<&PoolStatus>,
    message: String,
    cool_downs: &[Arc<CoolDown>],
) -> v1::AgentStatus {
    let cool_downs = cool_downs.iter().map(|one| cool_down(one)).collect();
    let Some(pool) = pool else { return v1::AgentStatus { message, cool_downs, ..Default::default() } };
    let count = |fits: fn(&WorkerView) -> bool| {
        num::to_i32(pool.workers.iter().filter(|worker| worker.connected && fits(worker)).count())
    };
    let free: usize = pool.workers.iter().map(|worker| worker.free).sum();
    let running: usize = pool.workers.iter().map(|worker| worker.tasks.len()).sum();
    v1::AgentStatus {
        workers: count(|_| true),
        busy_workers: count(|worker| !worker.tasks.is_empty()),
        idle_workers: count(|worker| worker.tasks.is_empty()),
        draining_workers: count(|worker| worker.draining),
        free_slots: num::to_i32(free),
        queued_tasks: num::to_i64(pool.queued),
        running_tasks: num::to_i64(running),
        message,
        cool_downs,
        ..Default::default()
    }
}

fn cool_down(one: &CoolDown) -> v1::CoolDown {
    v1::CoolDown {
        credential: one.credential.to_string(),
        limit: one.limit.clone(),
        until_time: Some(time::timestamp(one.until)),
        reset_known: one.reset_known,
        message: one.message.clone(),
    }
}

fn demands(demand: &Demand, snapshot: &Snapshot, namespace: Option<&Namespace>) -> Vec<v1::Demand> {
    let ours = snapshot.pools.iter().filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
    ours.map(|(key, pool)| {
        let workers: Vec<_> = (pool.workers.iter())
            .map(|worker| v1::WorkerDemand {
                worker: worker.profile.worker.to_string(),
                running: num::to_i32(worker.tasks.len()),
                storing: num::to_i32(worker.storing),
                draining: worker.draining,
                connected: worker.connected,
                idle_since: worker.stats.idle_since.map(time::timestamp),
                unavailable: worker.is_unavailable(),
                not_ready: !worker.ready && !worker.stats.not_ready_alone,
                isolated: worker.stats.isolated,
                not_isolated_reason: worker.stats.not_isolated_reason.clone(),
                unavailable_reason: worker.unavailable_reason().to_owned(),
                removed: false,
            })
            .collect();
        v1::Demand {
            agent: names::agent(key.0.as_str(), &key.1),
            queued: num::to_i64(demand.admitted(key, pool.queued)),
            queued_isolated: num::to_i64(demand.admitted(key, pool.isolated)),
            running: workers.iter().map(|worker| i64::from(worker.running)).sum(),
            workers,
            removed: false,
            awaited: pool.awaited.iter().map(ToString::to_string).collect(),
        }
    })
    .collect()
}

fn isolated(demand: &Demand, snapshot: &Snapshot, namespace: Option<&Namespace>) -> Vec<v1::IsolatedDemand> {
    // What holds an agent back also holds back the workers of single tasks, unless they have joined already.
    let mut admitted: HashMap<AgentKey, u64> = HashMap::new();
    let wanted = move |task: &&IsolatedTask| {
        let agent = (task.namespace.clone(), task.agent.clone());
        task.worker.is_some() || {
            let left = admitted.entry(agent).or_insert_with_key(|agent| demand.admitted(agent, u64::MAX));
            let admits = *left > 0;
            *left = left.saturating_sub(1);
            admits
        }
    };
    (snapshot.isolated.iter())
        .filter(wanted)
        .filter(|task| namespace.is_none_or(|namespace| task.namespace == *namespace))
        .map(|task| v1::IsolatedDemand {
            task: names::task(task.namespace.as_str(), task.id),
            agent: task.agent.to_string(),
            queued: task.queued,
            worker: task.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
            unavailable_since: task.unavailable_since.map(time::timestamp),
            removed: false,
        })
        .collect()
}

/// Sends demand now, then whenever it changed, each time with the version of the store: as a whole, or with `differences`
/// what has changed since. With an `explainer` and `differences` also why the tasks of each route wait.
pub(super) fn watch(
    store: &StoreClient,
    demand: &Demand,
    messages: &Arc<DemandMessages>,
    streams: &Streams,
    namespace: Option<Namespace>,
    differences: bool,
    explainer: Option<Explainer>,
) -> ReceiverStream<Result<v1::WatchDemandResponse, Status>> {
    let (demand, messages, mut changed) =
        (demand.clone(), Arc::clone(messages), demand.scheduler.changed().subscribe());
    let (store, watchers) = (store.clone(), Arc::clone(&streams.watchers));
    streams.serve("watch-demand", STREAM_BUFFER, move |outbox| async move {
        let mut last: Option<Arc<v1::WatchDemandResponse>> = None;
        let mut runs = watchers.lineage().runs();
        let mut waits = explainer.filter(|_| differences).map(|explainer| (Waits::new(), explainer));
        loop {
            changed.borrow_and_update();
            let snapshot = demand.snapshot().await;
            let message = messages.of(&demand, &snapshot, namespace.as_ref());
            if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &message)) {
                // While the store does not respond, demand is known all the same.
                let revision = timeout(MAX_STORE_WAIT, store.reads().revision()).await;
                let revision = revision.ok().and_then(Result::ok);
                let store = revision.map(|revision| v1::StoreVersion {
                    runs: std::mem::take(&mut runs),
                    ..watchers.lineage().version(revision)
                });
                let content = match last.as_ref().filter(|_| differences) {
                    Some(last) => difference::difference(last, &message),
                    None => (*message).clone(),
                };
                let content = v1::WatchDemandResponse { store, ..content };
                // Callers that know no differences know no parts either.
                let parts = if differences { difference::parts(content) } else { vec![content] };
                for part in parts {
                    send(&outbox, part).await?;
                }
                last = Some(message);
            }
            let Some((waits, explainer)) = &mut waits else {
                drop(snapshot);
                let _ = changed.changed().await;
                continue;
            };
            let waiting = waits.changes(explainer, &snapshot, namespace.as_ref());
            if !waiting.is_empty() {
                let content =
                    v1::WatchDemandResponse { waits: waiting, difference: true, ..Default::default() };
                for part in difference::parts(content) {
                    send(&outbox, part).await?;
                }
            }
            let due = waits.due(snapshot.view.version);
            drop(snapshot);
            yield_now().await;
            let _ = timeout_at(due, changed.changed()).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::tests::{demand, register};

    /// Each call is that of a watcher, which compares the message with its last one.
    #[tokio::test(start_paused = true)]
    async fn watchers_share_one_message() {
        let (demand, messages) = (demand(), DemandMessages::default());
        let [ours, theirs] = ["n", "other"].map(|name| Namespace::new(name).unwrap());
        register(&demand, 1);
        let snapshot = demand.snapshot().await;
        let first = messages.of(&demand, &snapshot, Some(&ours));
        assert_eq!((first.demands.len(), first.demands[0].workers.len()), (1, 1));
        assert!(
            Arc::ptr_eq(&first, &messages.of(&demand, &snapshot, Some(&ours))),
            "the second made its own"
        );
        let other = messages.of(&demand, &snapshot, Some(&theirs));
        assert_eq!(other.demands, [], "the namespace has no workers");
        assert_eq!(messages.of(&demand, &snapshot, None).demands, first.demands);

        // A newer state without other demand: nothing is to be sent.
        demand.scheduler.demand_changed();
        let same = demand.snapshot().await;
        assert!(same.view.version > snapshot.view.version);
        assert!(Arc::ptr_eq(&first, &messages.of(&demand, &same, Some(&ours))), "nothing has changed");

        register(&demand, 2);
        let changed = demand.snapshot().await;
        let second = messages.of(&demand, &changed, Some(&ours));
        assert_eq!(second.demands[0].workers.len(), 2);
        assert!(Arc::ptr_eq(&second, &messages.of(&demand, &changed, Some(&ours))));
        // A watcher whose snapshot is older gets the newest message, and makes none again.
        assert!(Arc::ptr_eq(&second, &messages.of(&demand, &snapshot, Some(&ours))));
        assert!(Arc::ptr_eq(&other, &messages.of(&demand, &changed, Some(&theirs))));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_without_watchers_are_dropped() {
        let (demand, messages) = (demand(), DemandMessages::default());
        let snapshot = demand.snapshot().await;
        let held = messages.of(&demand, &snapshot, None);
        for number in 0..100 {
            messages.of(&demand, &snapshot, Some(&Namespace::new(&format!("n-{number}")).unwrap()));
        }
        register(&demand, 1);
        let changed = demand.snapshot().await;
        messages.of(&demand, &changed, Some(&Namespace::new("n").unwrap()));
        assert_eq!(messages.0.lock().len(), 2, "that of the watcher, and the new one");
        assert_eq!(held.demands, []);
    }
}
