//! The Python worker of `examples/python-worker` against a real `rota server`: it connects, runs tasks, survives a killed
//! control plane, cancels, and drains. Against one by hand: assignments that are repeated or late.
//!
//! Its venv is created once in the target directory, from PyPI at pinned versions. The test fails where that is impossible,
//! since an untested example rots.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

mod control_plane;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use control_plane::ControlPlane;
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Drain, ResultAck, result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

const TIMEOUT: Duration = Duration::from_secs(180);

/// The venv with its stubs, which each start of the worker replaces: one test at a time.
static VENV: Mutex<()> = Mutex::const_new(());

/// Process that never outlives its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the process does not exit");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Temporary directory with a control plane and its clients' configuration.
struct Fixture {
    dir: TempDir,
    endpoint: String,
    server: Option<Running>,
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python-worker")
}

impl Fixture {
    /// Starts a real control plane on a free port.
    fn new() -> Self {
        let mut fixture = Self::at("");
        fixture.start("127.0.0.1:0");
        fixture
    }

    /// Uses the control plane at an address.
    fn at(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a-token-for-tests-that-is-long-enough\n").unwrap();
        std::fs::write(dir.path().join("config.toml"), "").unwrap();
        Self { dir, endpoint: endpoint.to_owned(), server: None }
    }

    /// Returns a command that is isolated from the user's configuration, variables and `rota dev`.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in ["ROTA_TOKEN", "ROTA_CA", "ROTA_NAMESPACE", "ROTA_LOG", "ROTA_SERVER_CONFIG"] {
            command.env_remove(name);
        }
        command
            .env("ROTA_HOME", self.dir.path().join("home"))
            .env("ROTA_CONFIG", self.dir.path().join("config.toml"))
            .env("ROTA_TOKEN_FILE", self.dir.path().join("token"))
            .env("ROTA_ENDPOINT", &self.endpoint)
            .env("ROTA_PYTHON_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-worker"));
        command
    }

    fn start(&mut self, listen: &str) {
        let mut server = self
            .command(env!("CARGO_BIN_EXE_rota"))
            .args(["server", "--listen", listen])
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .arg("--token-file")
            .arg(self.dir.path().join("token"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
        self.server = Some(Running(server));
        let endpoint = stderr.find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        self.endpoint = endpoint.expect("the server listens");
        // Drains the pipe, so that the server never blocks on it.
        std::thread::spawn(move || stderr.for_each(|line| eprintln!("server: {line}")));
    }

    /// Runs a command; returns its exit code and output.
    fn rota(&self, args: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } =
            self.command(env!("CARGO_BIN_EXE_rota")).args(args).output().unwrap();
        eprintln!("rota {args:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        (status.code().unwrap(), String::from_utf8(stdout).unwrap().trim_end().to_owned())
    }

    fn worker(&self, name: &str) -> Running {
        let (code, token) = self.rota(&["admin", "create-worker-token", "words", "--worker", name]);
        assert_eq!(code, 0);
        self.worker_with(name, &token)
    }

    fn worker_with(&self, name: &str, token: &str) -> Running {
        let file = self.dir.path().join(format!("{name}.token"));
        std::fs::write(&file, token).unwrap();
        let mut command = self.command(example().join("run.sh"));
        Running(command.args(["words", name]).env("ROTA_TOKEN_FILE", file).spawn().unwrap())
    }

    /// Creates a task with a number of words, of which the worker processes twenty per second.
    fn words(&self, count: usize) -> String {
        let prompt = vec!["word"; count].join(" ");
        let (code, id) = self.rota(&["run", "--detach", "--agent", "words", &prompt]);
        assert_eq!(code, 0);
        id
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + TIMEOUT;
        while !is() {
            assert!(Instant::now() < until, "{what} did not come");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn events(&self, id: &str) -> Vec<Value> {
        let (code, lines) = self.rota(&["events", id, "-o", "jsonl"]);
        assert_eq!(code, 0);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the progress fractions in the task's log.
    fn progress(&self, id: &str) -> Vec<f64> {
        self.events(id).iter().filter_map(|event| event["progress"]["fraction"].as_f64()).collect()
    }

    fn task(&self, id: &str) -> Value {
        let (code, text) = self.rota(&["get", "task", id, "-o", "json"]);
        assert_eq!(code, 0);
        serde_json::from_str(&text).unwrap()
    }
}

/// Creates the venv and generates the stubs.
fn prepare(fixture: &Fixture) {
    let Output { status, stderr, .. } =
        fixture.command(example().join("run.sh")).arg("--prepare").output().unwrap();
    assert!(status.success(), "the worker's venv cannot be made:\n{}", String::from_utf8_lossy(&stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_worker_runs_tasks() {
    let program = std::fs::read_to_string(example().join("worker.py")).unwrap();
    assert!(program.lines().count() <= 60, "the example has grown to {} lines", program.lines().count());

    let _venv = VENV.lock().await;
    let mut fixture = Fixture::new();
    prepare(&fixture);
    let manifest = example().join("agents.yaml");
    assert_eq!(fixture.rota(&["apply", "-f", manifest.to_str().unwrap()]).0, 0);
    let mut worker = fixture.worker("py-1");

    // It connects, runs a task, reports progress and returns a result.
    let (code, text) = fixture.rota(&["run", "--agent", "words", "--timeout", "1m", "one two three"]);
    assert_eq!((code, text.as_str()), (0, "3 words"));

    // A task that requires its capability.
    let (code, text) = fixture.rota(&["run", "--needs", "counting", "--timeout", "1m", "one two"]);
    assert_eq!((code, text.as_str()), (0, "2 words"));

    // The control plane is killed and restarted: the same attempt continues, and every event is in the log once.
    let id = fixture.words(80);
    fixture.until("progress", || fixture.progress(&id).len() > 20).await;
    let address = fixture.endpoint.trim_start_matches("http://").to_owned();
    drop(fixture.server.take());
    fixture.start(&address);
    assert_eq!(fixture.rota(&["wait", &id, "--timeout", "1m"]).0, 0);
    let task = fixture.task(&id);
    assert_eq!(task["status"]["result"]["text"], "80 words", "{task:#}");
    assert_eq!(task["status"]["attempt"], 1, "{task:#}");
    let expected: Vec<_> = (1..=80).map(|word| f64::from(word) / 80.0).collect();
    assert_eq!(fixture.progress(&id), expected);

    // Two concurrent tasks, one of which is cancelled.
    let (doomed, other) = (fixture.words(1200), fixture.words(30));
    assert_eq!(fixture.rota(&["wait", "--for", "running", "--timeout", "1m", &doomed, &other]).0, 0);
    assert_eq!(fixture.rota(&["cancel", &doomed]).0, 0);
    assert_eq!(fixture.rota(&["wait", "--timeout", "1m", &doomed]).0, 3);
    assert_eq!(fixture.rota(&["wait", "--timeout", "1m", &other]).0, 0);

    // On SIGTERM it finishes its tasks, accepts no new ones, and exits.
    let last = fixture.words(30);
    assert_eq!(fixture.rota(&["wait", "--for", "running", "--timeout", "1m", &last]).0, 0);
    let sent = Command::new("kill").arg("-TERM").arg(worker.0.id().to_string()).status().unwrap();
    assert!(sent.success());
    assert!(worker.ended().await.success());
    let task = fixture.task(&last);
    assert_eq!(task["status"]["result"]["text"], "30 words", "{task:#}");
    assert_eq!(task["status"]["attempt"], 1, "{task:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_and_late_assignments_start_nothing() {
    let _venv = VENV.lock().await;
    let mut control = ControlPlane::start();
    let fixture = Fixture::at(&control.endpoint);
    prepare(&fixture);
    let mut worker = fixture.worker_with("py-1", "a-token");
    let mut session = control.session().await;

    // The same assignment twice, and again while its result is not acknowledged.
    let prompt = "one two three four five";
    session.assign(prompt);
    session.assign(prompt);
    let accepted = session.receive().await;
    assert!(matches!(accepted, Some(FromWorker::Accept(_))), "{accepted:?}");
    for number in 1..=5 {
        let report = session.receive().await;
        let is_next =
            matches!(&report, Some(FromWorker::Report(report)) if report.first_attempt_seq == number);
        assert!(is_next, "report {number} is {report:?}");
    }
    let Some(FromWorker::Result(ended)) = session.receive().await else { panic!("no result") };
    assert_eq!((ended.task_id.as_str(), ended.fence, ended.last_attempt_seq), ("one", 1, 5));
    assert!(
        matches!(&ended.kind, Some(result::Kind::Succeeded(done)) if done.text == "5 words"),
        "{ended:?}"
    );
    session.assign(prompt);

    // After a drain, an assignment is rejected; the next message is about it, none about the repeated one.
    session.send(ToWorker::Drain(Drain::default()));
    session.assign("late");
    let rejected = session.receive().await;
    let is_late = matches!(&rejected, Some(FromWorker::Reject(reject)) if reject.task_id == "late");
    assert!(is_late, "{rejected:?}");

    session.send(ToWorker::ResultAck(ResultAck { task_id: "one".to_owned(), fence: 1, accepted: true }));
    let next = session.receive().await;
    assert!(next.is_none(), "it closes the call after its last attempt: {next:?}");
    drop(session);
    assert!(worker.ended().await.success());
}
