//! Cost of connected idle workers. The control plane runs as a process of its own, whose memory and processor time
//! are measured; the workers here only keep their sessions open.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rota_client::{Options as ClientOptions, lazy_channel};
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{Hello, SessionRequest, WorkerHeartbeat, session_request, session_response};
use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::plane::{AGENT, NAMESPACE};
use crate::report::Idle;

/// Sessions per connection, as on machines with several workers.
const SESSIONS_PER_CONNECTION: usize = 10;
/// Duration of the measurement.
const MEASUREMENT_TIME: Duration = Duration::from_secs(20);

pub(crate) async fn measure(program: &Path, folder: &Path, count: usize) -> Result<Idle> {
    let mut server = tokio::process::Command::new(program)
        .args(["server", "--listen", "127.0.0.1:0", "--insecure", "--data-dir"])
        .arg(folder)
        .args(["--log-format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", program.display()))?;
    let log = server.stderr.take().context("no log")?;
    let endpoint = tokio::time::timeout(Duration::from_secs(30), listening(BufReader::new(log))).await??;
    let mut sessions = Vec::with_capacity(count);
    let mut channel = None;
    for index in 0..count {
        if index % SESSIONS_PER_CONNECTION == 0 {
            channel = Some(lazy_channel(&ClientOptions::new(endpoint.clone()))?);
        }
        let channel = channel.clone().context("no connection")?;
        sessions.push(session(channel, index).await?);
    }
    let pid = i32::try_from(server.id().context("the control plane has ended")?)?;
    let before = used(pid)?;
    let start = Instant::now();
    tokio::time::sleep(MEASUREMENT_TIME).await;
    let seconds = start.elapsed().as_secs_f64();
    let after = used(pid)?;
    for session in sessions {
        session.abort();
    }
    server.kill().await?;
    Ok(Idle { workers: count, resident_bytes: after.1, core_share: (after.0 - before.0) / seconds, seconds })
}

/// Returns the address from the log, which is drained further so that the server never blocks on it.
async fn listening(log: BufReader<tokio::process::ChildStderr>) -> Result<String> {
    let mut lines = log.lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, rest)) = line.split_once("http://") {
            let addr: String =
                rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
            spawn("bench-server-log", OnExit::Done, async move {
                while let Ok(Some(_)) = lines.next_line().await {}
            });
            return Ok(format!("http://{addr}"));
        }
    }
    bail!("the control plane exited before it was listening")
}

/// Returns processor time in seconds, and resident bytes, of a process.
fn used(pid: i32) -> Result<(f64, u64)> {
    let stat = procfs::process::Process::new(pid)?.stat()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a short run are few")]
    let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    Ok((seconds, stat.rss * procfs::page_size()))
}

async fn session(channel: tonic::transport::Channel, index: usize) -> Result<tokio::task::JoinHandle<()>> {
    let (messages, outbox) = mpsc::channel(8);
    let request = |kind| SessionRequest { kind: Some(kind) };
    let hello = Hello {
        protocol_version: 1,
        namespace: NAMESPACE.to_owned(),
        agent: AGENT.to_owned(),
        worker: format!("idle-{index}"),
        instance: format!("idle-{index}"),
        slots: 1,
        ..Default::default()
    };
    messages.send(request(session_request::Kind::Hello(hello))).await?;
    let mut client = WorkerServiceClient::new(channel);
    let mut answers = client.session(ReceiverStream::new(outbox)).await?.into_inner();
    let first = answers.message().await?.and_then(|answer| answer.kind);
    let Some(session_response::Kind::Welcome(welcome)) = first else { bail!("no welcome") };
    let every =
        welcome.heartbeat_interval.and_then(|every| u64::try_from(every.seconds).ok()).unwrap_or(4).max(1);
    Ok(spawn("bench-idle", OnExit::Done, async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(every));
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let beat = session_request::Kind::Heartbeat(WorkerHeartbeat::default());
                    if messages.send(request(beat)).await.is_err() {
                        return;
                    }
                }
                answer = answers.message() => if !matches!(answer, Ok(Some(_))) { return },
            }
        }
    }))
}
