//! One worker process: start, stop and exit. Knows no demand.
//!
//! Its standard input is a pipe that is held open here; its first line is the process's token, and nothing follows. The worker exits when the pipe closes:
//! when it is stopped, or when this process ends for whatever reason.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rota_telemetry::{OnExit, spawn};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Size above which a worker's log is rotated at its next start.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Part of the log's end that is searched for the last line.
const LOG_TAIL_BYTES: u64 = 4096;

/// Variables that workers inherit. The user's keys and agents' sockets are not among them: an attempt that is not isolated
/// can read its worker's environment.
const INHERITED: [&str; 18] = [
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];

/// Whether workers inherit a variable: one of the list in any case, a locale, or a setting of Rota or OpenTelemetry.
fn is_inherited(name: &str) -> bool {
    let listed = INHERITED.iter().any(|known| known.eq_ignore_ascii_case(name));
    let setting = ["LC_", "OTEL_", "ROTA_"].iter().any(|prefix| name.starts_with(prefix));
    (listed || setting) && name != "ROTA_TOKEN"
}

/// Interval between attempts to take a lock; the kernel does not notify.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the programs of a killed worker to end. Their supervisors kill them after 4 seconds.
const SUPERVISORS_TIMEOUT: Duration = Duration::from_secs(30);

/// Description of a process to start.
#[derive(Debug)]
pub(crate) struct ProcessSpec {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub log: PathBuf,
    /// File that the supervisors of the worker's programs lock.
    pub supervisors: PathBuf,
    /// Full name of the agent.
    pub agent: String,
    pub worker: String,
    /// First line of the process's standard input.
    pub token: SecretString,
    /// Identifies this process to the control plane.
    pub instance: String,
    /// Time between the request to stop and the kill.
    pub grace: Duration,
}

/// Exit of a worker process.
#[derive(Debug)]
pub(crate) struct ProcessExit {
    pub agent: String,
    pub worker: String,
    pub instance: String,
    pub status: io::Result<ExitStatus>,
    pub lifetime: Duration,
    pub last_log_line: String,
}

/// Handle of a running process. Dropping it stops the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub instance: String,
    stop: Option<oneshot::Sender<()>>,
}

impl Process {
    /// Asks the process to stop; it is killed after the grace period.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_none()
    }
}

/// Starts a process. Its exit is sent to `exits` exactly once.
pub(crate) fn start(spec: ProcessSpec, exits: mpsc::UnboundedSender<ProcessExit>) -> io::Result<Process> {
    let log = open_log(&spec.log)?;
    let mut child = Command::new(&spec.program)
        .args(&spec.arguments)
        .env_clear()
        .envs(rota_telemetry::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_inherited)))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal reaches this process only, which then stops the workers gracefully.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut lifeline = child.stdin.take();
    let (stop, stopped) = oneshot::channel::<()>();
    let handle = Process { instance: spec.instance.clone(), stop: Some(stop) };
    spawn("worker process", OnExit::Done, async move {
        let started = Instant::now();
        if let Some(stdin) = &mut lifeline {
            let line = format!("{}\n", spec.token.expose_secret());
            // A process that reads nothing has exited, or exits without a token.
            let _ = stdin.write_all(line.as_bytes()).await;
        }
        let status = tokio::select! {
            status = child.wait() => status,
            // Stopping and dropping the handle both drop the sender.
            _ = stopped => {
                drop(lifeline);
                stop_within(&mut child, spec.grace).await
            }
        };
        // Its programs end some seconds later if it was killed. Until then their directories must not be used.
        if tokio::time::timeout(SUPERVISORS_TIMEOUT, unlocked(&spec.supervisors)).await.is_err() {
            tracing::warn!(worker = spec.worker, "programs of an exited worker still run");
        }
        let last_log_line = last_line(&spec.log).unwrap_or_default();
        let ProcessSpec { agent, worker, instance, .. } = spec;
        let lifetime = started.elapsed();
        // The receiver is dropped on shutdown; the exit is of no interest then.
        let _ = exits.send(ProcessExit { agent, worker, instance, status, lifetime, last_log_line });
    });
    Ok(handle)
}

/// Waits until no process holds a lock on a file.
async fn unlocked(path: &Path) {
    while let Ok(file) = File::open(path)
        && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    {
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

async fn stop_within(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Returns the last line of a log that is not blank.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> ProcessSpec {
        ProcessSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: folder.join("w.log"),
            supervisors: folder.join("supervisors"),
            agent: "a".into(),
            worker: "w".into(),
            token: "token".into(),
            instance: "i".into(),
            grace: Duration::from_secs(20),
        }
    }

    #[tokio::test]
    async fn token_is_the_first_line_of_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let process = start(shell(folder.path(), "read -r line; echo \"got $line\""), sender).unwrap();
        assert_eq!(exits.recv().await.unwrap().last_log_line, "got token");
        drop(process);
    }

    #[tokio::test]
    async fn exit_carries_status_and_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let process = start(shell(folder.path(), "echo one; echo two >&2; exit 3"), sender).unwrap();
        let exit = exits.recv().await.unwrap();
        assert_eq!((exit.status.unwrap().code(), exit.last_log_line.as_str()), (Some(3), "two"));
        assert_eq!((exit.worker.as_str(), exit.instance.as_str()), ("w", "i"));
        drop(process);
    }

    #[tokio::test]
    async fn closed_lifeline_stops_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let mut process = start(shell(folder.path(), "cat; echo bye"), sender).unwrap();
        process.stop();
        let exit = exits.recv().await.unwrap();
        assert!(exit.status.unwrap().success());
        assert_eq!(exit.last_log_line, "bye");
    }

    #[tokio::test]
    async fn unresponsive_process_is_killed_after_grace() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let mut spec = shell(folder.path(), "exec sleep 600");
        spec.grace = Duration::from_millis(50);
        drop(start(spec, sender).unwrap());
        assert_eq!(exits.recv().await.unwrap().status.unwrap().code(), None);
    }
}
