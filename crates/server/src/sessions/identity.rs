//! Worker identity: checks that the holder of a token may be the worker that its Hello names (`WORKER_NAME_MISMATCH`,
//! `WORKER_NOT_ANNOUNCED`), and narrows what Hello claims to what the token or the agent grants. Not admission control of
//! tasks, which is the scheduler's. Without authentication nothing is checked. See `docs/security.md`, "Worker identity".

use rota_core::{AgentName, Namespace, WorkerName};
use rota_proto::reasons;
use rota_proto::worker::v1 as wire;
use rota_store::Refused;
use tonic::Status;

use super::deps::SessionDeps;
use crate::keys::{AgentKey, WorkerKey};
use crate::pools::{Pools, Standing};
use crate::scheduler::{Scheduler, WorkerEntry};
use crate::trust::identity::{Holder, Identity};
use crate::trust::oidc::Pod;
use crate::trust::worker_token::WorkerGrant;
use crate::wire::status::{error, refused};

/// Checks that the holder of a token may be this worker of this agent. `draining` is of its Hello, or unknown before; a drain that was
/// requested counts as well.
pub(super) fn check(
    deps: &SessionDeps,
    identity: &Identity,
    key: &WorkerKey,
    agent: &AgentName,
    draining: bool,
) -> Result<(), Status> {
    match &identity.holder {
        Holder::Pod(pod) => check_pod(deps, pod, key, agent, draining),
        Holder::Grant(grant) => check_grant(grant, key, agent),
    }
}

/// Narrows a Hello to what its sender may have. Checks that no other process with the same identity is connected, or about to come
/// back.
pub(super) fn narrow(
    deps: &SessionDeps,
    identity: &Identity,
    key: &WorkerKey,
    hello: &mut wire::Hello,
) -> Result<(), Status> {
    match &identity.holder {
        Holder::Pod(_) => narrow_pod(deps, key, hello)?,
        Holder::Grant(grant) => {
            if grant.instance.as_ref().is_some_and(|instance| *instance != hello.instance) {
                return Err(error("WORKER_NAME_MISMATCH", "the token belongs to another process"));
            }
            hello.capabilities.retain(|word| grant.capabilities.contains(word));
            hello.slots = hello.slots.min(grant.slots.unwrap_or(i32::MAX));
        }
    }
    // A token that names no worker must not take one of another agent. The store knows those that are away.
    let is_named = identity.names_worker();
    let is_foreign = |entry: &WorkerEntry| entry.profile.agent.as_str() != hello.agent;
    // As in the store: a process whose name another one has taken ends, and gives its attempts up.
    let last = u64::try_from(hello.last_epoch).unwrap_or(0);
    let is_replaced = |entry: &WorkerEntry| {
        is_foreign(entry) && entry.instance != hello.instance && (1..=entry.epoch.0).contains(&last)
    };
    if deps.scheduler.inspect(key, is_replaced) == Some(true) {
        return Err(refused(Refused::Replaced));
    }
    let foreign = |entry: &WorkerEntry| is_foreign(entry).then(|| entry.profile.agent.clone());
    if !is_named && let Some(agent) = deps.scheduler.inspect(key, foreign).flatten() {
        return Err(refused(Refused::NameTaken(agent)));
    }
    let connected = |entry: &WorkerEntry| {
        // It got a name that is another one's before that was connected.
        let gives_way = is_named && !entry.named && is_foreign(entry);
        // One that is cut off, or has not come back after a restart, keeps its name with its attempts.
        let may_come_back = is_foreign(entry) && entry.attempts() > 0;
        (entry.session.is_some() || may_come_back) && entry.instance != hello.instance && !gives_way
    };
    if deps.scheduler.inspect(key, connected) == Some(true) {
        let text = format!("worker {} is another process, which is connected or may come back", key.1);
        return Err(error("WORKER_CONNECTED", text));
    }
    Ok(())
}

/// A pod has the capabilities of its agent alone, and the slots and the task with which it was created.
fn narrow_pod(deps: &SessionDeps, key: &WorkerKey, hello: &mut wire::Hello) -> Result<(), Status> {
    hello.capabilities.clear();
    let agent = AgentName::new(&hello.agent).ok().map(|agent| (key.0.clone(), agent));
    let announced = agent.and_then(|agent| deps.agents.pools().announced(&agent, &key.1));
    // After a restart of the control plane: what it runs shows for which task the pod was created.
    let Some(announced) = announced else {
        let task = deps.scheduler.inspect(key, |entry| entry.profile.task).flatten();
        if task.map(|task| task.to_string()).unwrap_or_default() == hello.isolated_task {
            return Ok(());
        }
        let text = format!("worker {} has not been announced for this task", key.1);
        return Err(error(reasons::WORKER_NOT_ANNOUNCED, text));
    };
    hello.slots = hello.slots.min(announced.slots.unwrap_or(i32::MAX));
    if announced.isolated_task.is_some_and(|task| task != hello.isolated_task) {
        let text = format!("worker {} was created for another task", key.1);
        return Err(error("WORKER_NAME_MISMATCH", text));
    }
    Ok(())
}

/// Checks that a pod is a worker, of whichever agent: it is announced, or has a session that has not ended.
pub(crate) fn check_serves(scheduler: &Scheduler, pools: &Pools, pod: &Pod) -> Result<(), Status> {
    if let (Ok(namespace), Ok(worker)) = (Namespace::new(&pod.namespace), WorkerName::new(&pod.name)) {
        let key = (namespace, worker);
        let is_its = |entry: &WorkerEntry| entry.instance == pod.uid;
        if scheduler.inspect(&key, is_its) == Some(true) || pools.is_announced(&key, &pod.uid) {
            return Ok(());
        }
    }
    let text = format!("pod {}/{} has not been announced as a worker", pod.namespace, pod.name);
    Err(error(reasons::WORKER_NOT_ANNOUNCED, text))
}

/// Limits a pod that is connected to what it was announced as, after its Hello: to its slots, and to its task, by closing the
/// session of one that has claimed another. Until the first announcement after a restart, Hello alone has named both.
pub(crate) fn limit_to_announced(deps: &SessionDeps, agent: &AgentKey, key: &WorkerKey) {
    let Some(announced) = deps.agents.pools().announced(agent, &key.1) else { return };
    let is_its = |entry: &WorkerEntry| entry.pod.as_ref() == Some(&announced.instance);
    if let Some(slots) = announced.slots {
        let slots = usize::try_from(slots).unwrap_or(1);
        let exceeds = |entry: &WorkerEntry| is_its(entry) && entry.slot_count > slots;
        if deps.scheduler.inspect(key, exceeds) == Some(true) {
            deps.scheduler.update_any(key, |entry| {
                // Another process may have the name by now.
                if exceeds(entry) {
                    entry.slot_count = slots;
                }
            });
        }
    }
    let of_another = |entry: &WorkerEntry| {
        let own = entry.profile.task.map(|task| task.to_string()).unwrap_or_default();
        let differs = announced.isolated_task.as_ref().is_some_and(|task| *task != own);
        (is_its(entry) && differs).then(|| entry.worker_ref())
    };
    if let Some(session) = deps.scheduler.inspect(key, of_another).flatten() {
        tracing::warn!(worker = %key.1, agent = %agent.1, "worker was created for another task, its session ends");
        deps.scheduler.close_session(key, &session);
    }
}

/// Checks that a token grants to be this worker of this agent.
fn check_grant(
    grant: &WorkerGrant,
    (namespace, worker): &WorkerKey,
    agent: &AgentName,
) -> Result<(), Status> {
    let named = grant.worker.as_ref().is_none_or(|granted| granted == worker);
    if grant.namespace == *namespace && grant.agent == *agent && named {
        return Ok(());
    }
    let whom = grant.worker.as_ref().map_or("any worker".to_owned(), |worker| format!("worker {worker}"));
    let text = format!(
        "the token is for {whom} of agent {}/{}, but the worker is {namespace}/{worker} of agent {agent}",
        grant.namespace, grant.agent
    );
    Err(error("WORKER_NAME_MISMATCH", text))
}

fn check_pod(
    deps: &SessionDeps,
    pod: &Pod,
    key: &WorkerKey,
    agent: &AgentName,
    draining: bool,
) -> Result<(), Status> {
    let (namespace, worker) = key;
    if pod.namespace != namespace.as_str() || pod.name != worker.as_str() {
        let text = format!(
            "the token belongs to pod {}/{}, but the worker is {namespace}/{worker}",
            pod.namespace, pod.name
        );
        return Err(error("WORKER_NAME_MISMATCH", text));
    }
    let agent_key = (namespace.clone(), agent.clone());
    // The process is named by the pod's UID, since another pod could have the name by now.
    let is_its = |entry: &WorkerEntry| entry.profile.agent == *agent && entry.instance == pod.uid;
    let admitted = match deps.agents.pools().standing(&agent_key, worker, &pod.uid) {
        Standing::Announced => true,
        // A restarted control plane has no announcements yet, and must not turn away workers whose sessions have not expired. The
        // first announcement ends the sessions of those that it does not name.
        Standing::Unknown => deps.scheduler.inspect(key, is_its) == Some(true),
        // One that drains finishes its tasks, and gets no others.
        Standing::Revoked => {
            // Of one that has joined this process, the control plane knows whether it drains.
            let may_finish =
                |entry: &WorkerEntry| is_its(entry) && (entry.draining || draining && entry.pod.is_none());
            deps.scheduler.inspect(key, may_finish) == Some(true)
        }
    };
    if admitted {
        return Ok(());
    }
    Err(error(
        reasons::WORKER_NOT_ANNOUNCED,
        format!("worker {worker} has not been announced for agent {agent}"),
    ))
}
