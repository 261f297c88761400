//! The loop: connected or cut off, taking notes from attempts, until there is nothing left to do.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;
use rota_proto::v1::{OnDisconnect, TaskInput};
use rota_proto::worker::v1::{Draining, Result as Told, SessionRequest, Welcome, session_request::Kind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::attempt::{Context, GRACE, Key, Note};
use super::connect::{Connection, Credentials, Failed, connect, is_replaced};
use super::heartbeat::{self, Heard, Pace};
use super::outbound::Pending;
use super::shared::{Shared, Why};
use super::{Error, Options};
use crate::metrics::Sampler;
use crate::workspace::Root;

/// A session that lasted so long was a good one.
const SETTLED: Duration = Duration::from_secs(10);
/// How long results may take to be heard after everything was stopped.
const FAREWELL: Duration = Duration::from_secs(5);

/// An attempt that this worker has.
pub(super) struct Entry {
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: mpsc::Sender<TaskInput>,
    pub(super) last_input: i64,
    /// Nothing of it is left; its slot is free.
    pub(super) ended: bool,
    pub(super) result: Option<Box<Told>>,
    pub(super) result_sent: bool,
    /// It is in `Worker::pending`.
    pub(super) queued: bool,
    /// What its log lines say.
    pub(super) span: tracing::Span,
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, inputs: mpsc::Sender<TaskInput>, span: tracing::Span) -> Self {
        let (ended, result, result_sent, queued) = (false, None, false, false);
        Self { shared, inputs, last_input: 0, ended, result, result_sent, queued, span }
    }
}

pub(super) struct Worker {
    pub(super) options: Options,
    pub(super) context: Arc<Context>,
    pub(super) attempts: HashMap<Key, Entry>,
    /// Those of `attempts` that have not ended.
    pub(super) running: usize,
    pub(super) pending: VecDeque<Pending>,
    pub(super) draining: bool,
    notes: mpsc::UnboundedReceiver<Note>,
    sampler: Arc<Mutex<Sampler>>,
    delays: ExponentialBackoff,
    /// When everything is given up, once stopping was asked for.
    give_up_at: Option<Instant>,
    /// Of the last session.
    pub(super) epoch: Option<i64>,
    on_disconnect: OnDisconnect,
    reconnect_grace: Duration,
    /// When the connection was lost.
    cut_at: Option<Instant>,
    /// Since when the control plane does not expect it.
    unannounced: Option<Instant>,
    /// Its lease has ended, and what the agent wants then is done.
    lease_over: bool,
    orphaned: bool,
}

/// How a session ended.
enum Left {
    /// Nothing is left to do.
    Done,
    Lost(String),
    /// Another process has this worker's name: coming back would take it from that one.
    Replaced,
}

impl Worker {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let root = Root::open(options.state_dir.clone(), &options.worker)
            .map_err(|source| Error::State { path: options.state_dir.clone(), source })?;
        let (sender, notes) = mpsc::unbounded_channel();
        let claude_program = options.claude_program.clone();
        let secrets_dir = options.secrets_dir.clone();
        Ok(Self {
            context: Arc::new(Context { root, claude_program, secrets_dir, notes: sender }),
            attempts: HashMap::new(),
            running: 0,
            pending: VecDeque::new(),
            draining: false,
            notes,
            sampler: Arc::default(),
            delays: backoff(),
            give_up_at: None,
            epoch: None,
            on_disconnect: OnDisconnect::Unspecified,
            reconnect_grace: Duration::MAX,
            cut_at: None,
            unannounced: None,
            lease_over: false,
            orphaned: false,
            options,
        })
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        while let Some(connection) = self.open(&shutdown).await? {
            let began = Instant::now();
            match self.serve(connection, &shutdown).await {
                Left::Done => break,
                Left::Replaced => return Err(self.replaced().await),
                Left::Lost(why) => {
                    tracing::warn!(why, running = self.running, "the session is lost");
                    self.cut_at = Some(Instant::now());
                    self.pending.clear();
                    self.attempts.values_mut().for_each(|entry| entry.queued = false);
                    if began.elapsed() >= SETTLED {
                        self.delays = backoff();
                    }
                }
            }
        }
        Ok(())
    }

    async fn replaced(&mut self) -> Error {
        tracing::error!("another process has this worker's name");
        self.end_all().await;
        Error::Replaced(self.options.worker.clone())
    }

    /// Ends what runs here, since the control plane will not have this worker.
    async fn end_all(&mut self) {
        self.stop_all(Why::WorkerEnds);
        while self.running > 0 {
            let Some(note) = self.notes.recv().await else { return };
            self.note(note);
        }
    }

    /// Opens a session, however long it takes. None when there is nothing left to do.
    async fn open(&mut self, shutdown: &CancellationToken) -> Result<Option<Connection>, Error> {
        loop {
            if self.epoch.is_some() {
                let delay = self.delays.next().unwrap_or_default();
                if self.meanwhile(sleep(delay), shutdown).await.is_none() {
                    return Ok(None);
                }
            }
            let credentials =
                Credentials { token: self.options.token.clone(), file: self.options.token_file.clone() };
            let connecting = connect(self.options.channel.clone(), credentials, self.hello());
            match self.meanwhile(connecting, shutdown).await {
                None => return Ok(None),
                Some(Ok(connection)) => return Ok(Some(connection)),
                // A key set that cannot be fetched for a while must not cost a long run.
                Some(Err(Failed::Refused { code: Code::Unauthenticated, message })) if self.running > 0 => {
                    tracing::error!(message, "the control plane does not know this worker any more");
                }
                Some(Err(Failed::Refused { code, message })) => {
                    tracing::error!(?code, message, "the control plane refuses this worker");
                    self.end_all().await;
                    return Err(Error::Refused { code, message });
                }
                Some(Err(Failed::Replaced)) => return Err(self.replaced().await),
                Some(Err(Failed::NotAnnounced(message))) => {
                    let since = *self.unannounced.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.options.orphan_timeout {
                        self.end_all().await;
                        return Err(Error::Refused { code: Code::PermissionDenied, message });
                    }
                    tracing::info!(message, "waiting to be announced");
                }
                Some(Err(Failed::Unreachable(why))) => tracing::warn!(why, "no session"),
            }
            if self.epoch.is_none() {
                let delay = self.delays.next().unwrap_or_default();
                if self.meanwhile(sleep(delay), shutdown).await.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    /// Waits for something while cut off. None when there is nothing left to do.
    async fn meanwhile<F: Future>(&mut self, future: F, shutdown: &CancellationToken) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            if self.is_done() {
                return None;
            }
            let timer = self.timer();
            let stop_now = self.options.stop_now.clone();
            tokio::select! {
                output = &mut future => return Some(output),
                Some(note) = self.notes.recv() => self.note(note),
                () = shutdown.cancelled(), if !self.draining => self.drain("the worker was told to end"),
                () = stop_now.cancelled(), if self.give_up_at.is_none() => self.stop_now(),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.tick(),
            }
        }
    }

    /// A session from Welcome to its end.
    async fn serve(&mut self, connection: Connection, shutdown: &CancellationToken) -> Left {
        let Connection { out, heartbeats, mut inbound, welcome } = connection;
        let (over, heard) = (CancellationToken::new(), Heard::now());
        let _over = over.clone().drop_guard();
        let pace = self.welcome(welcome).await;
        heartbeat::start(pace, Arc::clone(&self.sampler), heartbeats, heard.clone(), over.clone());
        let stop_now = self.options.stop_now.clone();
        while !(self.pending.is_empty() && self.is_done()) {
            let give_up_at = self.give_up_at;
            tokio::select! {
                () = over.cancelled() => return Left::Lost("nothing was heard for too long".to_owned()),
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        heard.touch();
                        if let Some(kind) = message.kind {
                            self.receive(kind);
                        }
                    }
                    Ok(None) => return Left::Lost("the control plane ended it".to_owned()),
                    Err(status) if is_replaced(&status) => return Left::Replaced,
                    Err(status) => return Left::Lost(format!("{} ({:?})", status.message(), status.code())),
                },
                permit = out.reserve(), if !self.pending.is_empty() => {
                    let Ok(permit) = permit else { return Left::Lost("the stream is closed".to_owned()) };
                    if let Some(message) = self.next_message() {
                        permit.send(message);
                    }
                    self.send_more(&out);
                }
                Some(note) = self.notes.recv() => {
                    self.note(note);
                    while let Ok(note) = self.notes.try_recv() {
                        self.note(note);
                    }
                }
                () = shutdown.cancelled(), if !self.draining => self.drain("the worker was told to end"),
                () = stop_now.cancelled(), if give_up_at.is_none() => self.stop_now(),
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some_and(|at| at > Instant::now()) => {}
            }
        }
        // Ends the request stream after what is in it, and gives the control plane a moment to end the call.
        drop((out, _over));
        let _ = timeout(FAREWELL, async { while let Ok(Some(_)) = inbound.message().await {} }).await;
        Left::Done
    }

    fn send_more(&mut self, out: &mpsc::Sender<SessionRequest>) {
        while let Ok(permit) = out.try_reserve() {
            match self.next_message() {
                Some(message) => permit.send(message),
                None => return,
            }
        }
    }

    /// Takes up a session.
    async fn welcome(&mut self, welcome: Welcome) -> Pace {
        tracing::info!(
            session = welcome.session,
            epoch = welcome.epoch,
            running = self.running,
            slots = self.options.slots,
            "connected"
        );
        if self.epoch.replace(welcome.epoch).is_none() {
            // The control plane takes it for this worker, so what is there is of an earlier process.
            self.context.root.sweep().await;
        }
        let duration = |given: Option<pbjson_types::Duration>, otherwise: u64| {
            let given: Option<Duration> = given.and_then(|given| given.try_into().ok());
            given.filter(|given| !given.is_zero()).unwrap_or(Duration::from_secs(otherwise))
        };
        self.on_disconnect = welcome.on_disconnect();
        self.reconnect_grace = duration(welcome.reconnect_grace, 10);
        (self.cut_at, self.unannounced, self.orphaned) = (None, None, false);
        self.resume(welcome.resume);
        if std::mem::take(&mut self.lease_over) {
            self.attempts.values().for_each(|entry| entry.shared.set_paused(false));
        }
        Pace {
            interval: duration(welcome.heartbeat_interval, 10),
            timeout: duration(welcome.heartbeat_timeout, 30),
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Events(key) => self.queue(&key),
            Note::Ended(key, result) => {
                self.running -= 1;
                if let Some(entry) = self.attempts.get_mut(&key) {
                    (entry.ended, entry.result) = (true, Some(result));
                    self.queue(&key);
                }
            }
        }
    }

    /// Takes nothing new from now on.
    pub(super) fn drain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.draining, true) {
            tracing::info!(reason, running = self.running, "draining");
            let draining = Draining { reason: reason.to_owned() };
            self.pending.push_back(Pending::Message(Kind::Draining(draining)));
        }
    }

    fn stop_now(&mut self) {
        self.drain("the worker was told to end at once");
        self.give_up_at = Some(Instant::now() + GRACE + FAREWELL);
        self.stop_all(Why::WorkerEnds);
    }

    fn stop_all(&self, why: Why) {
        for entry in self.attempts.values().filter(|entry| !entry.ended) {
            entry.shared.request(why, GRACE);
        }
    }

    fn is_done(&self) -> bool {
        let late = self.give_up_at.is_some_and(|at| at <= Instant::now());
        // What could not be delivered while the worker was orphaned is not waited for either.
        let undeliverable = late || (self.orphaned && self.cut_at.is_some());
        self.draining && (self.attempts.is_empty() || (undeliverable && self.running == 0))
    }

    /// When `tick` has something to do while cut off.
    fn timer(&self) -> Option<Instant> {
        let after = |time: Duration| self.cut_at.and_then(|at| at.checked_add(time));
        let lease = after(self.reconnect_grace).filter(|_| !self.lease_over);
        let orphan = after(self.options.orphan_timeout).filter(|_| !self.orphaned);
        let late = self.give_up_at.filter(|at| *at > Instant::now());
        lease.into_iter().chain(orphan).chain(late).min()
    }

    fn tick(&mut self) {
        let Some(cut_at) = self.cut_at else { return };
        let away = cut_at.elapsed();
        if away >= self.reconnect_grace && !std::mem::replace(&mut self.lease_over, true) {
            match self.on_disconnect {
                OnDisconnect::Pause => self.attempts.values().for_each(|entry| entry.shared.set_paused(true)),
                OnDisconnect::Stop => self.stop_all(Why::CutOff),
                OnDisconnect::Unspecified | OnDisconnect::Continue => {}
            }
        }
        if away >= self.options.orphan_timeout && !std::mem::replace(&mut self.orphaned, true) {
            tracing::error!(running = self.running, "orphaned: no control plane for too long");
            self.stop_all(Why::CutOff);
        }
    }
}

/// Jittered, so that workers do not come back all at once; for ever.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter()
        .build()
}
