//! The beginning of a session: Hello is checked, the session opened in the store, Welcome sent, and the worker
//! registered with the scheduler.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rota_core::Epoch;
use rota_core::target::{ISOLATED, Profile};
use rota_core::task::WorkerRef;
use rota_proto::worker::v1::{self as wire, resume_attempt, session_response::Kind};
use rota_proto::{num, reasons};
use rota_store::{OpenSession, Resumed};
use tonic::Status;

use super::catch_up::catch_up;
use super::deps::{Opened, SessionDeps};
use super::worker_loss::close;
use super::{decode, identity};
use crate::clock::now;
use crate::dispatcher::STALE_ATTEMPT_GRACE;
use crate::keys::WorkerKey;
use crate::options::Timing;
use crate::scheduler::{SessionHandle, SlotState, WorkerEntry};
use crate::trust::identity::Identity;
use crate::wire::status::{error, invalid};
use crate::wire::{check, failure, names, time};

/// Attempts without a slot that a worker may name: earlier processes have left their files, and no storage has taken them yet.
const MAX_LEFT: usize = 1000;

/// Protocol versions that this server supports. Workers of version 1 do not fetch results that an assignment omits.
const PROTOCOL_VERSIONS: RangeInclusive<i32> = 1..=2;
const MAX_SLOTS: i32 = 1024;
const MAX_CAPABILITIES: usize = 64;
const MAX_MISSING: usize = 16;

/// Opens the session that a Hello asks for.
pub(super) async fn open(
    deps: &SessionDeps,
    identity: Option<&Identity>,
    mut hello: wire::Hello,
    session: &SessionHandle,
) -> Result<Opened, Status> {
    if !PROTOCOL_VERSIONS.contains(&hello.protocol_version) {
        let text = format!(
            "the worker uses protocol version {}, the server supports {} to {}",
            hello.protocol_version,
            PROTOCOL_VERSIONS.start(),
            PROTOCOL_VERSIONS.end()
        );
        return Err(error(reasons::PROTOCOL_VERSION_UNSUPPORTED, text));
    }
    let namespace = names::namespace("hello.namespace", &hello.namespace)?;
    let agent = names::agent_id("hello.agent", &hello.agent)?;
    let worker = names::worker_id("hello.worker", &hello.worker)?;
    check::words("hello.capabilities", &hello.capabilities, MAX_CAPABILITIES)?;
    if !(1..=MAX_SLOTS).contains(&hello.slots) {
        return Err(invalid("hello.slots", format!("must be from 1 to {MAX_SLOTS}")));
    }
    if hello.instance.is_empty() || hello.instance.len() > 128 {
        return Err(invalid("hello.instance", "must have 1 to 128 bytes"));
    }
    let task = match hello.isolated_task.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| invalid("hello.isolated_task", "must be a task id"))?),
    };
    let key: WorkerKey = (namespace.clone(), worker.clone());
    if let Some(identity) = identity {
        identity::check(deps, identity, &key, &agent, hello.draining)?;
        identity::narrow(deps, identity, &key, &mut hello)?;
    }
    let hashes = || deps.dispatcher.sealer.credential_key(&key.0);
    let credential = decode::credential_at("hello.credential", hashes, &hello.credential, &hello.backend)?;
    deps.hellos.check(&key, identity)?;
    let slots = usize::try_from(hello.slots).unwrap_or(1);
    check::count("hello.running", hello.running.len(), slots * 2 + MAX_LEFT)?;
    let mut running = Vec::with_capacity(hello.running.len());
    let mut inputs = HashMap::new();
    for (index, attempt) in hello.running.iter().enumerate() {
        let (id, fence) =
            decode::attempt_ref(&format!("hello.running[{index}]"), &attempt.task_id, attempt.fence)?;
        running.push((id, fence));
        inputs.insert(id, u64::try_from(attempt.last_input_seq).unwrap_or(0));
    }

    let is_named = identity.is_none_or(Identity::names_worker);
    let open = OpenSession {
        namespace: namespace.clone(),
        worker: worker.clone(),
        agent: agent.clone(),
        instance: hello.instance.clone(),
        replica: deps.replica.clone(),
        running,
        last: u64::try_from(hello.last_epoch).ok().filter(|epoch| *epoch > 0).map(Epoch),
        takes_name: is_named,
    };
    let (epoch, resumed) = deps.store.open_session(open).await?;
    let known = deps.agents.get(&(namespace.clone(), agent.clone()));
    let mut own: BTreeSet<String> = hello.capabilities.into_iter().collect();
    // Not a word that workers or agents choose.
    own.remove(ISOLATED);
    if hello.isolated {
        own.insert(ISOLATED.to_owned());
    }
    let mut capabilities = own.clone();
    capabilities.extend(known.iter().flat_map(|known| known.agent.capabilities.iter().cloned()));
    let at = now();
    let grace = deps.agents.reconnect_grace(&(namespace.clone(), agent.clone()));
    let welcome = welcome(
        &deps.timing,
        grace.unwrap_or(deps.timing.reconnect_grace),
        epoch.0,
        &resumed,
        known.map(|known| known.spec.on_disconnect).unwrap_or_default(),
    );
    // Welcome is sent before the worker is registered, hence before any assignment.
    session.send(Kind::Welcome(welcome.into()));
    // What it missed may take long to read.
    deps.heartbeats.add(session);
    let capabilities = Arc::new(capabilities);
    let profile = Profile { namespace, worker: worker.clone(), agent, capabilities, task };
    let mut entry = WorkerEntry::new(profile, epoch, hello.instance.clone(), at);
    for attempt in &resumed {
        // An attempt that was superseded occupies its slot until the worker confirms its end.
        let state = match &attempt.live {
            Some((task, _)) if task.storing().is_some() => SlotState::Storing,
            Some(_) => SlotState::Running,
            None => SlotState::Abandoned,
        };
        entry.resume(attempt.id, attempt.fence, state);
    }
    entry.pod = identity.and_then(Identity::pod).map(str::to_owned);
    (entry.named, entry.credential) = (is_named, credential);
    (entry.fetches_results, entry.delivers) = (hello.protocol_version >= 2, hello.delivers);
    (entry.own_capabilities, entry.slot_count, entry.draining) = (own, slots, hello.draining);
    (entry.session, entry.catching_up) = (Some(session.clone()), true);
    entry.stats.idle_since = (entry.attempts() == 0).then_some(at);
    entry.stats.record(at, "connected", None);
    entry.stats.version = failure::cut(hello.version, 128);
    entry.stats.isolated = hello.isolated;
    entry.stats.not_isolated_reason = failure::cut(hello.not_isolated_reason, 256);
    entry.stats.not_ready_reason = failure::cut(hello.not_ready_reason, 256);
    entry.stats.not_ready_alone = hello.not_ready_alone;
    entry.stats.runtime_version = failure::cut(hello.runtime_version, 128);
    entry.stats.runtime_missing = missing(hello.runtime_missing);
    tracing::info!(worker = %worker, agent = %entry.profile.agent, epoch = epoch.0, resumed = entry.attempts(), "worker joined");
    let agent = (entry.profile.namespace.clone(), entry.profile.agent.clone());
    let registered = deps.scheduler.register(entry);
    let previous =
        registered.map_err(|_| error("WORKER_SUPERSEDED", "a newer session of this worker is open"))?;
    if previous.as_ref().is_none_or(|previous| previous.instance != hello.instance) {
        deps.breakers.forget_worker(&key);
    }
    deps.metrics.session(previous.as_ref().map(|previous| previous.instance == hello.instance));
    if let Some(session) = previous.and_then(|previous| previous.session) {
        session.close();
    }
    // The agent may have changed before the worker was registered.
    if let Some(known) = deps.agents.get(&agent) {
        deps.scheduler.set_capabilities(&agent, &known.agent.capabilities);
    }
    let opened = Opened { key, worker: WorkerRef { worker, epoch }, instance: hello.instance };
    // Its pod may have been revoked while the store opened the session.
    if let Some(identity) = identity
        && let Err(status) = identity::check(deps, identity, &opened.key, &agent.1, hello.draining)
    {
        close(deps, &opened);
        return Err(status);
    }
    identity::limit_to_announced(deps, &agent, &opened.key);
    for attempt in resumed.iter().filter(|attempt| attempt.live.is_none()) {
        deps.dispatcher.release_slot_after(
            &opened.key,
            &opened.worker,
            attempt.id,
            attempt.fence,
            STALE_ATTEMPT_GRACE,
        );
    }
    if let Err(status) = catch_up(deps, &opened, &resumed, &inputs).await {
        close(deps, &opened);
        return Err(status);
    }
    if !hello.draining
        && deps.scheduler.update(&opened.key, &opened.worker, |entry| entry.draining) == Some(true)
    {
        session.send(Kind::Drain(wire::Drain {
            reason: "a drain was requested before the worker reconnected".to_owned(),
        }));
    }
    Ok(opened)
}

/// Limits what a worker reports of its program.
pub(super) fn missing(given: Vec<String>) -> Vec<String> {
    given.into_iter().take(MAX_MISSING).map(|what| failure::cut(what, 256)).collect()
}

fn welcome(
    timing: &Timing,
    reconnect_grace: Duration,
    epoch: u64,
    resumed: &[Resumed],
    on_disconnect: i32,
) -> wire::Welcome {
    let resume = resumed.iter().map(|attempt| wire::ResumeAttempt {
        task_id: attempt.id.to_string(),
        fence: num::to_i64(attempt.fence.0),
        kind: Some(match &attempt.live {
            Some((_, seq)) => resume_attempt::Kind::ContinueAfter(num::to_i64(*seq)),
            None => resume_attempt::Kind::Abandon("the attempt was superseded".to_owned()),
        }),
    });
    wire::Welcome {
        epoch: num::to_i64(epoch),
        heartbeat_interval: Some(time::duration(timing.heartbeat)),
        heartbeat_timeout: Some(time::duration(timing.heartbeat_timeout)),
        reconnect_grace: Some(time::duration(reconnect_grace)),
        resume: resume.collect(),
        on_disconnect,
    }
}
