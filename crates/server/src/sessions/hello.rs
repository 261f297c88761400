//! The beginning and the end of a session.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rota_core::target::Profile;
use rota_core::task::{Body, Desired, Task, WorkerRef};
use rota_core::{Epoch, TaskId};
use rota_proto::worker::v1::{self as wire, resume_attempt, session_response::Kind};
use rota_store::{Command, EndSession, OpenSession, Reply, Resumed};
use rota_telemetry::{OnExit, spawn};
use tonic::Status;
use uuid::Uuid;

use super::{admission, decode};
use crate::dispatch::{Outgoing, Phase, STALE_GRACE, Seat, SeatKey};
use crate::shared::{Shared, now};
use crate::trust::oidc::Pod;
use crate::wire::status::{error, invalid};
use crate::wire::{check, event, failure, names, status, time};

/// The version of the protocol that this server speaks.
const VERSION: i32 = 1;
const MAX_SLOTS: i32 = 1024;
const MAX_CAPABILITIES: usize = 64;
/// Between two tries to note a worker's end.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A session that is up.
pub(super) struct Opened {
    pub(super) key: SeatKey,
    pub(super) worker: WorkerRef,
    pub(super) instance: String,
}

pub(super) async fn open(
    shared: &Arc<Shared>,
    pod: Option<&Pod>,
    hello: wire::Hello,
    outgoing: &Outgoing,
) -> Result<Opened, Status> {
    if hello.protocol_version != VERSION {
        let text = format!(
            "the worker speaks version {} of the protocol, this server {VERSION}",
            hello.protocol_version
        );
        return Err(error("PROTOCOL_VERSION", text));
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
        id => Some(id.parse().map_err(|_| invalid("hello.isolated_task", "must be a task's id"))?),
    };
    let slots = usize::try_from(hello.slots).unwrap_or(1);
    check::count("hello.running", hello.running.len(), slots * 2 + 16)?;
    let mut running = Vec::with_capacity(hello.running.len());
    let mut inputs = HashMap::new();
    for (index, attempt) in hello.running.iter().enumerate() {
        let (id, fence) = decode::held(&format!("hello.running[{index}]"), &attempt.task_id, attempt.fence)?;
        running.push((id, fence));
        inputs.insert(id, u64::try_from(attempt.last_input_seq).unwrap_or(0));
    }

    let key: SeatKey = (namespace.clone(), worker.clone());
    if let Some(pod) = pod {
        admission::check(shared, pod, &key, &agent)?;
    }
    let open = OpenSession {
        namespace: namespace.clone(),
        worker: worker.clone(),
        agent: agent.clone(),
        instance: hello.instance.clone(),
        replica: shared.replica.clone(),
        running,
        last: u64::try_from(hello.last_epoch).ok().filter(|epoch| *epoch > 0).map(Epoch),
    };
    let Reply::Session(epoch, resumed) = shared.apply(Command::OpenSession(open)).await? else {
        return Err(Status::internal("the store gave another answer than was asked for"));
    };
    let known = shared.agent(&namespace, &agent);
    let own: BTreeSet<String> = hello.capabilities.into_iter().collect();
    let mut capabilities = own.clone();
    capabilities.extend(known.iter().flat_map(|known| known.agent.capabilities.iter().cloned()));
    let at = now();
    let welcome =
        welcome(shared, epoch.0, &resumed, known.map(|known| known.spec.on_disconnect).unwrap_or_default());
    // Welcome goes out before the seat is known to dispatch, hence before any assignment.
    outgoing.send(Kind::Welcome(welcome));
    let profile = Profile { namespace, worker: worker.clone(), agent, capabilities, task };
    let mut seat = Seat::new(profile, epoch, hello.instance.clone(), at);
    // What does not go on still fills its slot until the worker says that it has ended.
    let phase = |attempt: &Resumed| if attempt.live.is_some() { Phase::Held } else { Phase::Leaving };
    seat.attempts = resumed.iter().map(|attempt| ((attempt.id, attempt.fence), phase(attempt))).collect();
    (seat.own, seat.slots, seat.draining) = (own, slots, hello.draining);
    (seat.outgoing, seat.catching_up) = (Some(outgoing.clone()), true);
    seat.about.idle_since = seat.attempts.is_empty().then_some(at);
    seat.about.did(at, "connected", None);
    seat.about.version = failure::cut(hello.version, 128);
    seat.about.runtime_version = failure::cut(hello.runtime_version, 128);
    tracing::info!(worker = %worker, agent = %seat.profile.agent, epoch = epoch.0, resumed = seat.attempts.len(), "worker joined");
    let agent = (seat.profile.namespace.clone(), seat.profile.agent.clone());
    let old = shared.fleet.seat(seat).map_err(|()| error("WORKER_SUPERSEDED", "a newer session is up"))?;
    shared.metrics.session(old.as_ref().map(|old| old.instance == hello.instance));
    if let Some(outgoing) = old.and_then(|mut old| old.outgoing.take()) {
        outgoing.hang_up.cancel();
    }
    // It may have changed before the seat was there to learn of it.
    if let Some(known) = shared.agent(&agent.0, &agent.1) {
        shared.fleet.learn(&agent.0, &agent.1, &known.agent.capabilities);
    }
    let opened = Opened { key, worker: WorkerRef { worker, epoch }, instance: hello.instance };
    for attempt in resumed.iter().filter(|attempt| attempt.live.is_none()) {
        shared.free_at_last(&opened.key, &opened.worker, attempt.id, attempt.fence, STALE_GRACE);
    }
    if let Err(status) = catch_up(shared, &opened, &resumed, &inputs).await {
        close(shared, &opened);
        return Err(status);
    }
    if !hello.draining && shared.fleet.with(&opened.key, &opened.worker, |seat| seat.draining) == Some(true) {
        outgoing
            .send(Kind::Drain(wire::Drain { reason: "it was asked to drain while it was away".to_owned() }));
    }
    shared.watchers.fleet_changed();
    Ok(opened)
}

fn welcome(shared: &Shared, epoch: u64, resumed: &[Resumed], on_disconnect: i32) -> wire::Welcome {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let resume = resumed.iter().map(|attempt| wire::ResumeAttempt {
        task_id: attempt.id.to_string(),
        fence: signed(attempt.fence.0),
        kind: Some(match &attempt.live {
            Some((_, seq)) => resume_attempt::Kind::ContinueAfter(signed(*seq)),
            None => resume_attempt::Kind::Abandon("it is no longer the task's live attempt".to_owned()),
        }),
    });
    wire::Welcome {
        session: Uuid::now_v7().to_string(),
        epoch: signed(epoch),
        heartbeat_interval: Some(time::duration(shared.timing.heartbeat)),
        heartbeat_timeout: Some(time::duration(shared.timing.heartbeat_timeout)),
        reconnect_grace: Some(time::duration(shared.timing.reconnect_grace)),
        resume: resume.collect(),
        on_disconnect,
    }
}

/// What was wanted of running attempts while their worker was away. Records are read again: what was committed
/// between the session's opening and its seat has reached nobody.
async fn catch_up(
    shared: &Arc<Shared>,
    opened: &Opened,
    resumed: &[Resumed],
    inputs: &HashMap<TaskId, u64>,
) -> Result<(), Status> {
    let live: Vec<_> = resumed.iter().filter(|attempt| attempt.live.is_some()).collect();
    let mut told: HashMap<TaskId, u64> = inputs.clone();
    let mut first = true;
    loop {
        for attempt in &live {
            let Some(task) = shared.store.task(attempt.id).await.map_err(status::store)? else { continue };
            let goes_on = task.fence == attempt.fence && task.assignment.is_some();
            if first && !goes_on {
                shared.send_end(&opened.key, attempt.fence, &task);
            } else if first && task.desired == Desired::Cancelled {
                shared.send_cancel(&task, "its end was asked for while the worker was away");
            }
            let known = told.entry(attempt.id).or_default();
            if goes_on && task.inputs > *known {
                resend_inputs(shared, &task, *known).await?;
                *known = task.inputs;
            }
        }
        first = false;
        let missed = shared.fleet.with(&opened.key, &opened.worker, |seat| {
            let missed = std::mem::take(&mut seat.missed_input);
            seat.catching_up = missed;
            missed
        });
        if missed != Some(true) {
            return Ok(());
        }
    }
}

async fn resend_inputs(shared: &Shared, task: &Task, known: u64) -> Result<(), Status> {
    let mut after = 0;
    loop {
        let events = shared.store.events(task.id, after, 1000).await.map_err(status::store)?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.log_seq;
        for entry in &events {
            if let Body::Input { seq, payload } = &entry.body
                && *seq > known
                && *seq <= task.inputs
                && entry.attempt == task.attempt()
            {
                shared.resend_input(task, *seq, event::input(payload));
            }
        }
    }
}

/// The stream is gone. The worker keeps its attempts for the grace; then they are given to others.
pub(super) fn close(shared: &Arc<Shared>, opened: &Opened) {
    let drained = shared.fleet.with(&opened.key, &opened.worker, |seat| {
        seat.outgoing = None;
        seat.reserved.clear();
        seat.claiming = 0;
        seat.draining && seat.attempts.is_empty()
    });
    // A newer session has taken its place.
    let Some(drained) = drained else { return };
    shared.watchers.fleet_changed();
    let (message, grace) = if drained {
        ("the worker has drained and left", std::time::Duration::ZERO)
    } else {
        ("its worker was lost: the connection ended and did not come back", shared.timing.reconnect_grace)
    };
    lose_after(shared, &opened.key, opened.worker.clone(), grace, message);
}

/// Ends a session for good unless the worker comes back within the grace.
pub(crate) fn lose_after(
    shared: &Arc<Shared>,
    key: &SeatKey,
    worker: WorkerRef,
    grace: std::time::Duration,
    message: &'static str,
) {
    let (shared, key) = (Arc::clone(shared), key.clone());
    spawn("session-grace", OnExit::Done, async move {
        tokio::select! {
            // A control plane that stops loses nobody: the next one waits for its workers.
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(grace) => {}
        }
        let back =
            shared.fleet.look(&key).is_some_and(|seat| seat.epoch != worker.epoch || seat.outgoing.is_some());
        if back {
            return;
        }
        // Its tasks must not be forgotten because the store was away for a moment.
        while let Err(status) = lose(&shared, &key, worker.clone(), message).await {
            tracing::warn!(worker = %key.1, %status, "a worker's end cannot be noted yet");
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
}

/// Ends a session for good: its tasks are given to others. Tells how many.
pub(crate) async fn lose(
    shared: &Arc<Shared>,
    key: &SeatKey,
    worker: WorkerRef,
    message: &str,
) -> Result<usize, Status> {
    let end = EndSession { namespace: key.0.clone(), session: worker.clone(), message: message.to_owned() };
    let replies = shared.write(vec![Command::EndSession(end)]).await.map_err(status::store)?;
    let freed = match replies.into_iter().next() {
        Some(Ok(Reply::Ended(freed))) => freed,
        // It has a newer session, in which its attempts went on.
        _ => 0,
    };
    if shared.fleet.leave(key, &worker) {
        shared.metrics.session_ended();
    }
    tracing::info!(worker = %key.1, freed, message, "worker left");
    shared.watchers.fleet_changed();
    Ok(freed)
}
