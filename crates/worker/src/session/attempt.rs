//! One attempt: its directories, runtime and time limits, from the assignment to the proof that none
//! of its processes is left. Reports to the session loop, and does not know whether that is connected.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use rota_proto::v1::{Event, FailureClass, MessageDelta, Severity, TaskInput, WorkEnded, event, runtime};
use rota_proto::worker::v1::{Assign, Result as AttemptResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::deps::AttemptDeps;
use super::git_settings::GitSettings;
use super::handle::{AttemptHandle, StopReason};
use super::model_access::ModelAccess;
use super::out_of_memory::OutOfMemoryKills;
use super::redact::Redaction;
use super::spans::ToolSpans;
use super::storing::{self, Keeping};
use super::time_limits::TimeLimits;
use super::{
    checkpoints, commands, continuing, prepare, previous_results, result, result_schema, setup_cache,
    undelivered,
};
use crate::artifacts::{self, Kept, SlotRelease};
use crate::git::{Undelivered, Work};
use crate::report::notice;
pub(super) use crate::runtimes::in_place;
use crate::runtimes::scripted::Scripted;
use crate::runtimes::{Attempt, Channels, RunOutcome, RunReport, Runtime};
use crate::workspace::AttemptDirs;

/// Time after the grace period at which a runtime that has not returned is dropped, which kills its programs.
const STUCK_RUNTIME_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to store what an attempt leaves, after which the control plane is to know that only this is left.
const SHORT_KEEPING: Duration = Duration::from_secs(2);
/// Notice of input that came after the last round of an agent.
pub(super) const UNHEARD: &str = "message dropped: the agent had already finished";
/// Capacity of the channel between a runtime and its attempt.
const EVENT_BUFFER: usize = 64;

/// Identifies an attempt: a task and the fence of its assignment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AttemptKey {
    pub(super) task: Arc<str>,
    pub(super) fence: i64,
}

/// Notification from an attempt's task to the session loop.
pub(super) enum AttemptEvent {
    /// The machine can run the attempt, which is about to start.
    Accepted(AttemptKey),
    /// The machine cannot run the attempt, for this reason.
    Rejected(AttemptKey, String),
    /// What the model calls of the attempt use.
    UsesModel(AttemptKey, ModelAccess),
    /// A part of a message, for callers that follow.
    Streamed(AttemptKey, MessageDelta),
    EventsQueued(AttemptKey),
    /// The attempt holds no slot any more: what it left is on the disk, and the storage is away.
    Storing(AttemptKey),
    /// The attempt waits for a person, and its checkpoint is stored: these requests are open.
    Waits(AttemptKey, Vec<String>),
    /// The attempt has ended and none of its processes is left.
    Ended(AttemptKey, Box<AttemptResult>),
}

/// An assignment with everything needed to run it.
pub(super) struct Job {
    pub(super) key: AttemptKey,
    pub(super) assign: Box<Assign>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) handle: Arc<AttemptHandle>,
    pub(super) inputs: mpsc::Receiver<TaskInput>,
}

/// Runs an attempt that needs directories, unless the machine is not ready.
pub(super) async fn run_if_ready(deps: Arc<AttemptDeps>, job: Job) {
    let reason = deps.readiness.check_for(&job.assign).await;
    // Fails only when the worker is exiting.
    if reason.is_empty() {
        let _ = deps.events.send(AttemptEvent::Accepted(job.key.clone()));
        run(deps, job).await;
    } else {
        let _ = deps.events.send(AttemptEvent::Rejected(job.key, reason));
    }
}

pub(super) async fn run(deps: Arc<AttemptDeps>, job: Job) {
    let Job { key, assign, runtime, handle, inputs } = job;
    let limits = assign.spec.as_ref().and_then(|spec| spec.limits).unwrap_or_default();
    let time_limits = TimeLimits::new(&assign, &limits);
    let number = assign.attempt;
    let has_programs = needs_directories(&assign);
    let tools = ToolSpans::of(&assign).map(Mutex::new);
    let mut kept = Kept::of(&assign);
    let can_continue = assign.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.exist);
    let (events, mut received) = mpsc::channel(EVENT_BUFFER);
    handle.deltas.set_attempt(number);
    let mut channels = Channels { events, deltas: handle.deltas.clone(), inputs, stop: handle.stop_signal() };
    let redaction = Redaction::default();
    let push = |kind| {
        if let Some(tools) = &tools {
            tools.lock().observe(&kind);
        }
        let event = Event { time: Some(timestamp()), attempt: number, kind: Some(kind), log_seq: 0 };
        handle.push(event);
    };
    let emit = |kind| {
        let events = redaction.event(kind);
        // Output that is held back for redaction is activity as well.
        if events.is_empty() {
            handle.record_activity();
        }
        events.into_iter().for_each(push);
    };
    let mut dirs = None;
    let report = {
        // Boxed, as is what keeps its work: each wrapper of the attempt would move them by value.
        let work =
            Box::pin(execute(&deps, runtime.as_ref(), assign, &mut channels, &mut dirs, &handle, &redaction));
        let work = AssertUnwindSafe(handle.group.scope(work)).catch_unwind();
        let report = drive(pin!(work), &mut received, &handle, &time_limits, &emit).await;
        match report {
            Some(Ok(report)) => report,
            Some(Err(_)) => {
                RunReport::failed(FailureClass::Crash, "the worker's runtime panicked; see the worker's log")
            }
            None => RunReport::new(RunOutcome::Stopped { by: "kill" }),
        }
    };
    // Covers programs that the runtime has dropped, too.
    handle.group.ended().await;
    // Not only at the end: files may wait for their storage for days.
    deps.private.close(has_programs).for_each(emit);
    while let Ok(kind) = received.try_recv() {
        emit(kind);
    }
    // The runtime reads nothing any more.
    channels.inputs.close();
    while channels.inputs.try_recv().is_ok() {
        emit(notice(Severity::Low, "input_unheard", UNHEARD));
    }
    redaction.flush().into_iter().for_each(push);
    let mut report = redaction.report(report).await;
    let mut undelivered = None;
    // Of an attempt that was superseded nothing counts.
    let counts = handle.lock().stop_reason != Some(StopReason::Stale);
    // An attempt that did not begin has nothing to keep, and an earlier one may have.
    let begun = |dirs: &&AttemptDirs| dirs.started || !can_continue;
    let deliver = matches!(report.outcome, RunOutcome::Succeeded(_));
    if deliver {
        handle.finish();
    }
    if let Some(dirs) = dirs.as_mut().filter(|_| deliver && deps.discard_conversations) {
        dirs.discard_checkpoint();
    }
    if let Some(dirs) = dirs.as_ref().filter(|_| counts).filter(begun) {
        let can_wait = deliver && !deps.temporary_state && dirs.undelivered.is_none();
        handle.lock().keeping = Some(Keeping::new(can_wait));
        kept.limit = deps.keep_for;
        // Whatever was silent would be so again.
        kept.unusable = report.unanswered && handle.lock().stop_reason == Some(StopReason::Silence);
        let (work, stop) = (Work::of(&report), handle.stop_signal());
        let slot = SlotRelease::default();
        let keep = Box::pin(artifacts::keep_until_stored(&deps.caller, kept, dirs, work, stop, &slot, &emit));
        let mut keep = pin!(handle.group.scope(keep));
        let soon = tokio::time::timeout(SHORT_KEEPING, &mut keep).await;
        let ended = match soon {
            Ok(ended) => {
                // Only files that are fetched keep an attempt from working.
                if ended.is_err() {
                    push(event::Kind::WorkEnded(WorkEnded::default()));
                }
                ended
            }
            Err(_) => {
                push(event::Kind::WorkEnded(WorkEnded::default()));
                let end = || {
                    let reason = handle.lock().stop_reason;
                    result::build(&key.task, key.fence, report.clone(), None, reason, None)
                };
                let kept = storing::without_slot(&deps, &key, &handle, &slot, end, push, keep.as_mut()).await;
                // The next process stores what is on the disk.
                let Some(kept) = kept else { return };
                kept
            }
        };
        match ended {
            Ok((notices, mut delivery)) => {
                notices.into_iter().for_each(emit);
                delivery.iter_mut().for_each(|delivery| redaction.delivery(delivery));
                if let RunOutcome::Succeeded(result) = &mut report.outcome {
                    result.delivery = delivery;
                }
            }
            Err(failed) => match report.outcome {
                RunOutcome::Succeeded(result) => {
                    let Undelivered { mut failure, is_kept, notices, .. } = failed;
                    notices.into_iter().for_each(emit);
                    redaction.failure(&mut failure);
                    report.outcome = RunOutcome::Failed(*failure);
                    // A planned stop of a later delivery is none that has failed.
                    let stopped = matches!(
                        handle.lock().stop_reason,
                        Some(StopReason::WorkerShutdown | StopReason::Disconnected)
                    );
                    let counts = is_kept && !(stopped && dirs.undelivered.is_some());
                    undelivered = counts.then_some(result);
                }
                _ => emit(notice(Severity::High, "artifacts_not_stored", failed.failure.message)),
            },
        }
    }
    // Those that looked at the workspace.
    handle.group.ended().await;
    deps.private.close(has_programs).for_each(emit);
    if let Some(dirs) = dirs {
        dirs.clear(matches!(report.outcome, RunOutcome::Succeeded(_)));
    }
    drop(tools);
    let (reason, obstacle) = {
        let mut state = handle.lock();
        (state.stop_reason, state.obstacle.take())
    };
    let result = result::build(&key.task, key.fence, report, undelivered, reason, obstacle);
    let _ = deps.events.send(AttemptEvent::Ended(key, Box::new(result)));
}

/// Forwards events and enforces the time limits until the runtime returns. `None` if it is stuck.
async fn drive<F: Future>(
    mut work: Pin<&mut F>,
    received: &mut mpsc::Receiver<event::Kind>,
    handle: &AttemptHandle,
    limits: &TimeLimits,
    emit: &(dyn Fn(event::Kind) + Send + Sync),
) -> Option<F::Output> {
    let mut drop_at = None;
    loop {
        let stopping = handle.is_stopping();
        let deadline = limits.deadline.and_then(|at| handle.deadline(at));
        let silence_deadline = limits.silence.and_then(|limit| handle.silence_deadline(limit));
        let wake = if stopping {
            // The request to end carried at most this grace period.
            Some(*drop_at.get_or_insert_with(|| Instant::now() + limits.grace + STUCK_RUNTIME_TIMEOUT))
        } else {
            deadline.into_iter().chain(silence_deadline).min()
        };
        // An attempt that is ending must not block on a disconnected control plane.
        let listens = stopping || !handle.lock().outbox.is_full();
        tokio::select! {
            biased;
            output = &mut work => return Some(output),
            Some(kind) = received.recv(), if listens => emit(kind),
            () = handle.changed.notified() => {}
            () = handle.stream(), if handle.streams() => {}
            () = sleep_until(wake.unwrap_or_else(far_future)) => {
                let now = Instant::now();
                if stopping {
                    if drop_at.is_some_and(|at| at <= now) {
                        return None;
                    }
                } else if limits.deadline.and_then(|at| handle.deadline(at)).is_some_and(|at| at <= now) {
                    handle.request_stop(StopReason::Timeout, limits.grace);
                } else if limits.silence.and_then(|limit| handle.silence_deadline(limit)).is_some_and(|at| at <= now) {
                    handle.request_stop(StopReason::Silence, limits.grace);
                }
            }
        }
    }
}

/// A wake-up later than any limit.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

async fn execute(
    deps: &AttemptDeps,
    runtime: &dyn Runtime,
    mut assign: Box<Assign>,
    channels: &mut Channels,
    slot: &mut Option<AttemptDirs>,
    handle: &AttemptHandle,
    redaction: &Redaction,
) -> RunReport {
    let given = match previous_results::complete(&deps.caller, &mut assign, handle, &channels.events).await {
        Ok(given) => given,
        Err(failed) => return RunReport::new(failed),
    };
    let (mut attempt, used) = if needs_directories(&assign) {
        let events = &channels.events;
        // Most of what this future would hold, and scripts that only emit messages have none of it.
        match Box::pin(prepare::prepare(deps, assign, given, events, slot, handle, redaction)).await {
            Ok(prepared) => (prepared.attempt, prepared.secrets),
            Err(ended) => return RunReport::new(ended),
        }
    } else {
        let redactor = redaction.declare(assign.secrets.values());
        assign.secrets.clear();
        (Attempt::new(assign, redactor), None)
    };
    if let Some(dirs) = slot.as_mut().filter(|_| undelivered::delivers(&attempt.assign)) {
        return undelivered::find(&deps.caller, handle, &attempt.assign, dirs).await;
    }
    if let Some(access) = ModelAccess::of(&attempt) {
        let key = AttemptKey { task: attempt.assign.task_id.as_str().into(), fence: attempt.assign.fence };
        let _ = deps.events.send(AttemptEvent::UsesModel(key, access));
    }
    if let Some(runtime::Kind::Claude(claude)) = kind_mut(&mut attempt.assign)
        && claude.program.is_empty()
    {
        match deps.claude.check().await {
            Ok(version) => deps.readiness.set_runtime_version(&version),
            Err(failed) => return RunReport::new(RunOutcome::Failed(failed)),
        }
        if let Some(program) = &deps.claude_program {
            claude.program = program.to_string_lossy().into_owned();
        }
    }
    if let Some(mut folder) = runtime.checkpoint(&attempt).filter(|_| attempt.assign.checkpoints.is_some())
        && let Some(dirs) = slot
    {
        let (fetching, mut stop) = (deps.fetching(handle, &channels.events), handle.stop_signal());
        let continued = continuing::restore(fetching, &attempt.assign, &mut folder, dirs, &mut stop);
        match continued.await {
            Ok(continued) => attempt.continued = continued,
            Err(ended) => return RunReport::new(ended),
        }
        attempt.unheard = continuing::unheard(&attempt, &folder).await;
        dirs.checkpoint = Some((folder, attempt.redactor.clone()));
    }
    handle.earlier.forget().await;
    let pins = match commands::pins(&attempt, slot.as_ref()).await {
        Ok(pins) => pins,
        Err(ended) => return RunReport::new(ended),
    };
    // What an earlier agent has left would take part in filling what all attempts share.
    let is_clean = attempt.continued.is_none() && slot.as_ref().is_none_or(|dirs| dirs.fresh);
    let _cache = match setup_cache::open(deps, &mut attempt, channels, handle, is_clean).await {
        Ok(cache) => cache,
        Err(ended) => return RunReport::new(ended),
    };
    if let Err(ended) = commands::set_up(&attempt, channels).await {
        return RunReport::new(ended);
    }
    if let Some(dirs) = slot {
        dirs.start(&attempt.assign);
    }
    handle.start_silence_clock();
    // Without directories there are no processes. Counting costs more than all else of a script that only emits messages.
    let kills = (!attempt.scratch.as_os_str().is_empty()).then(OutOfMemoryKills::so_far);
    let events = channels.events.clone();
    let git = GitSettings::of(in_place(&attempt.assign).then(|| attempt.workspace.clone())).await;
    let kept = Kept::of(&attempt.assign);
    let quiet = tokio::sync::Mutex::new(());
    let work = commands::run_until_done(runtime, &mut attempt, channels, handle, pins.as_ref(), &quiet);
    // Passed on as a pointer.
    let work = Box::pin(work);
    let mut report =
        checkpoints::with_checkpoints(deps, &kept, slot.as_ref(), &events, &quiet, handle, work).await;
    result_schema::check(&attempt.assign, &mut report);
    if let Some(git) = git {
        git.report_changes(&events).await;
    }
    if let Some(kills) = kills {
        kills.explain(&mut report);
    }
    match used {
        Some((folder, used)) => super::secrets::retry_after_rotation(report, &folder, &used).await,
        None => report,
    }
}

/// Whether the attempt needs directories, as one with programs does. Most scripts only emit messages; directories would dominate their cost.
pub(super) fn needs_directories(assign: &Assign) -> bool {
    let Some(spec) = &assign.spec else { return true };
    match spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref()) {
        Some(runtime::Kind::Scripted(script)) => {
            let commands = !spec.setup.is_empty() || assign.setup_cache.is_some() || spec.done_when.is_some();
            commands || Scripted::needs_directories(script)
        }
        _ => true,
    }
}

fn kind_mut(assign: &mut Assign) -> Option<&mut runtime::Kind> {
    assign.spec.as_mut()?.runtime.as_mut()?.kind.as_mut()
}

pub(super) fn timestamp() -> pbjson_types::Timestamp {
    let micros = rota_telemetry::clock::unix_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    pbjson_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
