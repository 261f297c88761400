//! Runs one program to its end, without input and side channel: commands besides the program of a task.

use std::time::Duration;

use rota_proto::v1::{OutputStream, event};
use rota_telemetry::redact::Redactor;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::output::{Budget, forward};
use crate::supervise::{self, Error, Exit, Program, Stop, stopped};

/// Time between the request to end and the kill, of a program that takes too long.
const END_GRACE: Duration = Duration::from_secs(10);

/// End of a program that was run once.
#[derive(Debug)]
pub(crate) enum Ended {
    Exited(Exit),
    TimedOut,
    /// It was not started, or its exit is unknown.
    Failed(Error),
    /// The attempt had to end, by this means.
    Stopped(&'static str),
}

/// A program that has ended, with its last output, redacted.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program. Its output becomes events.
pub(crate) async fn run_once(
    program: Program,
    limit: Duration,
    events: &mpsc::Sender<event::Kind>,
    stop: &mut watch::Receiver<Option<Stop>>,
    redactor: &Redactor,
) -> Ran {
    let mut running = match supervise::start(program).await {
        Ok(running) => running,
        Err(error) => return Ran { ended: Ended::Failed(error), stdout: vec![], stderr: vec![] },
    };
    running.stdin = None;
    let (stdout, stderr, budget) = (running.stdout.take(), running.stderr.take(), Budget::default());
    let ended = async {
        let exit = tokio::select! {
            exit = timeout(limit, running.wait()) => exit,
            stop = stopped(stop) => {
                let by = running.end(stop.grace).await.map_or("kill", |(_, by)| by.as_str());
                return Ended::Stopped(by);
            }
        };
        match exit {
            Ok(exit) => exit.map_or_else(Ended::Failed, Ended::Exited),
            Err(_) => {
                let _ = running.end(END_GRACE).await;
                Ended::TimedOut
            }
        }
    };
    let (ended, stdout, stderr) = tokio::join!(
        ended,
        forward(stdout, OutputStream::Stdout, events, &budget, redactor),
        forward(stderr, OutputStream::Stderr, events, &budget, redactor),
    );
    Ran { ended, stdout, stderr }
}
