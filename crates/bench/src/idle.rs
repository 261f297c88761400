//! `rota bench idle`: cost of connected idle workers, and their return after a restart. The workers only keep their sessions
//! open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use backon::{BackoffBuilder, ExponentialBuilder};
use clap::{Args, ValueEnum};
use rota_client::lazy_channel;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{
    Hello, SessionRequest, SessionResponse, WorkerHeartbeat, session_request, session_response,
};
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::control_plane::{ControlPlane, Usage};
use crate::metrics::Metric;
use crate::plane::{AGENT, CONNECT_TIMEOUT, NAMESPACE};
use crate::scenario::{Common, RoundContext, Scenario};

/// Sessions per connection, as on machines with several workers.
const SESSIONS_PER_CONNECTION: usize = 10;
/// Time between the last connection and the measurement.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Limit of the handshake of a session.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Measure the cost of idle workers, and how soon all are back after a restart
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench idle
  rota bench idle --workers 10000 --transport plain
  rota bench idle --workers 10000 --rounds 5 --against ./rota-before -o json

The control plane is a process of its own. Once all workers are connected, its memory and processor time are measured. \
Then it is stopped with SIGTERM and started again on the same port and store, until all workers are back. Ten workers \
share a connection; they reconnect with the backoff of real ones.")]
pub(crate) struct Idle {
    /// Number of workers, ten per connection
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    workers: usize,
    /// Duration of the measurement of processor time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// Whether the sessions use TLS
    #[arg(long, value_name = "TRANSPORT", value_enum, default_value_t)]
    transport: Transport,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    /// Plain HTTP/2, without encryption
    Plain,
    /// TLS with a self-signed certificate
    Tls,
    /// First without TLS, then with it
    #[default]
    Both,
}

/// Values of one round, by transport.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    plain: Option<Cost>,
    tls: Option<Cost>,
}

/// Cost of idle workers for the control plane.
#[derive(Debug, Serialize)]
struct Cost {
    /// Time until all workers were connected.
    connect_seconds: f64,
    #[serde(flatten)]
    usage: Usage,
    /// Share of one core that the control plane used.
    core_share: f64,
    /// Time from SIGTERM to the end of the process.
    stop_seconds: f64,
    /// Time from the new start to the open listener.
    listen_seconds: f64,
    /// Time from the new start until all workers were back.
    back_seconds: f64,
    /// Memory after the restart, with all workers.
    restarted_resident_bytes: u64,
}

impl Scenario for Idle {
    const NAME: &'static str = "idle";
    const ROUNDS: u32 = 1;
    const METRICS: &'static [Metric] = &[
        Metric::new("memory", "MB", "/plain/resident_bytes").scaled(1e-6),
        Metric::new("processor time", "% of a core", "/plain/core_share").scaled(100.0),
        Metric::new("all connected", "s", "/plain/connect_seconds"),
        Metric::new("restart: all back", "s", "/plain/back_seconds"),
        Metric::new("restart: listening", "s", "/plain/listen_seconds"),
        Metric::new("restart: memory", "MB", "/plain/restarted_resident_bytes").scaled(1e-6),
        Metric::new("TLS: memory", "MB", "/tls/resident_bytes").scaled(1e-6),
        Metric::new("TLS: processor time", "% of a core", "/tls/core_share").scaled(100.0),
        Metric::new("TLS: all connected", "s", "/tls/connect_seconds"),
        Metric::new("TLS: restart: all back", "s", "/tls/back_seconds"),
        Metric::new("TLS: restart: listening", "s", "/tls/listen_seconds"),
        Metric::new("TLS: restart: memory", "MB", "/tls/restarted_resident_bytes").scaled(1e-6),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let mut values = Round { plain: None, tls: None };
        if self.transport != Transport::Tls {
            values.plain = Some(self.measure(round, &round.subfolder("plain")?, false).await?);
        }
        if self.transport != Transport::Plain {
            values.tls = Some(self.measure(round, &round.subfolder("tls")?, true).await?);
        }
        Ok(values)
    }
}

impl Idle {
    async fn measure(&self, round: &RoundContext<'_>, folder: &Path, tls: bool) -> Result<Cost> {
        let name = if tls { "with TLS" } else { "without TLS" };
        let count = self.workers;
        round.progress(&format!("connecting {count} workers {name}"));
        let mut plane = ControlPlane::start(folder, tls).await?;
        let start = Instant::now();
        let connected = Arc::new(watch::Sender::new(Connected::default()));
        let mut sessions = Vec::with_capacity(count);
        let mut channel = None;
        for index in 0..count {
            if index % SESSIONS_PER_CONNECTION == 0 {
                channel = Some(lazy_channel(&plane.client_options())?);
            }
            let channel = channel.clone().context("no connection")?;
            let connected = Arc::clone(&connected);
            sessions.push(spawn("bench-idle", OnExit::Done, keep_session(channel, index, connected)));
        }
        all(&connected, count, 0).await?;
        let connect_seconds = start.elapsed().as_secs_f64();
        sleep(SETTLE_TIME).await;
        round.progress(&format!("{count} idle workers {name} for {} s", self.seconds));
        let (before, start) = (plane.usage()?, Instant::now());
        sleep(Duration::from_secs(self.seconds)).await;
        let (usage, span) = (plane.usage()?, start.elapsed());
        round.progress("restarting the control plane");
        let welcomes = connected.borrow().welcomes;
        let (stopped, listening) = plane.restart().await?;
        let listened = Instant::now();
        all(&connected, count, welcomes).await?;
        let back = listening + listened.elapsed();
        let restarted = plane.usage()?;
        sessions.iter().for_each(tokio::task::JoinHandle::abort);
        drop(sessions);
        plane.stop().await?;
        Ok(Cost {
            connect_seconds,
            usage,
            core_share: (usage.processor_seconds - before.processor_seconds) / span.as_secs_f64(),
            stop_seconds: stopped.as_secs_f64(),
            listen_seconds: listening.as_secs_f64(),
            back_seconds: back.as_secs_f64(),
            restarted_resident_bytes: restarted.resident_bytes,
        })
    }
}

/// Number of open sessions, and of all that were ever opened.
#[derive(Debug, Default)]
struct Connected {
    now: usize,
    welcomes: usize,
}

/// Waits until all workers are connected, by a session newer than a number of them.
async fn all(connected: &watch::Sender<Connected>, workers: usize, after: usize) -> Result<()> {
    let mut receiver = connected.subscribe();
    let wait = receiver.wait_for(|state| state.now == workers && state.welcomes >= after + workers);
    if let Ok(result) = timeout(CONNECT_TIMEOUT, wait).await {
        result?;
        return Ok(());
    }
    bail!("only {} of {workers} workers connected in time", connected.borrow().now)
}

/// Keeps a session open, and opens it again after it was lost.
async fn keep_session(channel: Channel, index: usize, connected: Arc<watch::Sender<Connected>>) {
    let mut epoch = 0;
    loop {
        // As in `rota-worker`.
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(3))
            .without_max_times()
            .with_jitter();
        let mut delays = delays.build();
        let session = loop {
            if epoch > 0 {
                sleep(delays.next().unwrap_or_default()).await;
            }
            let opened = timeout(HANDSHAKE_TIMEOUT, Session::open(channel.clone(), index, epoch)).await;
            if let Ok(Ok(session)) = opened {
                break session;
            }
            if epoch == 0 {
                sleep(delays.next().unwrap_or_default()).await;
            }
        };
        epoch = session.epoch;
        connected.send_modify(|state| (state.now, state.welcomes) = (state.now + 1, state.welcomes + 1));
        session.hold().await;
        connected.send_modify(|state| state.now -= 1);
    }
}

struct Session {
    messages: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
    epoch: i64,
    heartbeat: Duration,
}

impl Session {
    async fn open(channel: Channel, index: usize, last_epoch: i64) -> Result<Self> {
        let (messages, outbox) = mpsc::channel(8);
        let hello = Hello {
            protocol_version: 1,
            namespace: NAMESPACE.to_owned(),
            agent: AGENT.to_owned(),
            worker: format!("idle-{index}"),
            instance: format!("idle-{index}"),
            slots: 1,
            last_epoch,
            ..Default::default()
        };
        messages.send(request(session_request::Kind::Hello(Box::new(hello)))).await?;
        let mut client = WorkerServiceClient::new(channel);
        let mut answers = client.session(ReceiverStream::new(outbox)).await?.into_inner();
        let first = answers.message().await?.and_then(|answer| answer.kind);
        let Some(session_response::Kind::Welcome(welcome)) = first else { bail!("no welcome") };
        let heartbeat = welcome.heartbeat_interval.and_then(|every| u64::try_from(every.seconds).ok());
        let heartbeat = Duration::from_secs(heartbeat.unwrap_or(4).max(1));
        Ok(Self { messages, answers, epoch: welcome.epoch, heartbeat })
    }

    /// Sends heartbeats until the session is lost.
    async fn hold(mut self) {
        let mut ticks = tokio::time::interval(self.heartbeat);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let beat = session_request::Kind::Heartbeat(WorkerHeartbeat::default());
                    if self.messages.send(request(beat)).await.is_err() {
                        return;
                    }
                }
                answer = self.answers.message() => if !matches!(answer, Ok(Some(_))) { return },
            }
        }
    }
}

fn request(kind: session_request::Kind) -> SessionRequest {
    SessionRequest { kind: Some(kind) }
}
