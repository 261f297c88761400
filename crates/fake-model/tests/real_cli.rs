//! The real Claude Code CLI against the fake model: tool loops, retries, faults, a kill and a resume.
//!
//! The CLI comes from `ROTA_CLAUDE_BIN`, or is installed by `scripts/install-claude`. Without it these tests fail:
//! they prove that the fake is realistic enough.

// Helpers of tests may unwrap as tests do; the lint only knows the tests themselves.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_fake_model::{Handle, Options, Outcome, RequestRecord};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use uuid::Uuid;

const TEST_TIMEOUT: Duration = Duration::from_secs(240);

fn cli() -> &'static Path {
    static CLI: OnceLock<PathBuf> = OnceLock::new();
    CLI.get_or_init(|| {
        // A test has no configuration of its own.
        #[allow(clippy::disallowed_methods)]
        if let Some(path) = std::env::var_os("ROTA_CLAUDE_BIN") {
            return path.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
        let Output { status, stdout, stderr } = Blocking::new(script).output().unwrap();
        assert!(status.success(), "failed to install the CLI:\n{}", String::from_utf8_lossy(&stderr));
        PathBuf::from(String::from_utf8(stdout).unwrap().trim_end())
    })
}

/// A fake model, with home and working directories for the CLI.
struct Fixture {
    model: Handle,
    dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "tmp", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { model: Options::default().start().await.unwrap(), dir }
    }

    async fn spawn(&self, prompt: &str, args: &[&str]) -> Child {
        let path = |name| self.dir.path().join(name);
        let mut command = Command::new(cli());
        command
            .args(["-p", "--output-format", "stream-json", "--verbose"])
            .args(["--tools", "Bash", "--allowedTools", "Bash"])
            .args(args)
            .current_dir(path("work"))
            .env_clear()
            .envs([
                ("PATH", "/usr/local/bin:/usr/bin:/bin"),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ])
            .envs([
                ("DISABLE_TELEMETRY", "1"),
                ("DISABLE_AUTOUPDATER", "1"),
                ("DISABLE_ERROR_REPORTING", "1"),
            ])
            .env("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1")
            .envs([("HOME", path("home")), ("TMPDIR", path("tmp")), ("CLAUDE_CODE_TMPDIR", path("tmp"))])
            .env("ANTHROPIC_BASE_URL", self.model.base_url())
            // Not checked by the fake model.
            .env("ANTHROPIC_API_KEY", Uuid::new_v4().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(prompt.as_bytes()).await.unwrap();
        child
    }

    async fn run(&self, prompt: &str, args: &[&str]) -> Value {
        let child = self.spawn(prompt, args).await;
        last_line(child).await
    }

    async fn play(&self, steps: Value) -> Value {
        self.run(&format!("MOCK{steps}"), &[]).await
    }

    fn seen<T>(&self, what: impl Fn(&RequestRecord) -> T) -> Vec<T> {
        self.model.requests().iter().map(what).collect()
    }
}

async fn last_line(child: Child) -> Value {
    let output =
        tokio::time::timeout(TEST_TIMEOUT, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stdout.lines().last().unwrap_or_else(|| panic!("no output; stderr: {stderr}"));
    serde_json::from_str(last).unwrap()
}

fn bash(command: &str) -> Value {
    json!({"name": "Bash", "input": {"command": command}})
}

#[tokio::test]
async fn tool_loop_completes() {
    let fixture = Fixture::new().await;
    let result = fixture
        .play(json!([
            {"thinking": "hm", "text": "two tools", "tools": [bash("echo one > a"), bash("echo two > b")]},
            {"tools": [bash("cat a b | tr '\\n' ' '")]},
            {"text": "found {{tool_result}}", "usage": {"input_tokens": 1000, "output_tokens": 500}},
        ]))
        .await;
    assert_eq!(result["subtype"], "success");
    assert_eq!(result["is_error"], false);
    assert_eq!(result["result"], "found one two");
    assert!(result["usage"]["output_tokens"].as_u64().unwrap() >= 500);
    assert_eq!(fixture.seen(|request| request.step), [Some(0), Some(1), Some(2)]);
    let session = result["session_id"].as_str();
    assert!(
        fixture
            .seen(|request| request.header("x-claude-code-session-id") == session)
            .iter()
            .all(|same| *same)
    );
}

#[tokio::test]
async fn retryable_faults_are_retried() {
    let fixture = Fixture::new().await;
    let result = fixture
        .play(json!([
            {"fail": [{"status": 429, "retry_after": 0}, {"status": 529}]},
            {"text": "answered", "slow": {"every_ms": 10, "chars": 2}},
        ]))
        .await;
    assert_eq!((&result["is_error"], &result["result"]), (&json!(false), &json!("answered")));
    assert_eq!(fixture.seen(|request| request.status), [429, 529, 200]);
}

#[tokio::test]
async fn broken_streams_are_survived() {
    for fault in [
        json!({"malformed": "json"}),
        json!({"malformed": "order"}),
        json!({"malformed": "truncated"}),
        json!({"malformed": "empty"}),
        json!({"malformed": "html"}),
        json!({"drop_after": 4}),
        json!({"stream_error": "overloaded_error"}),
    ] {
        let fixture = Fixture::new().await;
        let result = fixture.play(json!([{"fail": fault, "text": "whole"}, {"text": "too far"}])).await;
        assert_eq!((&result["is_error"], &result["result"]), (&json!(false), &json!("whole")), "{fault}");
        assert_eq!(fixture.seen(|request| request.step), [Some(0), Some(0)], "{fault}");
    }
}

#[tokio::test]
async fn permanent_failures_are_reported() {
    for (step, status, requests) in [
        (json!({"fail": {"status": 401, "should_retry": false, "times": "always"}}), json!(401), 1),
        (json!({"fail": {"status": 403, "times": "always"}}), json!(403), 1),
        (json!({"stop": "refusal"}), Value::Null, 2),
    ] {
        let fixture = Fixture::new().await;
        let result = fixture.play(json!([step])).await;
        assert_eq!((&result["is_error"], &result["api_error_status"]), (&json!(true), &status), "{step}");
        assert_eq!(fixture.model.counts().messages, requests, "{step}");
    }
}

#[tokio::test]
async fn truncated_answer_continues_with_next_step() {
    let fixture = Fixture::new().await;
    let result =
        fixture.play(json!([{"text": "part one", "stop": "max_tokens"}, {"text": "part two"}])).await;
    assert_eq!(result["result"], "part two");
}

#[tokio::test]
async fn hanging_answer_is_interruptible() {
    let fixture = Fixture::new().await;
    let hang = json!([{"fail": {"hang_after": 4, "times": "always"}, "text": "abcd", "slow": {"every_ms": 1, "chars": 1}}]);
    let child = fixture.spawn(&format!("MOCK{hang}"), &[]).await;
    let hangs = fixture.model.until(|counts| counts.by_outcome.contains_key(&Outcome::Hung));
    tokio::time::timeout(TEST_TIMEOUT, hangs).await.unwrap();
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    tokio::time::timeout(TEST_TIMEOUT, child.wait_with_output()).await.expect("it ends in time").unwrap();
    tokio::time::timeout(TEST_TIMEOUT, fixture.model.until(|counts| counts.active == 0)).await.unwrap();
}

#[tokio::test]
async fn killed_session_resumes_on_another_server() {
    let mut fixture = Fixture::new().await;
    let session = Uuid::new_v4().to_string();
    let steps = json!([
        {"tools": [bash("echo one >> log")]},
        {"tools": [bash("echo two >> log")]},
        {"fail": {"hang_after": 0}, "tools": [bash("echo three >> log")]},
        {"text": "all done"},
    ]);
    let mut child = fixture.spawn(&format!("MOCK{steps}"), &["--session-id", &session]).await;
    let hangs = fixture.model.until(|counts| counts.by_outcome.contains_key(&Outcome::Hung));
    tokio::time::timeout(TEST_TIMEOUT, hangs).await.unwrap();
    // Once the third request waits, both turns must be in the transcript; then the CLI is killed.
    wait_for_transcript(fixture.dir.path(), &session).await;
    child.kill().await.unwrap();

    fixture.model.shutdown().await;
    fixture.model = Options::default().start().await.unwrap();
    let resume = format!("--resume={session}");
    // A new server does not have the count of attempts, so that the step hangs once more.
    let child = fixture.spawn("continue", &[&resume]).await;
    let hangs = fixture.model.until(|counts| counts.by_outcome.contains_key(&Outcome::Hung));
    tokio::time::timeout(TEST_TIMEOUT, hangs).await.unwrap();
    assert_eq!(fixture.seen(|request| request.step), [Some(2)]);
    drop(child);
    let result = fixture.run("continue", &[&resume]).await;
    assert_eq!(result["result"], "all done");
    assert_eq!(std::fs::read_to_string(fixture.dir.path().join("work/log")).unwrap(), "one\ntwo\nthree\n");
}

async fn wait_for_transcript(dir: &Path, session: &str) {
    let is_result = |line: &str| {
        serde_json::from_str::<Value>(line).is_ok_and(|line| {
            line["type"] == "user" && line["message"]["content"][0]["type"] == "tool_result"
        })
    };
    let written = || {
        let projects = std::fs::read_dir(dir.join("home/.claude/projects")).ok()?;
        let files =
            projects.filter_map(|project| Some(project.ok()?.path().join(format!("{session}.jsonl"))));
        let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect::<String>();
        (text.lines().filter(|line| is_result(line)).count() >= 2).then_some(())
    };
    let poll = async {
        while written().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, poll).await.expect("the transcript is written");
}
