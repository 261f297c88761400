//! The worker's end of a supervisor: starts it, lets it prove itself, hands it orders, hears how
//! the program ended. One task a program, which also outlives a dropped [`Running`].

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

use super::orders::{self, Order, Run, Stage, Word};
use super::{EndedBy, Error, Exit, Group, Program, Running, Supervisor, adopt};

/// How a program ended, or why that is not known.
pub(super) type End = Result<(Exit, EndedBy), String>;

/// A supervisor that has not come by then never will.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn start(program: Program) -> Result<Running, Error> {
    let name = program.program.clone();
    let failed = |source| Error::Start { program: name.clone(), source };
    let Connected { mut child, stdio, mut lines, mut writer } = connect().await.map_err(failed)?;
    let run = Run {
        program: program.program,
        args: program.args,
        environment: program.environment.0,
        directory: program.directory,
    };
    let pid = match timeout(START_TIMEOUT, launch(run, &mut lines, &mut writer)).await {
        Ok(Ok(pid)) => pid,
        failure => {
            drop((lines, writer, stdio));
            let supervisor = child.id();
            // It ends by itself, since its socket is closed.
            let _ = child.wait().await;
            adopt::forget(supervisor);
            return Err(failed(failure.map_or_else(
                |_| io::ErrorKind::TimedOut.into(),
                |result| result.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
            )));
        }
    };
    let (orders, receiver) = mpsc::unbounded_channel();
    let (ended, end) = watch::channel(None);
    let running = Running { stdin: stdio.0, stdout: stdio.1, stderr: stdio.2, pid, orders, end };
    Group::join_current(&running.orders, &running.end);
    spawn("supervisor link", OnExit::Done, async move {
        let end = follow(receiver, lines, writer).await;
        let supervisor = child.id();
        if end.is_err() {
            let _ = child.start_kill();
        }
        let _ = child.wait().await;
        adopt::forget(supervisor);
        if end.is_err() {
            // A killed supervisor leaves its processes to the worker. The slot is not free before they are gone.
            let _ = tokio::task::spawn_blocking(adopt::sweep).await;
        }
        ended.send_replace(Some(end));
    });
    Ok(running)
}

/// A supervisor that has proved itself.
struct Connected {
    child: Child,
    stdio: (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>),
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

/// Starts the supervisor process and waits until it has proved itself.
async fn connect() -> io::Result<Connected> {
    // A directory that only this user may enter, gone as soon as the supervisor has come.
    let door = tempfile::Builder::new().prefix("rota-").tempdir()?;
    let path = door.path().join("s");
    let listener = UnixListener::bind(&path)?;
    let token = uuid::Uuid::new_v4().to_string();
    let supervisor = Supervisor::installed();
    let mut command = Command::new(&supervisor.program);
    command
        .args(&supervisor.args)
        .env_clear()
        .env(orders::SOCKET, &path)
        .env(orders::TOKEN, &token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = adopt::spawn(&mut command)?;
    let pid = child.id();
    // Now, since to wait for a child closes its input.
    let stdio = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let come = async {
        loop {
            let (stream, _) = listener.accept().await?;
            let (reader, writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            let first = lines.next_line().await?.unwrap_or_default();
            if matches!(serde_json::from_str(&first), Ok(Word::Hello { token: theirs }) if theirs == token) {
                return io::Result::Ok((lines, writer));
            }
        }
    };
    let come = tokio::select! {
        come = timeout(START_TIMEOUT, come) => come.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        status = child.wait() => Err(io::Error::other(match status {
            Ok(status) => format!("its supervisor ended at once ({status})"),
            Err(error) => format!("its supervisor cannot be waited for ({error})"),
        })),
    };
    match come {
        Ok((lines, writer)) => Ok(Connected { child, stdio, lines, writer }),
        Err(error) => {
            let _ = child.kill().await;
            adopt::forget(pid);
            Err(error)
        }
    }
}

/// Has the program started.
async fn launch(
    run: Run,
    lines: &mut Lines<BufReader<OwnedReadHalf>>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<i32> {
    writer.write_all(&orders::line(&Order::Run(run))?).await?;
    match hear(lines).await? {
        Word::Started { pid } => Ok(pid),
        // With its number the error has its kind.
        Word::Refused { errno: Some(errno), .. } => Err(io::Error::from_raw_os_error(errno)),
        Word::Refused { message, .. } => Err(io::Error::new(io::ErrorKind::NotFound, message)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Hands on orders until the program has ended.
async fn follow(
    mut receiver: mpsc::UnboundedReceiver<Order>,
    mut lines: Lines<BufReader<OwnedReadHalf>>,
    mut writer: OwnedWriteHalf,
) -> End {
    let mut wanted = true;
    loop {
        let order = tokio::select! {
            word = hear(&mut lines) => return match word {
                Ok(Word::Ended { code, signal, strays, by }) => Ok((Exit { code, signal, strays }, by.into())),
                Ok(_) => Err("it said something else than was expected".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            order = receiver.recv(), if wanted => order.unwrap_or_else(|| {
                // Nobody waits for the program any more.
                wanted = false;
                Order::End { grace_ms: 0 }
            }),
        };
        // A failure shows as the end of what it says.
        if let Ok(line) = orders::line(&order) {
            let _ = writer.write_all(&line).await;
        }
    }
}

/// The supervisor's next word. Safe to be dropped and called again.
async fn hear(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> io::Result<Word> {
    match lines.next_line().await? {
        Some(line) => Ok(serde_json::from_str(&line)?),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without a word")),
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
