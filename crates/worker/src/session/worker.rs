//! Session loop: connects, reconnects, and handles attempts' notifications until nothing is left to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use parking_lot::Mutex;
use rota_proto::v1::{OnDisconnect, TaskInput};
use rota_proto::worker::v1::{
    Release, Result as AttemptResult, SessionRequest, Welcome, WorkerStatus, session_request::Kind,
};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::attempt::{AttemptEvent, AttemptKey};
use super::confinement::Confinement;
use super::connect::{Connection, is_replaced};
use super::declared::Token;
use super::deps::{self, AttemptDeps};
use super::disconnected::backoff;
use super::handle::AttemptHandle;
use super::heartbeat::{self, HeartbeatTiming, LastReceived};
use super::model_access::ModelAccess;
use super::outgoing::OutgoingQueue;
use super::private_modes::PrivateModes;
use super::readiness::Readiness;
use super::storing::{LeftBehind, MAX_STORING, Written};
use super::{Error, Options};
use crate::metrics::Sampler;
use crate::runtimes::claude::Installed;
use crate::workspace::Root;

/// Duration after which a session counts as stable, which resets the reconnect backoff.
const STABLE_SESSION_AFTER: Duration = Duration::from_secs(10);
/// Time for the control plane to end the call after the last message.
pub(super) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// An attempt held by this worker, from its assignment until its result is acknowledged.
pub(super) struct AttemptEntry {
    pub(super) handle: Arc<AttemptHandle>,
    pub(super) inputs: mpsc::Sender<TaskInput>,
    pub(super) last_input: i64,
    /// None of its processes is left; its slot is free.
    pub(super) ended: bool,
    pub(super) result: Option<Box<AttemptResult>>,
    pub(super) result_sent: bool,
    /// Whether the attempt is in `Worker::outgoing`.
    pub(super) queued: bool,
    /// Whether it holds no slot: it only stores what it has left.
    pub(super) storing: bool,
    /// What an attempt of an earlier process has left, until the control plane has confirmed that it counts.
    pub(super) left: Option<Box<LeftBehind>>,
    /// The write of its result to the disk, for a later process.
    pub(super) on_disk: Option<Written>,
    /// What its model calls use, once that is known.
    pub(super) access: Option<ModelAccess>,
    pub(super) span: tracing::Span,
}

impl AttemptEntry {
    pub(super) fn new(
        handle: Arc<AttemptHandle>,
        inputs: mpsc::Sender<TaskInput>,
        span: tracing::Span,
    ) -> Self {
        let (ended, result, result_sent, queued) = (false, None, false, false);
        let (storing, left, on_disk, access) = (false, None, None, None);
        Self {
            handle,
            inputs,
            last_input: 0,
            ended,
            result,
            result_sent,
            queued,
            storing,
            left,
            on_disk,
            access,
            span,
        }
    }
}

pub(super) struct Worker {
    pub(super) options: Options,
    pub(super) deps: Arc<AttemptDeps>,
    pub(super) attempts: HashMap<AttemptKey, AttemptEntry>,
    /// Number of `attempts` that hold a slot: they have not ended, and do more than to store.
    pub(super) running: usize,
    pub(super) outgoing: OutgoingQueue,
    pub(super) draining: bool,
    pub(super) attempt_events: mpsc::UnboundedReceiver<AttemptEvent>,
    sampler: Arc<Mutex<Sampler>>,
    pub(super) reconnect_delays: ExponentialBackoff,
    /// Time at which a forced shutdown stops waiting for results to be acknowledged.
    pub(super) give_up_at: Option<Instant>,
    /// Epoch of the last session.
    pub(super) epoch: Option<i64>,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) reconnect_grace: Duration,
    /// Time of the disconnect; `None` while connected.
    pub(super) disconnected_at: Option<Instant>,
    /// Time of the first of the refusals since the last session.
    pub(super) refused_since: Option<Instant>,
    /// The reconnect grace has expired and the agent's disconnect policy was applied.
    pub(super) lease_expired: bool,
    pub(super) orphaned: bool,
    /// What the worker reports about its machine.
    pub(super) status: watch::Receiver<WorkerStatus>,
    /// Reason why attempts are not isolated.
    pub(super) not_isolated: Option<String>,
    /// What the last attempt used of the agent's.
    pub(super) access: ModelAccess,
}

/// Time between two searches for what other workers have left behind.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// Removes what other workers have left behind, now and again, as long as this one exists.
fn sweep_others(deps: &Arc<AttemptDeps>, keep: Duration) {
    let deps = Arc::downgrade(deps);
    spawn("sweep", OnExit::Done, async move {
        while let Some(deps) = deps.upgrade() {
            let swept = tokio::task::spawn_blocking(move || deps.root.sweep_others(keep)).await;
            if swept.is_err() {
                return;
            }
            sleep(SWEEP_INTERVAL).await;
        }
    });
}

enum SessionEnd {
    /// Drained, with nothing left to deliver.
    Done,
    Lost(String),
    /// Another process holds this worker's name; reconnecting would take it away again.
    Replaced,
}

impl Worker {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let root = Root::open(
            options.state_dir.clone(),
            &options.namespace,
            &options.worker,
            options.supervisors_lock.clone(),
        )
        .map_err(|source| Error::State { path: options.state_dir.clone(), source })?;
        let (sender, attempt_events) = mpsc::unbounded_channel();
        let claude_program = options.claude_program.clone();
        let claude = Installed::new(claude_program.clone());
        let secrets_dir = options.secrets_dir.clone();
        let not_isolated = options.not_isolated();
        if let Some(reason) = &not_isolated {
            tracing::warn!(reason, "attempts are not isolated from this worker and from each other");
        }
        let confinement = not_isolated.is_none().then(|| Confinement::new(&options.paths()));
        let token = Token { value: options.token.clone(), file: options.token_file.clone() };
        let readiness =
            Arc::new(Readiness::new(&options.state_dir, options.min_free_disk, options.min_free_memory));
        Ok(Self {
            status: readiness.subscribe(),
            access: ModelAccess::default(),
            deps: Arc::new(AttemptDeps {
                keep_for: options.orphan_timeout,
                checkpoint_interval: options.checkpoint_interval,
                delivery_timeout: options.delivery_timeout,
                storing_timeout: options.storing_timeout,
                temporary_state: options.temporary_state,
                storing: Arc::new(Semaphore::new(MAX_STORING)),
                connected: watch::Sender::new(false),
                ends: CancellationToken::new(),
                discard_conversations: options.discard_conversations,
                readiness,
                caller: options.caller(),
                root,
                claude_program,
                claude,
                secrets_dir,
                confinement,
                private: PrivateModes::of(&options.paths().private),
                token,
                events: sender,
            }),
            attempts: HashMap::new(),
            running: 0,
            outgoing: OutgoingQueue::default(),
            draining: options.only_store,
            attempt_events,
            sampler: Arc::default(),
            reconnect_delays: backoff(),
            give_up_at: None,
            epoch: None,
            on_disconnect: OnDisconnect::Unspecified,
            reconnect_grace: Duration::MAX,
            disconnected_at: None,
            refused_since: None,
            lease_expired: false,
            orphaned: false,
            not_isolated,
            options,
        })
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let _ends = self.deps.ends.clone().drop_guard();
        tokio::select! {
            biased;
            is_alone = self.deps.root.earlier_process_ended() => {
                let (worker, path) = (self.options.worker.clone(), self.options.state_dir.clone());
                if !is_alone.map_err(|source| Error::State { path: path.clone(), source })? {
                    return Err(Error::Running { worker, path });
                }
            },
            () = shutdown.cancelled() => return Ok(()),
        }
        self.deps.root.supervisors_ended().await;
        self.find_left();
        self.deps.readiness.check().await;
        Readiness::watch(Arc::downgrade(&self.deps.readiness));
        deps::probe_claude(&self.deps);
        while let Some(connection) = self.open_session(&shutdown).await? {
            let began = Instant::now();
            match self.run_session(connection, &shutdown).await {
                SessionEnd::Done => break,
                SessionEnd::Replaced => return Err(self.on_replaced().await),
                SessionEnd::Lost(reason) => {
                    tracing::warn!(reason, running = self.running, "session lost, reconnecting");
                    self.disconnected_at = Some(Instant::now());
                    self.deps.connected.send_replace(false);
                    self.outgoing.clear();
                    for entry in self.attempts.values_mut() {
                        entry.queued = false;
                        entry.handle.set_followed(false);
                    }
                    if began.elapsed() >= STABLE_SESSION_AFTER {
                        self.reconnect_delays = backoff();
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a session from its Welcome to its end.
    async fn run_session(&mut self, connection: Connection, shutdown: &CancellationToken) -> SessionEnd {
        let Connection { out, heartbeats, mut inbound, welcome } = connection;
        let (closed, last_received) = (CancellationToken::new(), LastReceived::now());
        let _closed = closed.clone().drop_guard();
        let timing = self.apply_welcome(welcome).await;
        heartbeat::start(
            timing,
            Arc::clone(&self.sampler),
            heartbeats,
            last_received.clone(),
            closed.clone(),
        );
        let stop_now = self.options.stop_now.clone();
        while !(self.outgoing.is_empty() && self.is_done()) {
            let give_up_at = self.give_up_at;
            tokio::select! {
                () = closed.cancelled() => {
                    // Whatever is at the other end of the connection would not answer the next call either.
                    self.options.channel.renew();
                    return SessionEnd::Lost("no message before the heartbeat timeout".to_owned());
                }
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        last_received.touch();
                        if let Some(kind) = message.kind {
                            self.receive(kind);
                        }
                    }
                    Ok(None) => return SessionEnd::Lost("closed by the control plane".to_owned()),
                    Err(status) if is_replaced(&status) => return SessionEnd::Replaced,
                    Err(status) => return SessionEnd::Lost(format!("{} ({:?})", status.message(), status.code())),
                },
                permit = out.reserve(), if !self.outgoing.is_empty() => {
                    let Ok(permit) = permit else { return SessionEnd::Lost("request stream closed".to_owned()) };
                    if let Some(message) = self.next_message() {
                        permit.send(message);
                    }
                    self.send_more(&out);
                }
                Some(event) = self.attempt_events.recv() => {
                    self.apply_attempt_event(event);
                    while let Ok(event) = self.attempt_events.try_recv() {
                        self.apply_attempt_event(event);
                    }
                }
                Ok(()) = self.status.changed() => {
                    self.status.mark_changed();
                    self.announce_status();
                }
                () = shutdown.cancelled(), if !self.draining || self.options.only_store => self.shut_down(),
                () = stop_now.cancelled(), if give_up_at.is_none() => self.stop_now(),
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some_and(|at| at > Instant::now()) => {}
            }
        }
        // Ends the request stream after its last message; the control plane then ends the call.
        drop((out, _closed));
        let _ = timeout(GOODBYE_TIMEOUT, async { while let Ok(Some(_)) = inbound.message().await {} }).await;
        SessionEnd::Done
    }

    fn send_more(&mut self, out: &mpsc::Sender<SessionRequest>) {
        while let Ok(permit) = out.try_reserve() {
            match self.next_message() {
                Some(message) => permit.send(message),
                None => return,
            }
        }
    }

    /// Starts a session with the control plane's settings and resume instructions.
    async fn apply_welcome(&mut self, welcome: Welcome) -> HeartbeatTiming {
        tracing::info!(
            epoch = welcome.epoch,
            running = self.running,
            slots = self.options.slots,
            "connected"
        );
        if self.epoch.replace(welcome.epoch).is_none() {
            // The first Welcome confirms the name: what is on disk was left by an earlier process.
            self.deps.root.sweep();
            sweep_others(&self.deps, self.options.keep_workspaces);
        }
        let duration = |given: Option<pbjson_types::Duration>, otherwise: u64| {
            let given: Option<Duration> = given.and_then(|given| given.try_into().ok());
            given.filter(|given| !given.is_zero()).unwrap_or(Duration::from_secs(otherwise))
        };
        self.on_disconnect = welcome.on_disconnect();
        self.reconnect_grace = duration(welcome.reconnect_grace, 10);
        (self.disconnected_at, self.refused_since, self.orphaned) = (None, None, false);
        self.deps.connected.send_replace(true);
        self.resume(welcome.resume);
        if std::mem::take(&mut self.lease_expired) {
            self.attempts.values().for_each(|entry| entry.handle.set_paused(false));
        }
        HeartbeatTiming {
            interval: duration(welcome.heartbeat_interval, 10),
            timeout: duration(welcome.heartbeat_timeout, 30),
        }
    }

    pub(super) fn apply_attempt_event(&mut self, event: AttemptEvent) {
        match event {
            AttemptEvent::Accepted(key) => {
                self.announce_status();
                self.accept(key);
            }
            AttemptEvent::Rejected(key, reason) => {
                self.running -= 1;
                // First, so that the attempt does not come back immediately.
                self.announce_status();
                if let Some(entry) = self.attempts.remove(&key) {
                    entry.span.in_scope(|| self.reject(key.task.to_string(), key.fence, &reason));
                }
            }
            AttemptEvent::UsesModel(key, access) => self.uses_model(&key, access),
            AttemptEvent::Streamed(key, delta) => self.stream(&key, delta),
            AttemptEvent::EventsQueued(key) => self.queue(&key),
            AttemptEvent::Storing(key) => self.release_slot(&key),
            AttemptEvent::Waits(key, request_ids) => {
                let (task_id, fence) = (key.task.to_string(), key.fence);
                self.outgoing.push_message(Kind::Release(Release { task_id, fence, request_ids }));
            }
            AttemptEvent::Ended(key, result) => {
                let holds_slot = self.attempts.get(&key).is_none_or(|entry| !entry.storing);
                self.running -= usize::from(holds_slot);
                if let Some(entry) = self.attempts.get_mut(&key) {
                    (entry.ended, entry.result) = (true, Some(result));
                    self.queue(&key);
                    self.leave_results();
                }
            }
        }
    }
}
