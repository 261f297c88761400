//! The Python worker of `examples/python-worker` against a real `rota server`: it joins a pool, does
//! tasks, goes on over a control plane that is killed and started again, is cancelled, and leaves in order.
//!
//! Its venv is made from PyPI at pinned versions, once, in the target directory. Where that cannot be
//! done the test fails: an example that nobody runs is no example.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const AT_MOST: Duration = Duration::from_secs(60);

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + AT_MOST;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A place with a control plane and all that its callers need.
struct Stage {
    dir: TempDir,
    endpoint: String,
    server: Option<Running>,
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python-worker")
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a-token-for-tests\n").unwrap();
        std::fs::write(dir.path().join("config.toml"), "").unwrap();
        let mut stage = Self { dir, endpoint: String::new(), server: None };
        stage.start("127.0.0.1:0");
        stage
    }

    /// Nothing of whoever runs the test is seen: no configuration, no `rota dev`, no variables.
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
        // It may say more, and must not be held up by a full pipe.
        std::thread::spawn(move || stderr.for_each(|line| eprintln!("server: {line}")));
    }

    /// A client's command: its exit code and what it printed.
    fn rota(&self, args: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } =
            self.command(env!("CARGO_BIN_EXE_rota")).args(args).output().unwrap();
        eprintln!("rota {args:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        (status.code().unwrap(), String::from_utf8(stdout).unwrap().trim_end().to_owned())
    }

    fn worker(&self, name: &str) -> Running {
        Running(self.command(example().join("run.sh")).args(["words", name]).spawn().unwrap())
    }

    /// Creates a task of so many words, of which the worker does twenty a second.
    fn words(&self, count: usize) -> String {
        let prompt = vec!["word"; count].join(" ");
        let (code, id) = self.rota(&["run", "--detach", "--agent", "words", &prompt]);
        assert_eq!(code, 0);
        id
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + AT_MOST;
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

    /// Fractions of its progress, in the order of its log.
    fn progress(&self, id: &str) -> Vec<f64> {
        self.events(id).iter().filter_map(|event| event["progress"]["fraction"].as_f64()).collect()
    }

    fn task(&self, id: &str) -> Value {
        let (code, text) = self.rota(&["get", "task", id, "-o", "json"]);
        assert_eq!(code, 0);
        serde_json::from_str(&text).unwrap()
    }
}

/// Makes venv and stubs.
fn prepare(stage: &Stage) {
    let Output { status, stderr, .. } =
        stage.command(example().join("run.sh")).arg("--prepare").output().unwrap();
    assert!(status.success(), "the worker's venv cannot be made:\n{}", String::from_utf8_lossy(&stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_sixty_lines_of_python() {
    let program = std::fs::read_to_string(example().join("worker.py")).unwrap();
    assert!(program.lines().count() <= 60, "the example has grown to {} lines", program.lines().count());

    let mut stage = Stage::new();
    prepare(&stage);
    let manifest = example().join("agents.yaml");
    assert_eq!(stage.rota(&["apply", "-f", manifest.to_str().unwrap()]).0, 0);
    let mut worker = stage.worker("py-1");

    // It joins, takes a task, tells its progress and brings a result.
    let (code, text) = stage.rota(&["run", "--agent", "words", "--timeout", "1m", "one two three"]);
    assert_eq!((code, text.as_str()), (0, "3 words"));

    // By a capability, too.
    let (code, text) = stage.rota(&["run", "--needs", "counting", "--timeout", "1m", "one two"]);
    assert_eq!((code, text.as_str()), (0, "2 words"));

    // The control plane is killed in the middle, and is back soon: the same attempt goes on, and every
    // event is in the log once.
    let id = stage.words(80);
    stage.until("progress", || stage.progress(&id).len() > 20).await;
    let address = stage.endpoint.trim_start_matches("http://").to_owned();
    drop(stage.server.take());
    stage.start(&address);
    assert_eq!(stage.rota(&["wait", &id, "--timeout", "1m"]).0, 0);
    let task = stage.task(&id);
    assert_eq!(task["status"]["result"]["text"], "80 words", "{task:#}");
    assert_eq!(task["status"]["attempt"], 1, "{task:#}");
    let expected: Vec<_> = (1..=80).map(|word| f64::from(word) / 80.0).collect();
    assert_eq!(stage.progress(&id), expected);

    // Two at a time; one is cancelled, and the other does not mind.
    let (doomed, other) = (stage.words(1200), stage.words(30));
    assert_eq!(stage.rota(&["wait", "--for", "running", "--timeout", "1m", &doomed, &other]).0, 0);
    assert_eq!(stage.rota(&["cancel", &doomed]).0, 0);
    assert_eq!(stage.rota(&["wait", "--timeout", "1m", &doomed]).0, 3);
    assert_eq!(stage.rota(&["wait", "--timeout", "1m", &other]).0, 0);

    // Told to end, it finishes what it has, takes nothing new, and ends.
    let last = stage.words(30);
    assert_eq!(stage.rota(&["wait", "--for", "running", "--timeout", "1m", &last]).0, 0);
    let told = Command::new("kill").arg("-TERM").arg(worker.0.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(worker.ended().await.success());
    let task = stage.task(&last);
    assert_eq!(task["status"]["result"]["text"], "30 words", "{task:#}");
    assert_eq!(task["status"]["attempt"], 1, "{task:#}");
}
