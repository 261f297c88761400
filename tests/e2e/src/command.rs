//! Runs programs from command lines, with a time limit.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Maximum duration of a command, including those that wait.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(900);

/// Output of a program.
#[derive(Debug, Clone)]
pub struct Output {
    pub command: String,
    /// Whether the exit code was 0.
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns the standard output. Panics if the program failed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.ok, "`{}` failed:\n{}{}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// Returns the standard error. Panics if the program succeeded.
    #[track_caller]
    pub fn failure(self) -> String {
        assert!(!self.ok, "`{}` should have failed, but printed:\n{}", self.command, self.stdout);
        self.stderr
    }
}

/// Runs a program with whitespace-separated arguments.
pub async fn run(line: &str) -> Output {
    run_with(line, "").await
}

/// Like [`run`], with standard input.
pub async fn run_with(line: &str, input: &str) -> Output {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    finish(line, command, input).await
}

/// Runs a prepared command.
pub(crate) async fn finish(line: &str, mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start `{line}`: {error}"));
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input may have exited.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended =
        tokio::time::timeout(COMMAND_TIMEOUT, async { tokio::join!(write, child.wait_with_output()).1 });
    match ended.await {
        Ok(Ok(output)) => Output {
            command: line.to_owned(),
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Ok(Err(error)) => panic!("failed to read the output of `{line}`: {error}"),
        Err(_) => panic!("`{line}` did not exit within {COMMAND_TIMEOUT:?}"),
    }
}
