//! One process of the program: what it says, signals to it, and its end. It does not outlive its test.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::tasks::PATIENCE;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// A running process, and all lines it has said on either stream.
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
        let (told, lines) = watch::channel(Vec::new());
        let told = Arc::new(told);
        listen(name, child.stdout.take().unwrap(), Arc::clone(&told));
        listen(name, child.stderr.take().unwrap(), told);
        Self { name: name.to_owned(), pid, child, lines }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // One that has ended was not reaped, so that nobody else has its id.
        kill(self.pid, signal).unwrap();
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.end().await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = self.end().await;
        // Its streams end with it, unless somebody else holds them.
        let _ = timeout(Duration::from_secs(5), self.lines.wait_for(|_| false)).await;
        let said = self.lines.borrow().join("\n");
        Ended { status, said }
    }

    async fn end(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap()
    }

    /// All that it has said so far.
    pub(crate) fn said(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Waits until it says a line that has this in it, and gives the line.
    pub(crate) async fn says(&mut self, what: &str) -> String {
        let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(what)).cloned();
        let name = &self.name;
        let found = timeout(PATIENCE, self.lines.wait_for(|lines| find(lines).is_some())).await;
        match found.unwrap_or_else(|_| panic!("{name} does not say {what:?}")) {
            Ok(lines) => find(&lines).unwrap(),
            Err(_) => panic!("{name} ended and did not say {what:?}"),
        }
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

fn listen(
    name: &str,
    stream: impl AsyncRead + Unpin + Send + 'static,
    told: Arc<watch::Sender<Vec<String>>>,
) {
    let name = name.to_owned();
    spawn("listen", OnExit::Done, async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{name}: {line}");
            told.send_modify(|all| all.push(line));
        }
    });
}
