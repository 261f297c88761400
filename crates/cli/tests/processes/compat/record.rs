//! Records what a worker and a control plane of an earlier version send each other, for the tests that replay either side
//! without the program: `crates/server/tests/it/replay.rs` and `crates/worker/tests/worker/replay.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use rota_client::{Client, Options, Token};
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{SessionRequest, SessionResponse};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::raw::{self, RawSession};
use rota_testkit::recording::{Call, Entry, Recording};
use rota_testkit::{bytes_grpc, output, tasks};
use tokio::sync::{Notify, mpsc};
use tonic::{Code, Status};

use super::{SCRIPTED, earlier, worker_command};
use crate::process::Process;
use crate::{Fixture, workload};

const HEAD: &str = "\
# Calls of the worker protocol between a worker and a control plane of commit dc61eb4, as bytes in hexadecimal: the proxy
# that wrote this stood between them. Of heartbeats, the first in each direction is kept. The proxy ended the first call.
# In the last one, a worker of a later version asks for version 2 of the protocol. The secret is the text `no secret`.
# Written by `scripts/compat --record`, read by crates/testkit/src/recording.rs.
";

/// Proxy that records each message of each call.
#[derive(Clone)]
struct Recorder {
    server: SocketAddr,
    recording: Arc<Mutex<Recording>>,
    cut: Arc<Notify>,
}

impl Recorder {
    /// Starts a proxy in front of a control plane. Returns its address.
    async fn start(server: SocketAddr) -> Result<(Self, SocketAddr)> {
        let recorder = Self { server, recording: Arc::default(), cut: Arc::default() };
        let (addr, mut calls) = bytes_grpc::serve().await?;
        let proxy = recorder.clone();
        spawn("recorder", OnExit::Done, async move {
            while let Some(call) = calls.recv().await {
                let index = proxy.begin(call.path.to_string());
                spawn("recorded", OnExit::Done, proxy.clone().pass(index, call));
            }
        });
        Ok((recorder, addr))
    }

    fn begin(&self, path: String) -> usize {
        let calls = &mut self.recording.lock().unwrap().0;
        calls.push(Call { path, entries: Vec::new() });
        calls.len() - 1
    }

    /// Records an entry, unless its call has ended or it is another heartbeat.
    fn record(&self, call: usize, entry: Entry) {
        let mut recording = self.recording.lock().unwrap();
        let kind = heartbeat(&entry);
        let earlier = |call: &Call| call.entries.iter().any(|entry| heartbeat(entry) == kind);
        if recording.0[call].status().is_none() && !(kind.is_some() && recording.0.iter().any(earlier)) {
            recording.0[call].entries.push(entry);
        }
    }

    /// Ends a call for the worker, whatever the control plane does.
    fn end(&self, index: usize, call: &mpsc::UnboundedSender<Result<Bytes, Status>>, status: Status) {
        self.record(index, Entry::Ended(status.clone()));
        if status.code() != Code::Ok {
            let _ = call.send(Err(status));
        }
    }

    async fn pass(self, index: usize, call: bytes_grpc::Call) {
        let bytes_grpc::Call { path, authorization, mut requests, responses } = call;
        let (forward, forwarded) = mpsc::unbounded_channel();
        let recorder = self.clone();
        spawn("requests", OnExit::Done, async move {
            while let Ok(Some(message)) = requests.message().await {
                recorder.record(index, Entry::FromWorker(message.clone()));
                let _ = forward.send(message);
            }
            recorder.record(index, Entry::HalfClosed);
        });
        let mut inbound = match bytes_grpc::open(self.server, path, authorization, forwarded).await {
            Ok(inbound) => inbound,
            Err(status) => return self.end(index, &responses, status),
        };
        loop {
            let message = tokio::select! {
                () = self.cut.notified() => Err(Status::unavailable("the connection was cut")),
                message = inbound.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    self.record(index, Entry::ToWorker(message.clone()));
                    let _ = responses.send(Ok(message));
                }
                Ok(None) => return self.end(index, &responses, Status::new(Code::Ok, "")),
                Err(status) => return self.end(index, &responses, status),
            }
        }
    }

    /// Waits for a message to the worker.
    async fn passed(&self, what: &str, is: impl Fn(&ToWorker) -> bool) -> Result<()> {
        tasks::eventually(what, async || {
            let recording = self.recording.lock().unwrap();
            let entries = recording.0.iter().flat_map(|call| &call.entries);
            Ok(entries.filter_map(to_worker).any(|kind| is(&kind)))
        })
        .await
    }

    /// Waits for a heartbeat in each direction.
    async fn heartbeats(&self) -> Result<()> {
        tasks::eventually("heartbeats", async || {
            let recording = self.recording.lock().unwrap();
            let entries = || recording.0.iter().flat_map(|call| &call.entries).filter_map(heartbeat);
            Ok(entries().any(|of_worker| of_worker) && entries().any(|of_worker| !of_worker))
        })
        .await
    }

    /// Waits for the end of a call, and returns its status.
    async fn ended(&self, index: usize) -> Result<Status> {
        let status = || self.recording.lock().unwrap().0.get(index)?.status().cloned();
        tasks::eventually("the end of a call", async || Ok(status().is_some())).await?;
        status().context("the call has not ended")
    }
}

fn to_worker(entry: &Entry) -> Option<ToWorker> {
    match entry {
        Entry::ToWorker(message) => SessionResponse::decode(message.clone()).ok()?.kind,
        _ => None,
    }
}

/// Returns whether a heartbeat is the worker's; `None` for anything else.
fn heartbeat(entry: &Entry) -> Option<bool> {
    match entry {
        Entry::FromWorker(message) => {
            let kind = SessionRequest::decode(message.clone()).ok()?.kind?;
            matches!(kind, FromWorker::Heartbeat(_)).then_some(true)
        }
        entry => matches!(to_worker(entry)?, ToWorker::Heartbeat(_)).then_some(false),
    }
}

/// Runs one task after the other, so that the messages of no two of them mix: the replays follow their order.
async fn work(recorder: &Recorder, client: &Client) -> Result<()> {
    let usage = v1::ScriptUsage { input_tokens: 10, output_tokens: 5, cost_micro_usd: 7 };
    let message = "the first attempt fails".to_owned();
    let failing = v1::ScriptFailure { class: "crash".into(), message, attempts: 1, ..Default::default() };
    let steps = [
        output::line(1, 2),
        Step::Progress(0.5),
        Step::Message("Half of it".into()),
        Step::Usage(usage),
        Step::Fail(failing),
        output::line(2, 2),
        Step::Succeed("in two attempts".into()),
    ];
    let mut retried = tasks::scripted(SCRIPTED, steps);
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(10)), ..Default::default() };
    retried.spec.get_or_insert_default().retry = Some(retry);
    let retried = tasks::create(client, retried).await?.name;
    ended(client, &retried, TaskState::Succeeded).await?;

    // Its question survives a lost connection.
    let steps = [Step::Ask("Go on?".into()), output::line(1, 1), Step::Succeed("answered".into())];
    let mut asking = tasks::scripted(SCRIPTED, steps);
    asking.alias = "asking".to_owned();
    let asking = tasks::create(client, asking).await?;
    let asked = |kind: &ToWorker| matches!(kind, ToWorker::ReportAck(ack) if ack.task_id == asking.uid);
    recorder.passed("the question", asked).await?;
    recorder.cut.notify_one();
    let resumed = |kind: &ToWorker| matches!(kind, ToWorker::Welcome(welcome) if !welcome.resume.is_empty());
    recorder.passed("the next session", resumed).await?;
    tasks::answer(client, &asking.name, "yes").await?;
    ended(client, &asking.name, TaskState::Succeeded).await?;

    let steps = [Step::Output("begun".into()), Step::Hang(true)];
    let hanging = tasks::create(client, tasks::scripted(SCRIPTED, steps)).await?;
    let begun = |kind: &ToWorker| matches!(kind, ToWorker::ReportAck(ack) if ack.task_id == hanging.uid);
    recorder.passed("the output", begun).await?;
    tasks::cancel(client, &hanging.name).await?;
    ended(client, &hanging.name, TaskState::Cancelled).await?;

    // Programs see their environment, a secret and the result of the task before.
    let line =
        r#"echo "$GREETING, ${#WORD} characters, $(grep -o answered "$ROTA_CONTEXT/previous_results.json")""#;
    let mut program = workload::shell(line, &[("GREETING", "Good day")]);
    let spec = program.spec.get_or_insert_default();
    spec.target = tasks::task(SCRIPTED).spec.unwrap_or_default().target;
    (spec.title, spec.prompt) = ("A program".to_owned(), "Unused".to_owned());
    spec.secrets.insert("WORD".to_owned(), "no secret".to_owned());
    spec.depends_on = vec![v1::Dependency { task: "asking".to_owned(), ..Default::default() }];
    let program = tasks::create(client, program).await?.name;
    ended(client, &program, TaskState::Succeeded).await?;
    recorder.heartbeats().await
}

async fn ended(client: &Client, name: &str, wanted: TaskState) -> Result<()> {
    let status = tasks::ended(client, name).await?.status.unwrap_or_default();
    ensure!(status.state() == wanted, "{status:?}");
    Ok(())
}

/// Fails if a recording has anything that identifies the machine.
fn check_is_neutral(recording: &Recording, fixture: &Fixture) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let home = rota_telemetry::env::var_os("HOME").unwrap_or_default();
    let token = std::fs::read_to_string(fixture.dir().join("token"))?;
    let own = [host.trim(), home.to_str().unwrap_or_default(), fixture.mark(), token.trim()];
    for entry in recording.0.iter().flat_map(|call| &call.entries) {
        let (Entry::FromWorker(message) | Entry::ToWorker(message)) = entry else { continue };
        for word in own.into_iter().filter(|word| !word.is_empty()) {
            let found = message.windows(word.len()).any(|part| part == word.as_bytes());
            ensure!(!found, "{word} is in {}", String::from_utf8_lossy(message));
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs an earlier program: make compat"]
async fn calls_between_earlier_programs_are_recorded() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.server_program = Some(earlier()?);
    fixture.start_server().await?;
    let client = fixture.client()?;
    tasks::agent(&client, SCRIPTED, tasks::script([]), &[]).await?;
    let (recorder, addr) = Recorder::start(fixture.addr()).await?;
    let mut command = worker_command(&fixture, Some(&earlier()?), SCRIPTED, fixture.dir().join("token"));
    command.env("ROTA_ENDPOINT", format!("http://{addr}"));
    let process = Process::start(SCRIPTED, command);
    Box::pin(work(&recorder, &client)).await?;

    let name = rota_proto::names::agent(tasks::NAMESPACE, SCRIPTED);
    client.drain_agent(v1::DrainAgentRequest { name, ..Default::default() }).await?;
    let ended = process.ended().await;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(recorder.ended(1).await?.code() == Code::Ok, "the session ended with an error");

    let mut options = Options::new(format!("http://{addr}"));
    options.token = Token::Fixed(std::fs::read_to_string(fixture.dir().join("token"))?.into());
    let newer = Client::new(options)?;
    let hello = FromWorker::Hello(Box::new(raw::hello(SCRIPTED, "newer", 1)));
    let refused = RawSession::open(&newer, Some(hello)).await?.end_status().await;
    ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");

    recorder.ended(2).await?;
    let recording = recorder.recording.lock().unwrap().clone();
    check_is_neutral(&recording, &fixture)?;
    let file = rota_telemetry::env::var_os("ROTA_RECORDING").map(PathBuf::from);
    let file = file.unwrap_or_else(|| fixture.dir().join("recording.txt"));
    let text = format!("{HEAD}{}", recording.to_text());
    std::fs::write(&file, &text)?;
    ensure!(Recording::parse(&text)?.sessions().count() == 2);
    Ok(())
}
