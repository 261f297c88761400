//! One worker process: how it is started, told to end, and seen to have ended. Knows no demand.
//!
//! Its standard input is a pipe that is held open here and never written to. When it closes,
//! because we say so or because this process is gone in whatever way, the worker ends.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rota_telemetry::{OnExit, spawn};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A log larger than this is put aside when its worker starts anew.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// What to start.
#[derive(Debug)]
pub(crate) struct Start {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub log: PathBuf,
    /// Whose it is.
    pub agent: String,
    pub worker: String,
    /// Names the process to the control plane.
    pub instance: String,
    /// From being told to end until it is killed.
    pub grace: Duration,
}

/// A process has certainly ended.
#[derive(Debug)]
pub(crate) struct Exited {
    pub agent: String,
    pub worker: String,
    pub instance: String,
    pub status: io::Result<ExitStatus>,
    pub lived: Duration,
    /// The last line of its log.
    pub last_words: String,
}

/// A running process. Dropping it tells the process to end.
#[derive(Debug)]
pub(crate) struct Child {
    pub instance: String,
    stop: Option<oneshot::Sender<()>>,
}

impl Child {
    /// Tells it to end; it is killed if it does not.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_none()
    }
}

/// Starts a process. Its end comes through `exits`, once.
pub(crate) fn start(start: Start, exits: mpsc::UnboundedSender<Exited>) -> io::Result<Child> {
    let log = open_log(&start.log)?;
    let mut child = Command::new(&start.program)
        .args(&start.arguments)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on our terminal is for us; we tell the workers in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let lifeline = child.stdin.take();
    let (stop, stopped) = oneshot::channel::<()>();
    let handle = Child { instance: start.instance.clone(), stop: Some(stop) };
    spawn("worker process", OnExit::Done, async move {
        let began = Instant::now();
        let status = tokio::select! {
            status = child.wait() => status,
            // Told to stop, or forgotten: both drop the sender.
            _ = stopped => {
                drop(lifeline);
                end(&mut child, start.grace).await
            }
        };
        let last_words = last_line(&start.log).unwrap_or_default();
        let Start { agent, worker, instance, .. } = start;
        // Nobody listens when we are ending; then nobody needs to know.
        let _ = exits.send(Exited { agent, worker, instance, status, lived: began.elapsed(), last_words });
    });
    Ok(handle)
}

async fn end(child: &mut tokio::process::Child, grace: Duration) -> io::Result<ExitStatus> {
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > LOG_LIMIT) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// The last line that says something, of the log's last few kilobytes.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Start {
        Start {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: folder.join("w.log"),
            agent: "a".into(),
            worker: "w".into(),
            instance: "i".into(),
            grace: Duration::from_secs(20),
        }
    }

    #[tokio::test]
    async fn its_end_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let child = start(shell(folder.path(), "echo one; echo two >&2; exit 3"), sender).unwrap();
        let exited = exits.recv().await.unwrap();
        assert_eq!((exited.status.unwrap().code(), exited.last_words.as_str()), (Some(3), "two"));
        assert_eq!((exited.worker.as_str(), exited.instance.as_str()), ("w", "i"));
        drop(child);
    }

    #[tokio::test]
    async fn a_closed_lifeline_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let mut child = start(shell(folder.path(), "cat; echo bye"), sender).unwrap();
        child.stop();
        let exited = exits.recv().await.unwrap();
        assert!(exited.status.unwrap().success());
        assert_eq!(exited.last_words, "bye");
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut exits) = mpsc::unbounded_channel();
        let mut begin = shell(folder.path(), "exec sleep 600");
        begin.grace = Duration::from_millis(50);
        drop(start(begin, sender).unwrap());
        assert_eq!(exits.recv().await.unwrap().status.unwrap().code(), None);
    }
}
