//! One process of the program: its output, signals to it, and its exit. It never outlives its test.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::tasks::WAIT_TIMEOUT;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Running process, with all lines it has printed on either stream.
pub(crate) struct Process {
    name: String,
    pid: Pid,
    child: Child,
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        let (sender, lines) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        listen(name, child.stdout.take().unwrap(), Arc::clone(&sender));
        listen(name, child.stderr.take().unwrap(), sender);
        Self { name: name.to_owned(), pid, child, lines }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // An exited process is not reaped, so its id is not reused.
        kill(self.pid, signal).unwrap();
    }

    /// Kills the process and waits for its exit.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }

    pub(crate) async fn ended(self) -> Ended {
        self.ended_within(WAIT_TIMEOUT).await
    }

    pub(crate) async fn ended_within(mut self, limit: Duration) -> Ended {
        let status = self.end(limit).await;
        // Its streams end too, unless another process holds them.
        let _ = timeout(Duration::from_secs(15), self.lines.wait_for(|_| false)).await;
        let output = self.lines.borrow().join("\n");
        Ended { status, output }
    }

    /// Waits for the exit, which must come in the time of every wait.
    pub(crate) async fn wait(&mut self) {
        self.end(WAIT_TIMEOUT).await;
    }

    async fn end(&mut self, limit: Duration) -> ExitStatus {
        let ended = timeout(limit, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap()
    }

    /// Returns the output so far.
    pub(crate) fn output(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Returns the number of lines so far with some text.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.lines.borrow().iter().filter(|line| line.contains(what)).count()
    }

    /// Waits for a line with some text, and returns it.
    pub(crate) async fn prints(&mut self, what: &str) -> String {
        let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(what)).cloned();
        let name = &self.name;
        let found = timeout(WAIT_TIMEOUT, self.lines.wait_for(|lines| find(lines).is_some())).await;
        match found.unwrap_or_else(|_| panic!("{name} does not print {what:?}")) {
            Ok(lines) => find(&lines).unwrap(),
            Err(_) => panic!("{name} ended without printing {what:?}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

fn listen(
    name: &str,
    stream: impl AsyncRead + Unpin + Send + 'static,
    sender: Arc<watch::Sender<Vec<String>>>,
) {
    let name = name.to_owned();
    spawn("listen", OnExit::Done, async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{name}: {line}");
            sender.send_modify(|all| all.push(line));
        }
    });
}
