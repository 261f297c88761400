//! Version of the CLI, which a worker reports. Knows nothing of attempts.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

const MAX_OUTPUT_BYTES: u64 = 4096;
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the version that `program --version` prints, such as `2.1.329`. An empty `program` means `claude`
/// on the worker's PATH. Times out after ten seconds.
pub async fn version(program: &str) -> io::Result<String> {
    let program = if program.is_empty() { super::DEFAULT_PROGRAM } else { program };
    let mut command = Command::new(program);
    command.arg("--version");
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    if let Some(path) = rota_telemetry::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    let mut text = String::new();
    let output = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT_BYTES).read_to_string(&mut text).await?;
        }
        child.wait().await
    };
    let status =
        tokio::time::timeout(VERSION_TIMEOUT, output).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if !status.success() {
        return Err(io::Error::other(format!("{program} --version: {status}")));
    }
    // "2.1.329 (Claude Code)"
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_program_is_an_error() {
        assert_eq!(version("/nonexistent/claude").await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
