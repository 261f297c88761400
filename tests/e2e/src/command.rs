//! Runs programs as a person types them, and never waits for ever.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// No command of a test takes longer, those that wait for something included.
const LIMIT: Duration = Duration::from_secs(900);

/// What a program said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command.
    pub command: String,
    /// Whether it ended with 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Its standard output; panics when it failed.
    #[track_caller]
    pub fn good(self) -> String {
        assert!(self.ok, "`{}` failed:\n{}{}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard error; panics when it did not fail.
    #[track_caller]
    pub fn bad(self) -> String {
        assert!(!self.ok, "`{}` should have failed, and said:\n{}", self.command, self.stdout);
        self.stderr
    }
}

/// Runs a program with these words.
pub async fn run(line: &str) -> Output {
    run_with(line, "").await
}

/// The same, with something on its standard input.
pub async fn run_with(line: &str, input: &str) -> Output {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    finish(line, command, input).await
}

/// Runs what is put together already.
pub(crate) async fn finish(line: &str, mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{line}` cannot be started: {error}"));
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it may have ended.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended = tokio::time::timeout(LIMIT, async { tokio::join!(talk, child.wait_with_output()).1 });
    match ended.await {
        Ok(Ok(output)) => Output {
            command: line.to_owned(),
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Ok(Err(error)) => panic!("`{line}` cannot be read: {error}"),
        Err(_) => panic!("`{line}` did not end within {LIMIT:?}"),
    }
}
