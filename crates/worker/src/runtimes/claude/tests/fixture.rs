//! Fixture: a running attempt, and the CLI's side of its pipes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rota_proto::v1::{
    ClaudeRuntime, PermissionPolicy, Runtime, TaskInput, TaskSpec, Workspace, event, runtime,
};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::process::{Pipes, Process, Start};
use super::super::run;
use crate::prices::Prices;
use crate::runtimes::deltas::Deltas;
use crate::runtimes::{Attempt, Channels, Environment, RunReport};
use crate::supervise::{EndedBy, Error, Exit, Program, Stop};

/// CLI scripted by a test.
pub(super) struct FakeCli {
    pub(super) program: Program,
    stdin: Lines<BufReader<DuplexStream>>,
    stdout: DuplexStream,
    pub(super) stderr: DuplexStream,
    exit: watch::Sender<Option<Exit>>,
    /// Grace periods with which it was ended.
    pub(super) ended: Arc<Mutex<Vec<Duration>>>,
}

impl FakeCli {
    pub(super) async fn print(&mut self, line: Value) {
        self.raw(format!("{line}\n").as_bytes()).await;
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        self.stdout.write_all(bytes).await.unwrap();
    }

    /// Reads the next line of its input, except requests for usage; `None` once that is closed.
    pub(super) async fn read(&mut self) -> Option<Value> {
        loop {
            let line = self.any_line().await?;
            if line["request"]["subtype"] != "get_usage" {
                return Some(line);
            }
        }
    }

    /// Reads the next line of its input; `None` once that is closed.
    pub(super) async fn any_line(&mut self) -> Option<Value> {
        let line = self.stdin.next_line().await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// Reads the opening request and the prompt, starts a turn, and returns the prompt's id.
    pub(super) async fn opening(&mut self) -> String {
        assert_eq!(self.read().await.unwrap()["request"]["subtype"], "initialize");
        let prompt = self.read().await.unwrap();
        let message = prompt["message"]["content"].as_str().unwrap();
        // The directories of the attempt follow.
        assert!(message.starts_with("Do it.\n\n(Outside of the working directory"), "{message}");
        let uuid = prompt["uuid"].as_str().unwrap().to_owned();
        self.print(json!({"type": "system", "subtype": "init", "session_id": "s1", "model": "m"})).await;
        uuid
    }

    pub(super) async fn lifecycle(&mut self, uuid: &str, state: &str) {
        self.print(json!({"type": "command_lifecycle", "command_uuid": uuid, "state": state})).await;
    }

    pub(super) async fn result(&mut self, text: &str) {
        self.print(
            json!({"type": "result", "subtype": "success", "is_error": false, "result": text, "num_turns": 1,
            "total_cost_usd": 0.25, "modelUsage": {"m": {"inputTokens": 3, "costUSD": 0.25}}}),
        )
        .await;
    }

    pub(super) fn exit(self, code: i32) {
        self.exit.send_replace(Some(Exit { code: Some(code), signal: None, orphans: 0 }));
    }
}

pub(super) struct Fixture {
    starts: mpsc::Receiver<FakeCli>,
    pub(super) events: mpsc::Receiver<event::Kind>,
    pub(super) inputs: mpsc::Sender<TaskInput>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    report: JoinHandle<RunReport>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new(policy: PermissionPolicy) -> Self {
        Self::with(policy, "", 64, Redactor::default())
    }

    pub(super) fn with(policy: PermissionPolicy, resume: &str, room: usize, redactor: Redactor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("scratch")).unwrap();
        let claude = ClaudeRuntime { permission_policy: policy.into(), ..ClaudeRuntime::default() };
        let mode = rota_proto::v1::WorkspaceMode::Keep;
        let spec = TaskSpec {
            prompt: "Do it.".to_owned(),
            runtime: Some(Runtime { kind: Some(runtime::Kind::Claude(claude)) }),
            workspace: Some(Workspace { mode: mode.into(), ..Workspace::default() }),
            ..TaskSpec::default()
        };
        let attempt = Attempt {
            assign: Box::new(Assign {
                spec: Some(spec),
                // There is a session only after an earlier one.
                attempt: if resume.is_empty() { 1 } else { 2 },
                resume_session: resume.to_owned(),
                ..Assign::default()
            }),
            workspace: directory.path().join("workspace"),
            scratch: directory.path().join("scratch"),
            environment: Environment::default(),
            redactor,
            secret_names: Default::default(),
            conversation: uuid::Uuid::new_v4().to_string(),
            continued: None,
            unheard: Vec::new(),
            round: None,
        };
        let (events_in, events) = mpsc::channel(room);
        let (inputs, inputs_out) = mpsc::channel(8);
        let (stop, stop_out) = watch::channel(None);
        let (starter, starts) = mpsc::channel(2);
        let mut channels =
            Channels { events: events_in, deltas: Deltas::default(), inputs: inputs_out, stop: stop_out };
        let report = spawn("test.attempt", OnExit::Done, async move {
            run::run(&FakeStart(starter), &attempt, &mut channels, false, &Prices::default()).await
        });
        Self { starts, events, inputs, stop, report, _directory: directory }
    }

    pub(super) async fn cli(&mut self) -> FakeCli {
        self.starts.recv().await.unwrap()
    }

    /// Waits for the next event that `of` accepts.
    pub(super) async fn event<T>(&mut self, of: impl Fn(event::Kind) -> Option<T>) -> T {
        loop {
            if let Some(found) = of(self.events.recv().await.unwrap()) {
                return found;
            }
        }
    }

    /// Waits for a notice with this code.
    pub(super) async fn notice(&mut self, code: &str) -> String {
        self.event(|kind| match kind {
            event::Kind::Notice(notice) if notice.code == code => Some(notice.message),
            _ => None,
        })
        .await
    }

    pub(super) fn stop(&self, grace: Duration) {
        self.stop.send_replace(Some(Stop { grace }));
    }

    pub(super) async fn report(self) -> RunReport {
        self.report.await.unwrap()
    }
}

struct FakeStart(mpsc::Sender<FakeCli>);

#[async_trait]
impl Start for FakeStart {
    async fn start(&self, program: Program) -> Result<Box<dyn Process>, Error> {
        let (stdin, their_stdin) = tokio::io::duplex(1 << 16);
        let (stdout, their_stdout) = tokio::io::duplex(1 << 16);
        let (stderr, their_stderr) = tokio::io::duplex(1 << 16);
        let (exit, exited) = watch::channel(None);
        let ended = Arc::default();
        let pipes = Pipes { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr) };
        let process = FakeProcess { pipes: Some(pipes), exited, ended: Arc::clone(&ended) };
        let stdin = BufReader::new(their_stdin).lines();
        let cli = FakeCli { program, stdin, stdout: their_stdout, stderr: their_stderr, exit, ended };
        assert!(self.0.send(cli).await.is_ok());
        Ok(Box::new(process))
    }
}

struct FakeProcess {
    pipes: Option<Pipes>,
    exited: watch::Receiver<Option<Exit>>,
    ended: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl Process for FakeProcess {
    fn pipes(&mut self) -> Option<Pipes> {
        self.pipes.take()
    }

    async fn wait(&mut self) -> Result<Exit, Error> {
        let exit = self.exited.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| *exit).ok_or_else(|| Error::Lost("dropped by the test".to_owned()))
    }

    async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error> {
        self.ended.lock().unwrap().push(grace);
        let exited = *self.exited.borrow();
        Ok(exited.map_or((Exit { code: None, signal: Some(9), orphans: 1 }, EndedBy::Kill), |exit| {
            (exit, EndedBy::Interrupt)
        }))
    }
}
