//! One attempt: its place, its runtime, its time limits. One task from the assignment to the proof
//! that nothing of it is left. It tells the session loop, and does not know whether that is connected.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::FutureExt;
use parking_lot::Mutex;
use rota_proto::v1::{Event, FailureClass, Limits, TaskInput, event, runtime};
use rota_proto::worker::v1::{Assign, Result as Told};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::redact::Redaction;
use super::shared::{Shared, Why};
use super::spans::Tools;
use super::verdict;
use crate::runtimes::scripted::Scripted;
use crate::runtimes::{Attempt, Channels, Ending, Environment, Outcome, Runtime};
use crate::workspace::{NoPlace, Place, Root};

/// Until the kill, where the task does not say.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// A runtime that has not returned so long after its grace is dropped, which ends its programs.
const STUCK: Duration = Duration::from_secs(60);
/// Events that a runtime may be ahead.
const AHEAD: usize = 64;

/// Names an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) task: Arc<str>,
    pub(super) fence: i64,
}

/// What an attempt's task tells the session loop.
pub(super) enum Note {
    /// There are events to send.
    Events(Key),
    /// It has ended, and nothing of it is left.
    Ended(Key, Box<Told>),
}

/// What all attempts share.
pub(super) struct Context {
    pub(super) root: Root,
    pub(super) claude_program: Option<PathBuf>,
    pub(super) secrets_dir: Option<PathBuf>,
    pub(super) notes: mpsc::UnboundedSender<Note>,
}

/// An attempt to be run.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) assign: Assign,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: mpsc::Receiver<TaskInput>,
}

pub(super) async fn run(context: Arc<Context>, job: Job) {
    let Job { key, assign, runtime, shared, inputs } = job;
    let limits = assign.spec.as_ref().and_then(|spec| spec.limits).unwrap_or_default();
    let clock = Clock::new(&assign, &limits);
    let number = assign.attempt;
    let tools = Tools::of(&assign).map(Mutex::new);
    let (events, mut received) = mpsc::channel(AHEAD);
    let channels = Channels { events, inputs, stop: shared.stop() };
    let redaction = Redaction::default();
    let push = |kind| {
        if let Some(tools) = &tools {
            tools.lock().hear(&kind);
        }
        let event = Event { time: Some(timestamp()), attempt: number, kind: Some(kind), log_seq: 0 };
        if shared.push(event) {
            // Nobody listening means that the worker has ended.
            let _ = context.notes.send(Note::Events(key.clone()));
        }
    };
    let tell = |kind| {
        let told = redaction.event(kind);
        // What is held back was said all the same.
        if told.is_empty() {
            shared.heard();
        }
        told.into_iter().for_each(push);
    };
    let mut place = None;
    let mut outcome = {
        let work = execute(&context, &runtime, assign, channels, &mut place, &shared, &redaction);
        let work = AssertUnwindSafe(shared.group.scope(work)).catch_unwind();
        let outcome = follow(pin!(work), &mut received, &shared, &clock, &tell).await;
        match outcome {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => {
                Outcome::failed(FailureClass::Crash, "the worker's runtime failed; its log says how")
            }
            None => Outcome::new(Ending::Stopped { by: "kill" }),
        }
    };
    // The proof, also for programs that the runtime has dropped.
    shared.group.ended().await;
    while let Ok(kind) = received.try_recv() {
        tell(kind);
    }
    redaction.rest().into_iter().for_each(push);
    redaction.outcome(&mut outcome);
    if let Some(place) = place {
        Place::clear(place, matches!(outcome.ending, Ending::Succeeded(_))).await;
    }
    drop(tools);
    let why = shared.lock().why;
    let told = verdict::told(&key.task, key.fence, outcome, why);
    let _ = context.notes.send(Note::Ended(key, Box::new(told)));
}

/// Hands on events and watches the time while the runtime works. None if it is stuck.
async fn follow<F: Future>(
    mut work: Pin<&mut F>,
    received: &mut mpsc::Receiver<event::Kind>,
    shared: &Shared,
    clock: &Clock,
    tell: &(dyn Fn(event::Kind) + Send + Sync),
) -> Option<F::Output> {
    let mut stuck_at = None;
    loop {
        let stopping = shared.is_stopping();
        let silent_at = clock.silence.and_then(|limit| shared.silent_at(limit));
        let wake = if stopping {
            // What asked for the end gave at most this grace.
            Some(*stuck_at.get_or_insert_with(|| Instant::now() + clock.grace + STUCK))
        } else {
            clock.deadline.into_iter().chain(silent_at).min()
        };
        // One that ends must not wait for a control plane that is away.
        let listens = stopping || !shared.lock().outbox.is_full();
        tokio::select! {
            biased;
            output = &mut work => return Some(output),
            Some(kind) = received.recv(), if listens => tell(kind),
            () = shared.changed.notified() => {}
            () = sleep_until(wake.unwrap_or_else(far)) => {
                let now = Instant::now();
                if stopping {
                    if stuck_at.is_some_and(|at| at <= now) {
                        return None;
                    }
                } else if clock.deadline.is_some_and(|at| at <= now) {
                    shared.request(Why::Timeout, clock.grace);
                } else if clock.silence.and_then(|limit| shared.silent_at(limit)).is_some_and(|at| at <= now) {
                    shared.request(Why::Silence, clock.grace);
                }
            }
        }
    }
}

/// Later than anything that matters; the loop looks again then.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

async fn execute(
    context: &Context,
    runtime: &Arc<dyn Runtime>,
    mut assign: Assign,
    channels: Channels,
    kept: &mut Option<Place>,
    shared: &Shared,
    redaction: &Redaction,
) -> Outcome {
    let mut attempt = if needs_place(&assign) {
        let scratch = context.root.scratch(&assign);
        let given = match super::secrets::read(context.secrets_dir.as_deref(), &assign).await {
            Ok(given) => given,
            Err(failed) => return Outcome::new(Ending::Failed(failed)),
        };
        let redactor = redaction.declare(given.values().chain(assign.secrets.values()));
        let environment = super::environment::build(&mut assign, given, &scratch);
        let prepared = context.root.prepare(&assign, &environment, &redactor, &mut shared.stop()).await;
        let place = match prepared {
            Ok(place) => kept.insert(place),
            Err(NoPlace::Failed(failed)) => return Outcome::new(Ending::Failed(failed)),
            Err(NoPlace::Stopped) => return Outcome::new(Ending::Stopped { by: "interrupt" }),
        };
        let (workspace, scratch) = (place.workspace.clone(), place.scratch.clone());
        Attempt { workspace, scratch, environment, assign, redactor }
    } else {
        let redactor = redaction.declare(assign.secrets.values());
        assign.secrets.clear();
        let (workspace, scratch, environment) = (PathBuf::new(), PathBuf::new(), Environment::default());
        Attempt { assign, workspace, scratch, environment, redactor }
    };
    if let (Some(program), Some(runtime::Kind::Claude(claude))) =
        (&context.claude_program, kind_mut(&mut attempt.assign))
        && claude.program.is_empty()
    {
        claude.program = program.to_string_lossy().into_owned();
    }
    shared.begin();
    runtime.run(attempt, channels).await
}

/// Most scripts are nothing but messages; directories would cost more than all the rest.
fn needs_place(assign: &Assign) -> bool {
    match assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref()) {
        Some(runtime::Kind::Scripted(script)) => Scripted::needs_processes(script),
        _ => true,
    }
}

fn kind_mut(assign: &mut Assign) -> Option<&mut runtime::Kind> {
    assign.spec.as_mut()?.runtime.as_mut()?.kind.as_mut()
}

/// An attempt's time limits.
struct Clock {
    deadline: Option<Instant>,
    silence: Option<Duration>,
    grace: Duration,
}

impl Clock {
    fn new(assign: &Assign, limits: &Limits) -> Self {
        let duration = |given: Option<pbjson_types::Duration>| given.and_then(|given| given.try_into().ok());
        Self {
            deadline: assign.deadline.as_ref().map(|at| Instant::now() + until(at)),
            silence: duration(limits.silence_timeout).filter(|limit: &Duration| !limit.is_zero()),
            grace: duration(limits.cancel_grace).unwrap_or(GRACE),
        }
    }
}

/// From now to a wall time, at most a year.
pub(super) fn until(at: &pbjson_types::Timestamp) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(at.seconds).unwrap_or(0));
    let at = UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(at.nanos).unwrap_or(0)));
    let left = at.and_then(|at| at.duration_since(rota_telemetry::clock::now()).ok()).unwrap_or_default();
    left.min(Duration::from_secs(366 * 24 * 3600))
}

fn timestamp() -> pbjson_types::Timestamp {
    let micros = rota_telemetry::clock::unix_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    pbjson_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
