//! What each agent's pool has to do: every waiting task counted for one agent, not limited by capacity.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rota_core::breaker::State as Breaker;
use rota_core::{AgentName, Namespace};
use rota_proto::{names, v1};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::breakers;
use crate::dispatch::Standing;
use crate::shared::Shared;
use crate::wire::status::error;
use crate::wire::time;

/// Between two answers, at least.
const PACE: Duration = Duration::from_millis(100);

/// What every agent's pool does now.
pub(super) fn standing(shared: &Shared) -> BTreeMap<(Namespace, AgentName), Standing> {
    let mut agents = shared.fleet.by_agent();
    for (route, count) in shared.fleet.waiting() {
        if let Some(agent) = shared.preferred(&route) {
            agents.entry((route.namespace, agent)).or_default().queued += count;
        }
    }
    agents
}

/// How an agent stands; `message` is what whoever starts its workers says.
pub(super) fn status(standing: Option<&Standing>, message: String) -> v1::AgentStatus {
    let Some(standing) = standing else { return v1::AgentStatus { message, ..Default::default() } };
    let count = |fits: fn(&crate::dispatch::WorkerView) -> bool| {
        i32::try_from(standing.workers.iter().filter(|worker| worker.connected && fits(worker)).count())
            .unwrap_or(i32::MAX)
    };
    let free: usize = standing.workers.iter().map(|worker| worker.free).sum();
    let running: usize = standing.workers.iter().map(|worker| worker.tasks.len()).sum();
    v1::AgentStatus {
        workers: count(|_| true),
        busy_workers: count(|worker| !worker.tasks.is_empty()),
        idle_workers: count(|worker| worker.tasks.is_empty()),
        draining_workers: count(|worker| worker.draining),
        free_slots: i32::try_from(free).unwrap_or(i32::MAX),
        queued_tasks: i64::try_from(standing.queued).unwrap_or(i64::MAX),
        running_tasks: i64::try_from(running).unwrap_or(i64::MAX),
        message,
    }
}

/// How many of an agent's waiting tasks ask for workers. What it is not given needs none: more of them would only wait,
/// too.
pub(super) fn asked(shared: &Shared, agent: &breakers::Key, queued: u64) -> u64 {
    match shared.breakers.state(agent) {
        Breaker::Closed => queued,
        Breaker::Open { .. } => 0,
        Breaker::HalfOpen { .. } => queued.min(1),
    }
}

fn demands(shared: &Shared, namespace: Option<&Namespace>) -> Vec<v1::Demand> {
    let all = standing(shared).into_iter();
    let ours = all.filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
    ours.map(|((at, agent), standing)| {
        let workers: Vec<_> = (standing.workers.iter())
            .map(|worker| v1::WorkerDemand {
                worker: worker.profile.worker.to_string(),
                running: i32::try_from(worker.tasks.len()).unwrap_or(i32::MAX),
                draining: worker.draining,
                connected: worker.connected,
                idle_since: worker.about.idle_since.map(time::timestamp),
            })
            .collect();
        let queued = asked(shared, &(at.clone(), agent.clone()), standing.queued);
        v1::Demand {
            agent: names::agent(at.as_str(), &agent),
            queued: i64::try_from(queued).unwrap_or(i64::MAX),
            running: workers.iter().map(|worker| i64::from(worker.running)).sum(),
            workers,
        }
    })
    .collect()
}

fn isolated(shared: &Shared, namespace: Option<&Namespace>) -> Vec<v1::IsolatedDemand> {
    let all = shared.fleet.isolated().into_iter();
    // The same goes for a worker of a task's own, as long as it has not joined.
    let mut tried = HashSet::new();
    let wanted = move |task: &crate::dispatch::Isolated| {
        let agent = (task.namespace.clone(), task.agent.clone());
        task.worker.is_some()
            || match shared.breakers.state(&agent) {
                Breaker::Closed => true,
                Breaker::Open { .. } => false,
                Breaker::HalfOpen { .. } => tried.insert(agent),
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

/// Demand now, then whenever it changed.
pub(super) fn watch(
    shared: &Arc<Shared>,
    namespace: Option<Namespace>,
) -> ReceiverStream<Result<v1::WatchDemandResponse, Status>> {
    let (outbox, stream) = mpsc::channel(4);
    let shared = Arc::clone(shared);
    spawn("watch-demand", OnExit::Done, async move {
        let mut changed = shared.watchers.fleet();
        let mut last = None;
        loop {
            changed.borrow_and_update();
            let now = v1::WatchDemandResponse {
                demands: demands(&shared, namespace.as_ref()),
                isolated: isolated(&shared, namespace.as_ref()),
            };
            if last.as_ref() != Some(&now) {
                last = Some(now.clone());
                if outbox.send(Ok(now)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = outbox.closed() => return,
                () = shared.stop.cancelled() => {
                    let _ = outbox.send(Err(error("STOPPING", "the control plane is stopping; watch again"))).await;
                    return;
                }
                _ = changed.changed() => tokio::time::sleep(PACE).await,
            }
        }
    });
    ReceiverStream::new(stream)
}
