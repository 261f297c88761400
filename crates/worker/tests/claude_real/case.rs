//! Test case: a fake model, a workspace, and attempts of the CLI in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rota_fake_model::Handle;
use rota_proto::v1::{
    ClaudeRuntime, Decision, Failure, InputRequest, Limits, Runtime, TaskInput, TaskResult, TaskSpec,
    Workspace, WorkspaceMode, event, runtime,
};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use rota_telemetry::{OnExit, spawn};
use rota_worker::runtimes::claude::Claude;
use rota_worker::runtimes::deltas::Deltas;
use rota_worker::runtimes::{Attempt, Channels, Environment, RunOutcome, RunReport, Runtime as _};
use rota_worker::supervise::{SUBCOMMAND, Stop, Supervisor};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Limit for each wait; generous, for a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Path of the CLI, which is installed on first use.
pub(crate) static CLI: LazyLock<String> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
    let output = std::process::Command::new(script).output().expect("scripts/install-claude runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let supervisor = env!("CARGO_BIN_EXE_rota-worker-test").into();
    Supervisor { program: supervisor, args: vec![SUBCOMMAND.into()] }.install();
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
});

/// A fake model, a workspace, and the options of the next attempt.
pub(crate) struct Case {
    pub(crate) model: Handle,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) claude: ClaudeRuntime,
    pub(crate) limits: Limits,
    pub(crate) environment: BTreeMap<String, String>,
    /// Variables that the task sets itself.
    pub(crate) own_environment: BTreeMap<String, String>,
    pub(crate) resume: String,
    pub(crate) attempt: i32,
    /// Names of the variables that are secrets.
    pub(crate) secret_names: std::collections::BTreeSet<String>,
}

pub(crate) struct Run {
    pub(crate) report: JoinHandle<RunReport>,
    pub(crate) events: mpsc::Receiver<event::Kind>,
    pub(crate) seen: Vec<event::Kind>,
    pub(crate) inputs: mpsc::Sender<TaskInput>,
    pub(crate) stop: watch::Sender<Option<Stop>>,
}

impl Case {
    pub(crate) async fn new() -> Self {
        let model = rota_fake_model::Options::default().start().await.expect("a free port");
        let path = rota_telemetry::env::var("PATH").expect("a PATH");
        let environment = [
            ("PATH", path),
            ("ANTHROPIC_BASE_URL", model.base_url()),
            // Generated for this run.
            ("ANTHROPIC_API_KEY", uuid::Uuid::new_v4().to_string()),
            ("CLAUDE_CODE_MAX_RETRIES", "2".to_owned()),
        ];
        Self {
            model,
            directory: tempfile::tempdir().expect("a directory"),
            claude: ClaudeRuntime { program: CLI.clone(), ..ClaudeRuntime::default() },
            limits: Limits::default(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            own_environment: BTreeMap::new(),
            resume: String::new(),
            attempt: 1,
            secret_names: ["ANTHROPIC_API_KEY".to_owned()].into(),
        }
    }

    pub(crate) fn workspace(&self) -> std::path::PathBuf {
        self.directory.path().join("workspace")
    }

    pub(crate) fn start(&self, script: &Value) -> Run {
        let scratch = self.directory.path().join("scratch");
        std::fs::create_dir_all(self.workspace()).expect("a workspace");
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).expect("a scratch directory");
        let spec = TaskSpec {
            prompt: format!("Please do: MOCK{script}"),
            runtime: Some(Runtime { kind: Some(runtime::Kind::Claude(self.claude.clone())) }),
            limits: Some(self.limits),
            environment: self.own_environment.clone(),
            workspace: Some(Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() }),
            ..TaskSpec::default()
        };
        let attempt = Attempt {
            assign: Box::new(Assign {
                spec: Some(spec),
                attempt: self.attempt,
                resume_session: self.resume.clone(),
                ..Assign::default()
            }),
            workspace: self.workspace(),
            scratch,
            environment: Environment({
                let (all, own) = (self.environment.clone(), self.own_environment.clone());
                all.into_iter().chain(own).collect()
            }),
            redactor: Redactor::default(),
            secret_names: self.secret_names.clone(),
            conversation: uuid::Uuid::new_v4().to_string(),
            continued: None,
            unheard: Vec::new(),
            round: None,
        };
        let context = attempt.scratch.join("context");
        std::fs::create_dir_all(&context).expect("a directory");
        std::fs::create_dir_all(attempt.scratch.join("output")).expect("a directory");
        std::fs::write(context.join("task.json"), format!("{{\"attempt\": {}}}", self.attempt))
            .expect("a file");
        let (events_in, events) = mpsc::channel(10_000);
        let (inputs, inputs_out) = mpsc::channel(8);
        let (stop, stop_out) = watch::channel(None);
        let mut channels =
            Channels { events: events_in, deltas: Deltas::default(), inputs: inputs_out, stop: stop_out };
        let report =
            spawn(
                "test.attempt",
                OnExit::Done,
                async move { Claude::new().run(&attempt, &mut channels).await },
            );
        Run { report, events, seen: vec![], inputs, stop }
    }

    /// Runs an attempt to its end and asserts that no process is left.
    pub(crate) async fn run(&self, script: &Value) -> (RunReport, Vec<event::Kind>) {
        self.end(self.start(script)).await
    }

    pub(crate) async fn end(&self, mut run: Run) -> (RunReport, Vec<event::Kind>) {
        let report = timeout(TEST_TIMEOUT, run.report).await.expect("it ends").expect("it does not panic");
        while let Ok(event) = run.events.try_recv() {
            run.seen.push(event);
        }
        let left: Vec<_> = self.processes().into_iter().map(|pid| (pid, command(pid))).collect();
        assert_eq!(left, [], "processes are left");
        (report, run.seen)
    }

    pub(crate) async fn fails(&self, script: &Value) -> (Failure, Vec<event::Kind>) {
        let (report, seen) = self.run(script).await;
        match report.outcome {
            RunOutcome::Failed(failure) => (failure, seen),
            other => panic!("{other:?}\n{seen:#?}"),
        }
    }

    pub(crate) async fn succeeds(&self, script: &Value) -> (TaskResult, Vec<event::Kind>) {
        let (report, seen) = self.run(script).await;
        (succeeded(report, &seen), seen)
    }

    /// Processes with this case's directory in their environment.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mark = self.directory.path().as_os_str().as_encoded_bytes();
        let ours = |pid: &i32| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.windows(mark.len()).any(|piece| piece == mark))
        };
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }
}

impl Run {
    /// Waits for an event that `of` accepts.
    pub(crate) async fn until<T>(&mut self, of: impl Fn(&event::Kind) -> Option<T>) -> T {
        loop {
            let event = timeout(TEST_TIMEOUT, self.events.recv()).await.expect("in time");
            let event = event.unwrap_or_else(|| panic!("attempt ended: {:#?}", self.seen));
            let found = of(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    pub(crate) async fn asked(&mut self) -> InputRequest {
        self.until(|event| match event {
            event::Kind::InputRequest(request) => Some(request.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn answer(&self, request_id: &str, decision: Decision, text: &str) {
        let input = TaskInput {
            request_id: request_id.to_owned(),
            decision: decision.into(),
            text: text.to_owned(),
            ..TaskInput::default()
        };
        self.inputs.send(input).await.expect("it listens");
    }

    pub(crate) fn stop(&self, grace: Duration) {
        self.stop.send_replace(Some(Stop { grace }));
    }
}

/// Command line of a process.
pub(crate) fn command(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

pub(crate) fn succeeded(report: RunReport, seen: &[event::Kind]) -> TaskResult {
    match report.outcome {
        RunOutcome::Succeeded(result) => result,
        other => panic!("{other:?}\n{seen:#?}"),
    }
}

pub(crate) fn codes(seen: &[event::Kind]) -> Vec<&str> {
    seen.iter()
        .filter_map(|event| match event {
            event::Kind::Notice(notice) => Some(notice.code.as_str()),
            _ => None,
        })
        .collect()
}

/// Outputs of all tool calls.
pub(crate) fn answers(seen: &[event::Kind]) -> Vec<&str> {
    seen.iter()
        .filter_map(|event| match event {
            event::Kind::ToolResult(result) => Some(result.output.as_str()),
            _ => None,
        })
        .collect()
}
