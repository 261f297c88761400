//! The worker's side of a supervisor: starts and authenticates it, sends requests, receives the
//! program's exit. One task per program, which outlives a dropped [`Running`].

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use rota_telemetry::{OnExit, spawn};

use super::control_group::ControlGroup;
use super::protocol::{self, Request, Response, Run, Stage};
use super::stuck::Stuck;
use super::{EndedBy, Error, Exit, Group, Program, Running, Supervisor, orphans};

/// Exit of a program, or the reason why it is unknown.
pub(super) type End = Result<(Exit, EndedBy), Unknown>;

/// Why the exit of a program is unknown.
#[derive(Debug, Clone)]
pub(super) enum Unknown {
    /// The supervisor has ended first.
    Lost(String),
    /// These processes cannot be ended.
    Stuck(String),
}

/// Time for a supervisor to connect, and again to start the program.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn start(program: Program) -> Result<Running, Error> {
    let name = program.program.clone();
    let failed = |source| Error::Start { program: name.clone(), source };
    let SupervisorConnection { mut child, stdio, mut lines, mut writer } = connect().await.map_err(failed)?;
    let control_group = ControlGroup::create();
    let run = Run {
        program: program.program,
        args: program.args,
        environment: program.environment.0,
        directory: program.directory,
        jail: Group::current_jail(),
        control_group: control_group.clone(),
        locks: Group::current_locks(),
    };
    let pid = match timeout(START_TIMEOUT, launch(run, &mut lines, &mut writer)).await {
        Ok(Ok(pid)) => pid,
        failure => {
            drop((lines, writer, stdio));
            let supervisor = child.id();
            // Exits by itself, since its socket is closed.
            let _ = child.wait().await;
            orphans::forget(supervisor);
            control_group.as_ref().map(ControlGroup::close);
            return Err(failed(failure.map_or_else(
                |_| io::ErrorKind::TimedOut.into(),
                |result| result.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
            )));
        }
    };
    let (requests, receiver) = mpsc::unbounded_channel();
    let (ended, end) = watch::channel(None);
    let running = Running { stdin: stdio.0, stdout: stdio.1, stderr: stdio.2, pid, requests, end };
    Group::join_current(&running.requests, &running.end);
    let group = Group::current();
    spawn("supervisor link", OnExit::Done, async move {
        let mut stuck = None;
        let end = drive(receiver, lines, writer, |processes| {
            tracing::error!(processes, "processes of an attempt cannot be ended");
            ended.send_replace(Some(Err(Unknown::Stuck(processes.clone()))));
            stuck = Some(Stuck::new(processes));
        })
        .await;
        let supervisor = child.id();
        if end.is_err() {
            let _ = child.start_kill();
        }
        let _ = child.wait().await;
        orphans::forget(supervisor);
        if end.is_err() {
            // A killed supervisor leaves its processes to the worker. The slot is not free before they have ended.
            let _ = tokio::task::spawn_blocking(orphans::sweep).await;
        }
        let killed = control_group.as_ref().map(ControlGroup::close);
        if let (Some(group), Some(killed)) = (group, killed) {
            group.note_memory(killed);
        }
        if stuck.take().is_none() {
            ended.send_replace(Some(end));
        }
    });
    Ok(running)
}

/// Connection to an authenticated supervisor.
struct SupervisorConnection {
    child: Child,
    stdio: (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>),
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

/// Starts the supervisor process and waits until it has authenticated itself.
async fn connect() -> io::Result<SupervisorConnection> {
    // A directory that only this user may enter, removed as soon as the supervisor has connected.
    let socket_dir = tempfile::Builder::new().prefix("rota-").tempdir()?;
    let path = socket_dir.path().join("s");
    let listener = UnixListener::bind(&path)?;
    let token = uuid::Uuid::new_v4().to_string();
    let supervisor = Supervisor::installed();
    let mut command = Command::new(&supervisor.program);
    command
        .args(&supervisor.args)
        .env_clear()
        .env(protocol::SOCKET_VAR, &path)
        .env(protocol::TOKEN_VAR, &token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = orphans::spawn(&mut command)?;
    let pid = child.id();
    // Taken now, since waiting for a child closes its input.
    let stdio = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let connected = async {
        loop {
            let (stream, _) = listener.accept().await?;
            // Others of this user, such as attempts, can connect too: they could be silent, or send without end.
            let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
            if peer.and_then(|peer| u32::try_from(peer).ok()) != pid {
                continue;
            }
            let (reader, writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            let first = lines.next_line().await?.unwrap_or_default();
            if matches!(serde_json::from_str(&first), Ok(Response::Hello { token: theirs }) if theirs == token)
            {
                return io::Result::Ok((lines, writer));
            }
        }
    };
    let connected = tokio::select! {
        connected = timeout(START_TIMEOUT, connected) => connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        status = child.wait() => Err(io::Error::other(match status {
            Ok(status) => format!("the supervisor exited on start ({status})"),
            Err(error) => format!("failed to wait for the supervisor ({error})"),
        })),
    };
    match connected {
        Ok((lines, writer)) => Ok(SupervisorConnection { child, stdio, lines, writer }),
        Err(error) => {
            let _ = child.kill().await;
            orphans::forget(pid);
            Err(error)
        }
    }
}

/// Requests the start of the program and returns its process id.
async fn launch(
    run: Run,
    lines: &mut Lines<BufReader<OwnedReadHalf>>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<i32> {
    writer.write_all(&protocol::line(&Request::Run(Box::new(run)))?).await?;
    match read_response(lines).await? {
        Response::Started { pid } => Ok(pid),
        // An error made of its number has the right kind.
        Response::Refused { errno: Some(errno), .. } => Err(io::Error::from_raw_os_error(errno)),
        Response::Refused { message, .. } => Err(io::Error::new(io::ErrorKind::NotFound, message)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Forwards requests until the program has ended. Calls `stuck` with processes that cannot be ended.
async fn drive(
    mut receiver: mpsc::UnboundedReceiver<Request>,
    mut lines: Lines<BufReader<OwnedReadHalf>>,
    mut writer: OwnedWriteHalf,
    mut stuck: impl FnMut(String),
) -> End {
    let mut is_held = true;
    loop {
        let request = tokio::select! {
            response = read_response(&mut lines) => return match response {
                Ok(Response::Ended { code, signal, orphans, by }) => Ok((Exit { code, signal, orphans }, by.into())),
                Ok(Response::Stuck { processes }) => {
                    stuck(processes);
                    continue;
                }
                Ok(_) => Err(Unknown::Lost("unexpected response from the supervisor".to_owned())),
                Err(error) => Err(Unknown::Lost(error.to_string())),
            },
            request = receiver.recv(), if is_held => request.unwrap_or_else(|| {
                // The program was dropped.
                is_held = false;
                Request::End { grace_ms: 0 }
            }),
        };
        // A failed write shows as the end of the responses.
        if let Ok(line) = protocol::line(&request) {
            let _ = writer.write_all(&line).await;
        }
    }
}

/// Reads the supervisor's next response. Cancel safe.
async fn read_response(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> io::Result<Response> {
    match lines.next_line().await? {
        Some(line) => Ok(serde_json::from_str(&line)?),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed without a response")),
    }
}

impl From<Stage> for EndedBy {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Interrupt => Self::Interrupt,
            Stage::Terminate => Self::Terminate,
            Stage::Kill => Self::Kill,
        }
    }
}
