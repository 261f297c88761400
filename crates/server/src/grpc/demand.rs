//! Demand as the API reports it: for each agent's pool its workers, and the waiting tasks that ask for more.

use std::collections::HashSet;
use std::time::Duration;

use rota_core::Namespace;
use rota_core::breaker::State as Breaker;
use rota_proto::num;
use rota_proto::{names, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::streams::{Streams, send};
use crate::demand::Demand;
use crate::scheduler::{IsolatedTask, PoolStatus, WorkerView};
use crate::wire::time;

/// Least time between two messages.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the status of an agent. `message` comes from the component that starts its workers.
pub(super) fn status(pool: Option<&PoolStatus>, message: String) -> v1::AgentStatus {
    let Some(pool) = pool else { return v1::AgentStatus { message, ..Default::default() } };
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
    }
}

fn demands(demand: &Demand, namespace: Option<&Namespace>) -> Vec<v1::Demand> {
    let all = demand.pools().into_iter();
    let ours = all.filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
    ours.map(|((at, agent), pool)| {
        let workers: Vec<_> = (pool.workers.iter())
            .map(|worker| v1::WorkerDemand {
                worker: worker.profile.worker.to_string(),
                running: num::to_i32(worker.tasks.len()),
                draining: worker.draining,
                connected: worker.connected,
                idle_since: worker.stats.idle_since.map(time::timestamp),
            })
            .collect();
        let queued = demand.admitted(&(at.clone(), agent.clone()), pool.queued);
        v1::Demand {
            agent: names::agent(at.as_str(), &agent),
            queued: num::to_i64(queued),
            running: workers.iter().map(|worker| i64::from(worker.running)).sum(),
            workers,
        }
    })
    .collect()
}

fn isolated(demand: &Demand, namespace: Option<&Namespace>) -> Vec<v1::IsolatedDemand> {
    let all = demand.scheduler.isolated_tasks().into_iter();
    // A circuit breaker also holds back the workers of single tasks, unless they have joined already.
    let mut probed = HashSet::new();
    let wanted = move |task: &IsolatedTask| {
        let agent = (task.namespace.clone(), task.agent.clone());
        task.worker.is_some()
            || match demand.breakers.state(&agent) {
                Breaker::Closed => true,
                Breaker::Open { .. } => false,
                Breaker::HalfOpen { .. } => probed.insert(agent),
            }
    };
    all.filter(wanted)
        .filter(|task| namespace.is_none_or(|namespace| task.namespace == *namespace))
        .map(|task| v1::IsolatedDemand {
            task: names::task(task.namespace.as_str(), task.id),
            agent: task.agent.to_string(),
            queued: task.queued,
            worker: task.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        })
        .collect()
}

/// Sends demand now, then whenever it changed.
pub(super) fn watch(
    demand: &Demand,
    streams: &Streams,
    namespace: Option<Namespace>,
) -> ReceiverStream<Result<v1::WatchDemandResponse, Status>> {
    let (demand, mut changed) = (demand.clone(), streams.watchers.state());
    streams.serve("watch-demand", 4, move |outbox| async move {
        let mut last = None;
        loop {
            changed.borrow_and_update();
            let now = v1::WatchDemandResponse {
                demands: demands(&demand, namespace.as_ref()),
                isolated: isolated(&demand, namespace.as_ref()),
            };
            if last.as_ref() != Some(&now) {
                last = Some(now.clone());
                send(&outbox, now).await?;
            }
            let _ = changed.changed().await;
            tokio::time::sleep(MIN_INTERVAL).await;
        }
    })
}
