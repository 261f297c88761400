//! What the driver uses of the CLI and the CLI does not document, tried out once per version: a session without a model, whose only model
//! call is refused by this machine. Each part that is missing has a fallback, and is reported.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use super::installed::Identity;
use super::{argv, environment, send};
use crate::files::{Lock, locked};
use crate::layout::State;

/// Time for the CLI to start and give up on its model; it takes half a second.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_OUTPUT_BYTES: u64 = 4 << 20;
const MAX_ERROR_BYTES: u64 = 4 << 10;
const PROJECT: &str = "rota-probe";
const SESSION: &str = "00000000-0000-4000-8000-000000000001";
/// Nothing listens there: the only model call is refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// File with the result of the last probe.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    program: Identity,
    missing: Vec<String>,
}

/// Returns the parts that the CLI lacks, each with what becomes of attempts; from the file if the program is the one that was tried out.
pub(super) async fn missing(program: &Identity, state: &Path) -> Vec<String> {
    let limit = TIMEOUT.as_secs();
    let Some(lock) = exclusive(state).await else {
        return vec![format!("the probe of the CLI waited {limit} s for that of another worker")];
    };
    // What a process that was killed has left.
    let folder = State(state).probe();
    let _ = tokio::fs::remove_dir_all(&folder).await;
    let file = State(state).probe_result();
    let saved = tokio::fs::read(&file).await.ok();
    let saved = saved.and_then(|saved| serde_json::from_slice::<Saved>(&saved).ok());
    if let Some(saved) = saved.filter(|saved| saved.program == *program) {
        return saved.missing;
    }
    let seen = timeout(TIMEOUT, run(program.file(), state, &lock)).await;
    // Its programs would write again what is removed before they have ended.
    drop(lock);
    let ended = exclusive(state).await;
    if ended.is_some() {
        let _ = tokio::fs::remove_dir_all(&folder).await;
    }
    let missing = match seen {
        Ok(Ok(seen)) => seen.missing(),
        // Attempts report what is wrong with the program.
        Ok(Err(error)) => return vec![format!("the probe of the CLI failed: {error}")],
        Err(_) => return vec![format!("the probe of the CLI took more than {limit} s")],
    };
    if let Ok(text) = serde_json::to_vec(&Saved { program: program.clone(), missing: missing.clone() }) {
        // Without it, the next worker tries again.
        let _ = tokio::fs::write(&file, text).await;
    }
    missing
}

/// Takes the lock of the state directory for one probe at a time. Programs of a probe hold it by their standard error, also
/// after the end of the worker that started them.
async fn exclusive(state: &Path) -> Option<File> {
    let (_never_stops, mut stop) = watch::channel(None);
    let path = State(state).probe_lock();
    let lock = timeout(TIMEOUT, locked(&path, Lock::Exclusive, &mut stop)).await;
    lock.ok()?.ok()?
}

/// Responses and lines of the CLI, and the files that it has left.
#[derive(Debug, Default)]
struct Seen {
    initialize: bool,
    usage: bool,
    lifecycle: bool,
    turn: bool,
    list: bool,
    transcript: bool,
    /// Option that it does not know.
    unknown_option: Option<String>,
}

async fn run(program: &Path, state: &Path, lock: &File) -> std::io::Result<Seen> {
    let folder = &State(state).probe();
    lock.set_len(0)?;
    std::fs::create_dir(folder)?;
    let path = |name: &str| -> std::io::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let (home, config, work) = (path("home")?, path("config")?, path("work")?);
    let mut command = Command::new(program);
    command.args(argv::FIXED).args(["--setting-sources=", "--strict-mcp-config", "--max-turns=1"]);
    command.arg(format!("--session-id={SESSION}"));
    command.env_clear().envs(environment::of_every_attempt());
    command.envs([
        ("ANTHROPIC_API_KEY", "probe"),
        ("ANTHROPIC_BASE_URL", NOWHERE),
        ("CLAUDE_CODE_MAX_RETRIES", "0"),
    ]);
    command.env("CLAUDE_CODE_PROJECT_DIR_NAME", PROJECT).env("CLAUDE_CONFIG_DIR", &config);
    command.env("HOME", &home).env("TMPDIR", folder).env("CLAUDE_CODE_TMPDIR", folder);
    if let Some(path) = rota_telemetry::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .current_dir(&work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(lock.try_clone()?)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut seen = Seen::default();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    // Open until the turn is over: the CLI ends when it is closed.
    let mut stdin = stdin.ok_or(std::io::ErrorKind::BrokenPipe)?;
    let lines =
        [send::initialize("initialize", true), send::get_usage("usage"), send::user("probe", SESSION)];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // A program that ends before it reads prints the reason.
    let _ = stdin.write_all(text.as_bytes()).await;
    if let Some(stdout) = stdout {
        let mut lines = BufReader::new(stdout.take(MAX_OUTPUT_BYTES)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let line = serde_json::from_str(&line).unwrap_or_default();
            if seen.line(&line) {
                break;
            }
        }
    }
    drop(stdin);
    let _ = child.start_kill();
    let _ = child.wait().await;
    if !seen.turn {
        let mut text = String::new();
        let stderr = tokio::fs::File::open(State(state).probe_lock()).await?;
        let _ = stderr.take(MAX_ERROR_BYTES).read_to_string(&mut text).await;
        let option = text.split_once("unknown option '").and_then(|(_, rest)| rest.split(['\'', '=']).next());
        seen.unknown_option = option.map(str::to_owned);
    }
    let transcript = config.join("projects").join(PROJECT).join(format!("{SESSION}.jsonl"));
    seen.transcript = transcript.exists();
    Ok(seen)
}

impl Seen {
    /// Takes a line. Returns whether it is the last of interest.
    fn line(&mut self, line: &Value) -> bool {
        match line["type"].as_str() {
            Some("control_response") => {
                let response = &line["response"];
                let succeeded = response["subtype"] == "success";
                match response["request_id"].as_str() {
                    Some("initialize") => self.initialize = succeeded,
                    Some("usage") => self.usage = succeeded && response["response"]["session"].is_object(),
                    _ => {}
                }
            }
            Some("command_lifecycle") => self.lifecycle = true,
            Some("system") if line["subtype"] == "init" => {
                self.turn = true;
                let tools = line["tools"].as_array();
                self.list = tools.is_some_and(|tools| tools.contains(&json!("TodoWrite")));
            }
            Some("result") => return true,
            _ => {}
        }
        false
    }

    fn missing(&self) -> Vec<String> {
        if let Some(option) = &self.unknown_option {
            return vec![format!("the option {option}: attempts fail to start")];
        }
        if !self.turn {
            return vec!["a turn by a message on standard input: attempts fail to start".to_owned()];
        }
        let parts = [
            (self.initialize, "the request `initialize`: attempts may fail to start"),
            (
                self.usage,
                "the request `get_usage`: the cost of a turn is known by its messages alone, while it runs",
            ),
            (
                self.lifecycle,
                "the acknowledgement of messages: a message to an agent that is about to finish may be lost",
            ),
            (self.list, "the to-do list: progress is the last call of a tool"),
            (
                self.transcript,
                "CLAUDE_CODE_PROJECT_DIR_NAME: no checkpoint has the conversation, and attempts that are cut off start over",
            ),
        ];
        parts.into_iter().filter(|(there, _)| !there).map(|(_, what)| what.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(folder: &Path, script: &str) -> Identity {
        let path = folder.join("claude");
        std::fs::write(&path, format!("#!/bin/sh\necho run >>\"{}/runs\"\n{script}\n", folder.display()))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Identity::of(&path).unwrap()
    }

    #[tokio::test]
    async fn missing_parts_are_named_once_per_program() {
        let folder = tempfile::tempdir().unwrap();
        let old = program(
            folder.path(),
            "echo \"error: unknown option '--system-prompt-snapshot=off'\" >&2; exit 1",
        );
        for _ in 0..2 {
            let found = missing(&old, folder.path()).await;
            assert_eq!(found, ["the option --system-prompt-snapshot: attempts fail to start"]);
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap().lines().count(), 1);
        let lines = [
            json!({"type": "control_response", "response": {"subtype": "success", "request_id": "initialize"}}),
            json!({"type": "control_response", "response": {"subtype": "error", "request_id": "usage"}}),
            json!({"type": "system", "subtype": "init", "tools": ["Bash"]}),
            json!({"type": "result"}),
        ];
        let script: String = lines.iter().map(|line| format!("echo '{line}'\n")).collect();
        let new = program(folder.path(), &script);
        let found = missing(&new, folder.path()).await.join("\n");
        for part in ["get_usage", "acknowledgement", "to-do list", "PROJECT_DIR_NAME"] {
            assert!(found.contains(part), "{part} is not in {found}");
        }
        assert!(!found.contains("initialize"), "{found}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "its folders are removed");
    }

    #[tokio::test]
    async fn programs_that_outlive_a_probe_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // As the CLI does that a worker has started which was killed.
        let late = "(sleep 1; mkdir -p \"$CLAUDE_CONFIG_DIR\"; echo >\"$CLAUDE_CONFIG_DIR/.claude.json\"";
        let ended = folder.path().join("ended");
        let late = format!("{late}; echo >\"{}\") >/dev/null &", ended.display());
        missing(&program(folder.path(), &late), folder.path()).await;
        while !ended.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!folder.path().join("claude-probe").exists());
    }
}
